"""netsrvd.sockets.options and its table."""

import errno
import os
import re
import socket
import struct
from collections.abc import Iterator
from typing import Never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.settings import DEFAULT_OPTIONS
from netsrvd.sockets import option_table, options
from netsrvd.sockets.option_table import NOT_OPTIONS, ROWS, Option
from netsrvd.sockets.options import OPTIONS, applies, apply, parse, read

PYTHON_NAMES = [
    name for name in dir(socket) if re.match(r"(SO|IP|IPV6|TCP|UDP|UDPLITE)_[A-Z]", name)
]
SETTABLE = [option for option in OPTIONS.values() if not option.refused]

TOML_VALUES = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.datetimes()
    | st.from_regex(r"[0-9]{1,12} ?[KMGTkB]{0,2}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


class FaultySocket:
    """A socket whose calls fail with the given errors; 0 for none."""

    def __init__(self, *, on_set: int = 0, on_get: int = 0) -> None:
        self.on_set, self.on_get = on_set, on_get

    def setsockopt(self, *_: object) -> None:
        if self.on_set:
            raise OSError(self.on_set, os.strerror(self.on_set))

    def getsockopt(self, *_: object) -> bytes:
        raise OSError(self.on_get, os.strerror(self.on_get))


@pytest.fixture
def tcp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        yield sock


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield sock


# --- the table --------------------------------------------------------------------------------


def test_python_knows_no_option_that_the_table_lacks() -> None:
    """Every constant of Python's socket module is a row, or has a reason for not being one."""
    assert {*PYTHON_NAMES} - {*OPTIONS} == {*PYTHON_NAMES} & {*NOT_OPTIONS}
    assert not {*OPTIONS} & {*NOT_OPTIONS}
    assert all(NOT_OPTIONS.values())


def test_numbers_are_those_of_python() -> None:
    """An option's number is the one that Python has for that name, where it has one."""
    named = {row.name: getattr(socket, row.name) for row in ROWS if hasattr(socket, row.name)}
    assert len(named) > 80
    assert {name: OPTIONS[name].number for name in named} == named
    # SOL_SOCKET's numbers are others on MIPS, PA-RISC, SPARC and Alpha.
    common = {row.name: row.number for row in ROWS if not row.name.startswith("SO_")}
    assert {name: number for name, number in common.items() if name in named} == {
        name: number for name, number in named.items() if name in common
    }


def test_names_are_unique() -> None:
    """No option has two rows."""
    assert len(OPTIONS) == len(ROWS)


@pytest.mark.parametrize("option", ROWS, ids=lambda row: row.name)
def test_each_row_is_fit_to_be_printed(option: Option) -> None:
    """A meaning is one short phrase without a full stop; a refusal continues the option's name."""
    assert option.meaning[0].isupper() or option.meaning.startswith("SO_")
    assert len(option.meaning) <= 60
    assert "\n" not in option.meaning
    assert not option.meaning.endswith(".")
    assert not option.refused or option.refused.startswith(("is ", "cannot be set: "))


@pytest.mark.parametrize("option", SETTABLE, ids=lambda row: row.name)
def test_what_can_be_set_can_be_checked_packed_and_read(option: Option) -> None:
    """A row that a configuration may set is of a kind that can be checked, packed and read."""
    assert option.kind in options._CHECKS
    assert option.kind in options._PACKERS
    assert option.kind in options._READERS


@pytest.mark.parametrize(
    "name",
    [
        "SO_REUSEADDR",
        "IPV6_V6ONLY",
        "SO_BINDTODEVICE",
        "SO_RCVTIMEO",
        "SO_SNDTIMEO",
        "IP_PKTINFO",
        "IPV6_RECVPKTINFO",
        "SO_TIMESTAMP",
        "IP_RECVERR",
        "UDP_CORK",
        "SO_ERROR",
        "TCP_INFO",
        "IP_ADD_MEMBERSHIP",
    ],
)
def test_what_the_daemon_depends_on_is_refused(name: str) -> None:
    """What would break the daemon, and what cannot be set, no configuration can set."""
    with pytest.raises(ValueError, match=re.escape(OPTIONS[name].refused)):
        parse(name, value=True)
    assert OPTIONS[name].refused


def test_no_option_that_adds_control_messages_can_be_set() -> None:
    """Datagram batches have room for one control message: whatever adds another is refused."""
    delivering = [row for row in ROWS if row.meaning.startswith("Deliver")]
    assert len(delivering) > 20
    assert [row.name for row in delivering if not row.refused] == []


def test_the_default_options_are_valid() -> None:
    """What the settings have by default is what a configuration could say."""
    assert {name: parse(name, value) for name, value in DEFAULT_OPTIONS.items()} == DEFAULT_OPTIONS


# --- parse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("SO_KEEPALIVE", True, True),
        ("TCP_NODELAY", False, False),
        ("TCP_KEEPIDLE", 60, 60),
        ("IP_TOS", 0, 0),
        ("SO_MARK", 2**32 - 1, 2**32 - 1),
        ("TCP_LINGER2", -1, -1),
        ("SO_RCVBUF", 65536, 65536),
        ("SO_RCVBUF", "65536", 65536),
        ("SO_RCVBUF", "64K", 65536),
        ("SO_RCVBUF", "1 M", 2**20),
        ("SO_MAX_PACING_RATE", "2G", 2**31),
        ("SO_LINGER", False, False),
        ("SO_LINGER", 0, 0),
        ("TCP_CONGESTION", "cubic", "cubic"),
    ],
)
def test_a_valid_value_is_returned(name: str, value: object, expected: object) -> None:
    """A value that fits the row comes back as `apply` takes it, with sizes in bytes."""
    found = parse(name, value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("SO_KEEPALIVE", 1, "expected true or false"),
        ("SO_KEEPALIVE", "yes", "expected true or false"),
        ("IP_TOS", 256, "expected a whole number from 0 to 255"),
        ("IP_TOS", True, "expected a whole number from 0 to 255"),
        ("IP_TOS", 1.0, "expected a whole number from 0 to 255"),
        ("IP_TTL", 0, "expected a whole number from 1 to 255"),
        ("SO_RCVBUF", "1T", 'expected a size in bytes such as 65536 or "64K", at most 2147483647'),
        ("SO_RCVBUF", "9G", 'expected a size in bytes such as 65536 or "64K", at most 2147483647'),
        ("SO_RCVBUF", True, "expected a size in bytes"),
        ("SO_RCVBUF", -1, "expected a size in bytes"),
        ("SO_RCVBUF", "٣", "expected a size in bytes"),
        ("SO_RCVBUF", "9" * 10_000, "expected a size in bytes"),
        ("SO_LINGER", True, "expected false, or 0 for a reset at close"),
        ("SO_LINGER", 5, "expected false, or 0 for a reset at close"),
        ("TCP_CONGESTION", "no such name", 'expected a name such as "cubic"'),
        ("TCP_CONGESTION", "", 'expected a name such as "cubic"'),
        ("TCP_CONGESTION", ["cubic"], 'expected a name such as "cubic"'),
    ],
)
def test_an_invalid_value_is_refused_with_what_was_expected(
    name: str, value: object, complaint: str
) -> None:
    """A value that does not fit raises ValueError, whose text says what would."""
    with pytest.raises(ValueError, match="^" + re.escape(complaint)):
        parse(name, value)


