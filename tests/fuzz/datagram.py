"""The names that the kernel gives with a datagram: any bytes are addresses, rightly judged."""

import ipaddress

from netsrvd.access.access_list import MAPPED
from netsrvd.access.datagrams import DatagramPolicy
from netsrvd.addresses import shown
from netsrvd.linux.mmsg import LAYOUTS, Arrival, Batch, packet_info, parse
from netsrvd.settings import ListenerSettings

DENIED = ("10.9.0.0/16", "fe80::9")
SETTINGS = ListenerSettings("lab", allow=("local",), deny=DENIED)
POLICY = DatagramPolicy(SETTINGS, [7007], lambda host: host == "10.0.0.255")

BATCHES = [(layout, Batch(layout, payload_bytes=1)) for layout in LAYOUTS.values()]


def check(data: bytes) -> None:
    """Read the input as the message header of an IPv4 and of an IPv6 datagram."""
    for layout, batch in BATCHES:
        space = (layout.name_length + 7 & ~7) + layout.control_length
        header = data[:space].ljust(space, b"\0")
        host, port = batch.peer(header)
        destination, local = batch.destination(header), batch.local(header)
        assert 0 <= port < 2**16
        _answer_from(parse(data, end=min(len(data), layout.control_length)))
        _answer_from(batch.arrival(header))
        assert shown(host, port).isprintable()
        refusal = POLICY.refusal((host, port), destination, local)
        if refusal is None:
            assert _is_welcome(host)
            assert port > 1023
            assert not ipaddress.ip_address(destination).is_multicast
        elif ipaddress.ip_address(destination).is_multicast:
            assert refusal[0] == "destination"
        elif refusal[0] == "access":
            assert not _is_welcome(host)
        POLICY.release(POLICY.acquire(host).name)


def _answer_from(arrival: Arrival) -> None:
    """Make the control message of an answer, and read it as that of a request."""
    for keep_interface in (False, True):
        again = parse(packet_info(arrival, keep_interface=keep_interface).packed())
        assert again.interface == (arrival.interface if keep_interface else 0)
        if any(arrival.local):
            assert again.local == arrival.local


def _is_welcome(host: str) -> bool:
    """Say at length what the words of the policy mean."""
    address = ipaddress.ip_address(host.partition("%")[0])
    assert address not in ipaddress.IPv6Network(MAPPED) or "%" in host or "." not in host
    allowed = ("127.0.0.0/8", "169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    allowed += ("::1/128", "fe80::/10", "fc00::/7")
    inside = any(address in ipaddress.ip_network(each) for each in allowed)
    denied = any(address in ipaddress.ip_network(each) for each in DENIED)
    return inside and not denied
