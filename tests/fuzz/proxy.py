"""The header of a proxy: any bytes are a header, the beginning of one, or the one named error."""

import ipaddress
from collections.abc import Callable

from netsrvd.addresses import shown
from netsrvd.proxy_protocol import (
    LONG,
    LONGEST,
    WRONG,
    Header,
    HeaderError,
    read_datagram,
    read_stream,
)

Verdict = Header | str | None


def check(data: bytes) -> None:
    """Read the input as what a connection and what a datagram begins with."""
    whole = _verdict(read_stream, data)
    _verdict(read_datagram, data)
    for end in {len(data) // 2, max(0, len(data) - 1), min(len(data), 15)}:
        part = _verdict(read_stream, data[:end])
        assert part in (None, whole), "more of the same has another meaning"


def _verdict(read: Callable[[bytes], Header | None], data: bytes) -> Verdict:
    try:
        header = read(data)
    except HeaderError as error:
        assert error.reason in (LONG, WRONG)
        assert str(error).isprintable()
        return error.reason
    if header is None:
        assert len(data) < LONGEST
        return None
    assert 0 < header.length <= min(len(data), LONGEST)
    if header.client:
        host, port = header.client
        assert str(ipaddress.ip_address(host)) == host or "." in host
        assert 0 <= port < 2**16
        assert shown(host, port).isprintable()
    return header