def test_an_unknown_name_is_a_key_error() -> None:
    """The caller finds out beforehand whether a name is known."""
    with pytest.raises(KeyError):
        parse("SO_NONSENSE", 1)


@given(st.sampled_from(sorted(OPTIONS)), TOML_VALUES)
def test_parse_returns_a_value_or_raises_value_error(name: str, value: object) -> None:
    """Whatever TOML can hold, the answer is a plain value or a ValueError with one line."""
    complaint, found = "", None
    try:
        found = parse(name, value)
    except ValueError as error:
        complaint = str(error)
    assert complaint or type(found) in (bool, int, str)
    assert "\n" not in complaint


@given(st.sampled_from(SETTABLE), st.data())
def test_what_is_packed_is_read_as_the_same(option: Option, data: st.DataObject) -> None:
    """Every value that the table allows goes to the kernel and back without a change."""
    values = {
        "flag": st.booleans(),
        "number": st.integers(option.values[0], option.values[-1]),
        "size": st.integers(option.values[0], option.values[-1]),
        "linger": st.sampled_from([False, 0]),
        "text": st.from_regex(r"[A-Za-z0-9_-]{1,15}", fullmatch=True),
    }
    value = parse(option.name, data.draw(values[option.kind]))
    packed = options._PACKERS[option.kind](value)
    assert options.text(options._READERS[option.kind](option, packed)) == options.text(value)


