"""netsrvd.proxy_protocol"""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.proxy_protocol import (
    FIXED,
    LONGEST,
    Header,
    HeaderError,
    crc32c,
    read_datagram,
    read_stream,
)
from tests.support.effort import in_proportion
from tests.support.proxied import BY_HAPROXY, SIGNATURE, addresses, checked, tlv, v1, v2


def wrong(data: bytes) -> HeaderError:
    """Return the error of what is no header, whoever the rest would still come from."""
    with pytest.raises(HeaderError) as caught:
        read_stream(data)
    return caught.value


# --- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BY_HAPROXY)
def test_what_haproxy_sends_is_understood(name: str) -> None:
    """Each form of HAProxy names its client, and what follows the header is none of it."""
    header, client = BY_HAPROXY[name]
    assert read_stream(header) == Header(len(header), client)
    assert read_stream(header + b"PROXY hello\r\n") == Header(len(header), client)


@pytest.mark.parametrize("name", BY_HAPROXY)
def test_a_part_of_a_header_waits_for_the_rest(name: str) -> None:
    """Wherever a header is cut, its beginning is neither a header nor an error."""
    header, _ = BY_HAPROXY[name]
    assert {read_stream(header[:end]) for end in range(len(header))} == {None}


@pytest.mark.parametrize(
    ("line", "client"),
    [
        (b"PROXY UNKNOWN", None),
        (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", None),
        (b"PROXY UNKNOWN \xff\x00 anything", None),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", ("255.255.255.255", 65535)),
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 0 0", ("192.0.2.7", 0)),
        (b"PROXY TCP6 2001:DB8:0::7 ::1 1 1", ("2001:db8::7", 1)),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 1", ("192.0.2.7", 1)),
        (b"PROXY UNKNOWN " + b"x" * 91, None),
    ],
)
def test_lines_of_version_1(line: bytes, client: tuple[str, int] | None) -> None:
    """Addresses come in the form that rules and records have them in; UNKNOWN names nobody."""
    assert read_stream(line + b"\r\nrest") == Header(len(line) + 2, client)


@pytest.mark.parametrize(
    "header",
    [
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, addresses()),
        v2(0x20, 0xFF, b"\x03\x00\x04wrong"),
        v2(0x21, 0x00, b""),
        v2(0x21, 0x00, b"anything"),
        v2(0x21, 0x31, bytes(216)),
        v2(0x21, 0x31, bytes(216) + tlv(4, b"")),
    ],
    ids=["LOCAL", "LOCAL addresses", "LOCAL junk", "unspecified", "with junk", "unix", "unix TLV"],
)
def test_the_peer_counts_where_nobody_is_named(header: bytes) -> None:
    """LOCAL is the proxy itself, whatever else is in it; and it stands for whom it cannot name."""
    assert read_stream(header + b"x") == Header(len(header), None)


@pytest.mark.parametrize(
    "others",
    [(), (tlv(5, b"ABC123"),), (tlv(4, b""), tlv(0xE0, b"own"), tlv(2, b"example.com"))],
)
def test_what_else_a_header_says_is_skipped(others: tuple[bytes, ...]) -> None:
    """TLVs of all kinds are skipped, with a checksum before them and without."""
    for header in (checked(addresses(), *others), v2(block=addresses() + b"".join(others))):
        assert read_stream(header) == Header(len(header), ("192.0.2.7", 4711))


def test_the_longest_headers_are_taken() -> None:
    """As many bytes as the limit says, and not one more."""
    room = LONGEST - FIXED - 12 - 3
    header = v2(block=addresses() + tlv(4, bytes(room)))
    assert read_stream(header) == Header(LONGEST, ("192.0.2.7", 4711))
    error = wrong(v2(block=addresses() + tlv(4, bytes(room + 1))))
    assert (error.reason, str(error)) == ("proxy-long", "it has 4097 bytes; 4096 are taken")


def test_mapped_addresses_are_ipv4() -> None:
    """A client is judged by the IPv4 address in an IPv4-mapped one, as it is without a proxy."""
    block = addresses(("::ffff:192.0.2.7", 4711))
    assert read_stream(v2(form=0x21, block=block)) == Header(52, ("192.0.2.7", 4711))


