"""The names that the kernel gives with a datagram: any bytes are addresses, rightly judged."""

import ipaddress

from netsrvd.addresses import shown
from netsrvd.admission import MAPPED, AccessGate
from netsrvd.linux.mmsg import LAYOUTS, Batch

GATE_TEXTS = ["local"], ["10.9.0.0/16", "fe80::9"]


BATCHES = [(layout, Batch(layout, payload_bytes=1)) for layout in LAYOUTS.values()]


def check(data: bytes) -> None:
    """Read the input as the envelope of an IPv4 and of an IPv6 datagram."""
    for layout, batch in BATCHES:
        space = (layout.name_length + 7 & ~7) + layout.control_length
        envelope = data[:space].ljust(space, b"\0")
        host, port = batch.peer(envelope)
        asked, local = batch.asked(envelope), batch.local(envelope)
        assert 0 <= port < 2**16
        assert shown(host, port).isprintable()
        gate = AccessGate(*GATE_TEXTS)
        assert (gate.refusal(host) is None) == _is_welcome(host)
        refusal = gate.datagram_refusal(host, asked, local)
        if ipaddress.ip_address(asked).is_multicast:
            assert refusal is not None
            assert refusal[0] == "destination"


def _is_welcome(host: str) -> bool:
    """Say at length what the words of the gate mean."""
    address = ipaddress.ip_address(host.partition("%")[0])
    assert address not in MAPPED or "%" in host or "." not in host
    allowed = ("127.0.0.0/8", "169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    allowed += ("::1/128", "fe80::/10", "fc00::/7")
    inside = any(address in ipaddress.ip_network(each) for each in allowed)
    denied = any(address in ipaddress.ip_network(each) for each in GATE_TEXTS[1])
    return inside and not denied