# --- applies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("SO_KEEPALIVE", "tcp4 tcp6 udp4 udp6"),
        ("IP_TOS", "tcp4 tcp6 udp4 udp6"),
        ("IPV6_TCLASS", "tcp6 udp6"),
        ("TCP_NODELAY", "tcp4 tcp6"),
        ("UDP_GRO", "udp4 udp6"),
        ("UDPLITE_SEND_CSCOV", ""),
    ],
)
def test_an_option_applies_by_its_level(name: str, fits: str) -> None:
    """The level tells the sockets that have an option; IPv6 ones may carry IPv4, so IP_* too."""
    families = {"4": socket.AF_INET, "6": socket.AF_INET6}
    kinds = [(protocol, digit) for protocol in ("tcp", "udp") for digit in families]
    found = [p + d for p, d in kinds if applies(OPTIONS[name], p, families[d])]
    assert " ".join(found) == fits


# --- apply and read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("TCP_NODELAY", True, "true"),
        ("SO_KEEPALIVE", True, "true"),
        ("TCP_KEEPIDLE", 33, "33"),
        ("IP_TTL", 99, "99"),
        ("SO_RCVBUF", 65536, "131072"),
        ("SO_SNDBUF", 65536, "131072"),
        ("SO_LINGER", 0, "0"),
        ("TCP_CONGESTION", "reno", "reno"),
        ("SO_MAX_PACING_RATE", 10_000, "10000"),
    ],
)
def test_a_value_that_the_kernel_takes_is_no_news(
    tcp: socket.socket, name: str, value: object, shown: str
) -> None:
    """`apply` returns None when the kernel took the value; `read` shows it, buffers doubled."""
    assert apply(tcp, name, value) is None
    assert read(tcp, OPTIONS[name]) == shown


def test_linger_can_be_switched_off(tcp: socket.socket) -> None:
    """`false` for SO_LINGER is off, which is not 0 seconds."""
    apply(tcp, "SO_LINGER", 0)
    assert apply(tcp, "SO_LINGER", value=False) is None
    assert read(tcp, OPTIONS["SO_LINGER"]) == "false"


@pytest.mark.parametrize("name", ["SO_RCVBUF", "SO_SNDBUF"])
def test_a_clamped_buffer_is_reported_as_it_was_asked(udp: socket.socket, name: str) -> None:
    """A buffer beyond net.core.?mem_max: the reported size counts like the asked one, undoubled."""
    given = apply(udp, name, 2**31 - 1)
    assert given is not None
    assert int(given) < 2**31 - 1
    assert read(udp, OPTIONS[name]) == str(2 * int(given))


def test_a_raised_minimum_is_reported(udp: socket.socket) -> None:
    """A buffer below the kernel's minimum is reported, too."""
    assert int(apply(udp, "SO_RCVBUF", 1) or 0) > 1


def test_a_privileged_buffer_is_read_by_its_plain_name() -> None:
    """SO_RCVBUFFORCE can be set only; what it did is read from SO_RCVBUF."""
    asked = []

    class Recorder(FaultySocket):
        def getsockopt(self, level: int, number: int, size: int) -> bytes:
            asked.append(number)
            return struct.pack("@i", 2 * 4096)

    assert apply(Recorder(), "SO_RCVBUFFORCE", 4096) is None
    assert asked == [socket.SO_RCVBUF]


def test_what_cannot_be_read_back_counts_as_taken() -> None:
    """An option without getsockopt(2) (SO_BUSY_POLL_BUDGET) gives no news."""
    assert apply(FaultySocket(on_get=errno.ENOPROTOOPT), "SO_BUSY_POLL_BUDGET", 8) is None