# --- what is not --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.0\r\n", "neither"),
        (b"PROXZ", "neither"),
        (b"\r\n\r\n\x00\r\nQUIX", "neither"),
        (b" PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "neither"),
        (b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "neither"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n", "alone"),
        (b"PROXY TCP4 1.2.3.4\r 1.2.3.4 1 1\r\n", "alone"),
        (b"PROXY UNKNOWN\n\r\n", "alone"),
        (b"PROXY UNKNOWN\r\r\n", "alone"),
        (b"PROXY UNKNOWN\rx", "alone"),
        (b"PROXY UNKNOWN\n" + b"x" * 100, "alone"),
        (b"PROXY \r\n", "as version 1 has it"),
        (b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", "as version 1 has it"),
        (b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", "as version 1 has it"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n", "as version 1 has it"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", "as version 1 has it"),
        (b"PROXY TCP4\t1.2.3.4 1.2.3.4 1 1\r\n", "as version 1 has it"),
        (b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n", "as version 1 has it"),
        (b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", "as version 1 has it"),
        (b"PROXY UNKNOWNX\r\n", "as version 1 has it"),
        (b"PROXY TCP4 ::1 ::1 1 1\r\n", "as version 1 has it"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", "as version 1 has it"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 00\r\n", "as version 1 has it"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n", "as version 1 has it"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 \xd9\xa1 1\r\n", "as version 1 has it"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n", "as version 1 has it"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", "above 65535"),
        (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n", "above 65535"),
        (b"PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n", "none of the family"),
        (b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", "none of the family"),
        (b"PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n", "none of the family"),
        (b"PROXY TCP4 1.2.3.4 1.2.3. 1 1\r\n", "none of the family"),
        (b"PROXY TCP6 1.2.3.4 ::1 1 1\r\n", "none of the family"),
        (b"PROXY TCP6 ::1 :::1 1 1\r\n", "none of the family"),
        (v2(0x11), "0x11"),
        (v2(0x22), "0x22"),
        (v2(0x2F), "0x2f"),
        (v2(form=0x41), "0x41"),
        (v2(form=0x13), "0x13"),
        (v2(form=0x10), "0x10"),
        (v2(form=0x01), "0x01"),
        (v2(form=0x12), "another protocol"),
        (v2(form=0x22, block=bytes(36)), "another protocol"),
        (v2(block=bytes(11)), "too short for its addresses"),
        (v2(form=0x21, block=bytes(35)), "too short for its addresses"),
        (v2(form=0x31, block=bytes(215)), "too short for its addresses"),
        (v2(block=addresses() + b"\x04"), "runs past its end"),
        (v2(block=addresses() + b"\x04\x00"), "runs past its end"),
        (v2(block=addresses() + b"\x04\x00\x01"), "runs past its end"),
        (v2(block=addresses() + tlv(4, b"abc")[:-1]), "runs past its end"),
        (v2(block=addresses() + tlv(3, b"abc")), "not one of four bytes"),
        (v2(block=addresses() + tlv(3, b"abcde")), "not one of four bytes"),
        (v2(block=addresses() + tlv(3, b"abcd")), "checksum is wrong"),
    ],
)
def test_what_is_no_header_is_an_error(data: bytes, text: str) -> None:
    """Each way to be wrong has its words, and is seen however much follows."""
    for rest in (b"", b"more"):
        error = wrong(data + rest)
        assert error.reason == "proxy-header"
        assert text in str(error)


def test_a_line_without_an_end_is_too_long() -> None:
    """107 bytes without CRLF are no header of version 1; 106 may still become one."""
    line = b"PROXY UNKNOWN " + b"x" * 93
    assert read_stream(line[:106]) is None
    assert read_stream(line[:105] + b"\r\n") == Header(107, None)
    for data in (line, line[:106] + b"\r\n"):
        error = wrong(data)
        assert (error.reason, str(error)) == ("proxy-long", "there is no CRLF within 107 bytes")


def test_every_bit_of_a_header_with_a_checksum_counts() -> None:
    """No single bit that is turned gives another client, unless it also takes the checksum away:
    by the length, or by the type of the TLV.
    """
    header, taken_away = checked(addresses(), tlv(5, b"ABC123")), {14, 15, 28}
    for at in range(8 * len(header)):
        turned = bytearray(header)
        turned[at // 8] ^= 1 << at % 8
        try:
            found = read_stream(bytes(turned))
        except HeaderError:
            continue
        assert found is None or found.client is None or at // 8 in taken_away


def test_a_second_checksum_is_an_error() -> None:
    """Only one of two could be right, as each is made with the other."""
    header = v2(block=addresses() + tlv(3, bytes(4)) * 2)
    first = crc32c(header).to_bytes(4, "big")
    assert "checksum" in str(wrong(header[:31] + first + header[35:]))


# --- datagrams ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (v2(form=0x12, block=addresses()), ("192.0.2.7", 4711)),
        (
            v2(form=0x22, block=addresses(("2001:db8::7", 4711))),
            ("2001:db8::7", 4711),
        ),
        (checked(addresses(), form=0x12), ("192.0.2.7", 4711)),
        (v2(0x20, 0x00, b""), None),
        (v2(form=0x32, block=bytes(216)), None),
    ],
    ids=["IPv4", "IPv6", "CRC", "LOCAL", "unix"],
)
def test_a_datagram_begins_with_version_2(header: bytes, client: tuple[str, int] | None) -> None:
    """And the rest of the datagram, of any length, is what is to be answered."""
    for rest in (b"", b"hello"):
        assert read_datagram(header + rest) == Header(len(header), client)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "does not begin"),
        (b"hello", "does not begin"),
        (BY_HAPROXY["v1 TCP4"][0], "does not begin"),
        (SIGNATURE, "ends within"),
        (v2(form=0x12, block=addresses())[:-1], "ends within"),
        (v2(form=0x11, block=addresses()), "another protocol"),
        (v2(form=0x12, block=addresses(), length=5000), "4096"),
    ],
)
def test_a_datagram_without_a_whole_header_is_an_error(data: bytes, text: str) -> None:
    """There is nothing to wait for in a datagram; and version 1 has no datagrams."""
    with pytest.raises(HeaderError, match=text):
        read_datagram(data)


# --- in general ---------------------------------------------------------------------------------


def test_the_checksum_is_the_one_of_castagnoli() -> None:
    """Its check value is that of RFC 3720, B.4, and of every catalogue of CRCs."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0


HOSTS = st.ip_addresses().filter(lambda host: host.version == 4 or not host.ipv4_mapped)


@given(HOSTS, st.integers(0, 65535), st.lists(st.binary(max_size=40), max_size=5), st.booleans())
def test_whoever_is_named_is_found(
    host: object,
    port: int,
    values: list[bytes],
    checksum: bool,  # noqa: FBT001
) -> None:
    """Any client comes out as it went in, by both versions."""
    client, form = (str(host), port), 0x21 if ":" in str(host) else 0x11
    block, others = addresses(client), [tlv(0xEA, value) for value in values]
    header = v2(form=form, block=block + b"".join(others))
    if checksum:
        header = checked(block, *others, form=form)
    assert read_stream(header + b"x") == Header(len(header), client)
    assert read_stream(v1(client)) == Header(len(v1(client)), client)


def pieces(data: bytes) -> Iterator[bytes]:
    """Yield what has come so far, byte by byte."""
    for end in range(len(data) + 1):
        yield data[:end]


@given(st.binary(max_size=300), st.sampled_from([b"PROXY ", b"PROXY TCP4 ", SIGNATURE, b""]))
def test_more_never_makes_a_verdict_another(data: bytes, start: bytes) -> None:
    """Once a header or an error was found, all that comes after it changes nothing."""
    verdict: object = None
    for so_far in pieces(start + data):
        try:
            found: object = read_stream(so_far)
        except HeaderError as error:
            found = error.reason
        assert verdict in (None, found)
        verdict = found


def test_effort_grows_no_faster_than_the_header() -> None:
    """Many small TLVs cost as many steps, whatever they are."""

    def read(count: int) -> None:
        read_stream(checked(addresses(), *[tlv(4, b"")] * count))

    assert in_proportion(read, 200)