def test_a_refusal_of_the_kernel_names_the_option() -> None:
    """An OSError keeps its errno and its class, and its text names option and value."""
    with pytest.raises(PermissionError, match="SO_MARK = 7: Operation not permitted") as caught:
        apply(FaultySocket(on_set=errno.EPERM), "SO_MARK", 7)
    assert caught.value.errno == errno.EPERM


@pytest.mark.parametrize(
    "number", [errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTCONN, errno.EPERM]
)
def test_an_option_that_is_not_applicable_is_a_dash(number: int) -> None:
    """Where the kernel or the socket does not have an option, a dash stands for its value."""
    assert read(FaultySocket(on_get=number), OPTIONS["TCP_INFO"]) == "-"


def test_another_error_of_reading_flies_up(tcp: socket.socket) -> None:
    """A closed socket is a bug of the caller, not a missing option."""
    tcp.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        read(tcp, OPTIONS["TCP_NODELAY"])


def test_an_action_is_never_read() -> None:
    """Some options take a structure from the reader's buffer: those are not even tried."""
    assert read(FaultySocket(on_get=errno.EBADF), OPTIONS["TCP_ZEROCOPY_RECEIVE"]) == "-"


def test_times_and_structures_are_readable(tcp: socket.socket) -> None:
    """Time-outs show as seconds, structures as their size, all ones as no limit."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 1, 500_000))
    assert read(tcp, OPTIONS["SO_RCVTIMEO"]) == "1.5"
    assert re.fullmatch(r"\d+ bytes", read(tcp, OPTIONS["TCP_INFO"]))
    assert read(tcp, OPTIONS["IP_OPTIONS"]) == "none"
    assert read(tcp, OPTIONS["SO_BINDTODEVICE"]) == "none"
    assert read(tcp, OPTIONS["IP_MULTICAST_IF"]) == "0.0.0.0"
    assert read(tcp, OPTIONS["SO_MAX_PACING_RATE"]) == "unlimited"


def test_negative_numbers_are_read_as_such(tcp: socket.socket) -> None:
    """A number that may be negative is read with its sign."""
    assert apply(tcp, "TCP_LINGER2", -1) is None
    assert read(tcp, OPTIONS["TCP_LINGER2"]) == "-1"


# --- defaults ---------------------------------------------------------------------------------


def test_defaults_show_every_option_on_both_protocols() -> None:
    """Every option comes once, with its values on a fresh TCP and UDP socket, None for neither."""
    found = {option.name: (on_tcp, on_udp) for option, on_tcp, on_udp in options.defaults()}
    assert [*found] == [*OPTIONS]
    assert found["TCP_NODELAY"] == (False, None)
    assert found["SO_TYPE"] == (socket.SOCK_STREAM, socket.SOCK_DGRAM)
    assert found["SO_DOMAIN"] == (socket.AF_INET, socket.AF_INET)


@pytest.mark.parametrize("missing", [socket.AF_INET, socket.AF_INET6])
def test_defaults_do_without_a_missing_family(
    monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    """A kernel without IPv6 has no IPV6_* options; one without IPv4 still has all the others."""
    made = socket.socket

    def make(family: int, kind: int) -> socket.socket:
        if family == missing:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return made(family, kind)

    monkeypatch.setattr(options.socket, "socket", make)
    found = {option.name: (on_tcp, on_udp) for option, on_tcp, on_udp in options.defaults()}
    assert found["SO_BROADCAST"] == (False, False)
    assert (found["IPV6_V6ONLY"] == (None, None)) == (missing == socket.AF_INET6)


def test_defaults_hide_no_other_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a missing family is passed over; too many open files is an error."""

    def make(family: int, kind: int) -> Never:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(options.socket, "socket", make)
    with pytest.raises(OSError, match="Too many open files"):
        next(options.defaults())


def test_levels_have_the_names_of_the_headers() -> None:
    """A level's name is the one that Python and the man pages have for its number."""
    for level in option_table.LEVELS.values():
        assert getattr(socket, level.name) == level.number
