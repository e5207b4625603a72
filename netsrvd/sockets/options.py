"""What can be done with a socket option: check its value, set it, read it."""

import errno
import re
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress

from netsrvd import units
from netsrvd.settings import DEFAULT_OPTIONS, OptionValue
from netsrvd.sockets.option_table import ROWS, WORD, Kind, Option

# Some numbers differ between architectures; where Python has the name it has the right one.
OPTIONS = {row.name: row._replace(number=getattr(socket, row.name, row.number)) for row in ROWS}
"""Every socket option by its name."""

NOT_APPLICABLE = "-"
"""What stands for the value of an option that the kernel or the socket does not have."""

_UNAVAILABLE = frozenset(
    {
        errno.EACCES,
        errno.EINVAL,  # a state that the socket is not in, or a kernel that is older
        errno.ENOPROTOOPT,
        errno.ENOTCONN,
        errno.EOPNOTSUPP,
        errno.EPERM,
    }
)
_READ_BYTES = 512
"""More than any of these values; the kernel returns as much as there is."""

SO_BUF_LOCK = 72
"""<asm-generic/socket.h>: which buffers have a fixed size; the kernel adjusts the others."""
_BUF_LOCK = "SO_BUF_LOCK"
_BUFFERS = {"SO_SNDBUF", "SO_RCVBUF"}

FINAL_OPTIONS = ("TCP_WINDOW_CLAMP",)
"""What a listening socket never loses again (EINVAL), and no socket unit sets."""

_LINGER = struct.Struct("@ii")  # struct linger { int l_onoff; int l_linger; };
_TIMEVAL = struct.Struct("@ll")  # struct timeval { time_t tv_sec; suseconds_t tv_usec; };

_WORD = r"[A-Za-z0-9_-]{1,15}"


def parse(name: str, value: object) -> OptionValue:
    """Return a value from the configuration as `apply` takes it.

    Raises ValueError, whose text says what was expected, or why the option cannot be set at all;
    KeyError for an unknown name.
    """
    option = OPTIONS[name]
    if option.refused:
        raise ValueError(option.refused)
    return _CHECKS[option.kind](option, value)


def applies(option: Option, protocol: str, family: int) -> bool:
    """Return whether sockets of this protocol ("tcp", "udp") and address family have the option."""
    return protocol in option.level.protocols and family in option.level.families


def apply(sock: socket.socket, name: str, value: OptionValue) -> str | None:
    """Set an option and read it back: None if the kernel took the value, else the one it gave.

    Buffer sizes count as they are asked for, without the doubling of socket(7). Raises OSError,
    whose text names the option.
    """
    option = OPTIONS[name]
    try:
        sock.setsockopt(option.level.number, option.number, _PACKERS[option.kind](value))
    except OSError as error:
        raise OSError(error.errno, f"{name} = {text(value)}: {error.strerror}") from error
    given = current(sock, option)
    if given is None:
        return None
    if option.factor > 1 and isinstance(given, int):
        given //= option.factor
    return None if text(given) == text(value) else text(given)


def values(sock: socket.socket, protocol: str, names: Iterable[str]) -> dict[str, bytes]:
    """Return the value that each of these options has now, as getsockopt(2) gives it.

    Those that the socket does not have, and those that this daemon sets on every socket, are left
    out.
    """
    found = {}
    for name in names:
        option = OPTIONS[name]
        if name in DEFAULT_OPTIONS or not applies(option, protocol, sock.family):
            continue
        number = OPTIONS[option.reads or name].number
        with suppress(OSError):
            found[option.reads or name] = sock.getsockopt(option.level.number, number, _READ_BYTES)
    if found.keys() & _BUFFERS:
        with suppress(OSError):  # Linux before 5.14
            found[_BUF_LOCK] = sock.getsockopt(socket.SOL_SOCKET, SO_BUF_LOCK, 4)
    return found


def left_over(sock: socket.socket, protocol: str, names: Collection[str]) -> str:
    """Return an option with a value that another process gave it and that cannot be taken back.

    `names` are the options that may have one. Empty for none.
    """
    for name in FINAL_OPTIONS:
        option = OPTIONS[name]
        if name not in names and applies(option, protocol, sock.family):
            value = current(sock, option)
            if value:
                return f"{name} = {text(value)}"
    return ""


def originals(
    sock: socket.socket, protocol: str, before: Mapping[str, bytes]
) -> tuple[tuple[str, bytes], ...]:
    """Return what `put_back` is to set, given the `values` before options were set.

    A value that was there already may have been left by a process that was killed: then it is the
    value of a fresh socket.
    """
    names = [name for name in before if name != _BUF_LOCK]
    now = values(sock, protocol, names)
    same = [name for name in names if before[name] == now.get(name)]
    if not same:
        return tuple(before.items())
    with suppress(OSError):  # MPTCP may have been switched off
        fresh = socket.socket(sock.family, sock.type, sock.proto)
        with fresh:
            return tuple((dict(before) | values(fresh, protocol, same)).items())
    return tuple(before.items())


def put_back(sock: socket.socket, before: Iterable[tuple[str, bytes]]) -> None:
    """Give options their values of before, as far as the kernel lets them be changed."""
    for name, value in before:
        with suppress(OSError):
            if name == _BUF_LOCK:
                sock.setsockopt(socket.SOL_SOCKET, SO_BUF_LOCK, value)
            else:
                option = OPTIONS[name]
                sock.setsockopt(option.level.number, option.number, _undoubled(option, value))


def _undoubled(option: Option, value: bytes) -> bytes:
    """Return a value as setsockopt(2) wants it: the kernel doubles buffer sizes."""
    if option.factor == 1:
        return value
    return (int.from_bytes(value, sys.byteorder) // option.factor).to_bytes(4, sys.byteorder)


def current(sock: socket.socket, option: Option) -> OptionValue | None:
    """Return the value that an option has now, None where it is not applicable."""
    if option.kind == "action":
        return None
    number = OPTIONS[option.reads or option.name].number
    try:
        data = sock.getsockopt(option.level.number, number, _READ_BYTES)
    except OSError as error:
        if error.errno in _UNAVAILABLE:
            return None
        raise
    return _READERS[option.kind](option, data)


def read(sock: socket.socket, option: Option) -> str:
    """Return the value that an option has now, for people; "-" where it is not applicable."""
    return text(current(sock, option))


def text(value: OptionValue | None) -> str:
    """Return a value for people: as the configuration would say it, "-" for None."""
    if value is None:
        return NOT_APPLICABLE
    return str(value).lower() if isinstance(value, bool) else str(value)


def defaults() -> Iterator[tuple[Option, OptionValue | None, OptionValue | None]]:
    """Yield every option with the value that it has on a fresh TCP and on a fresh UDP socket."""
    with ExitStack() as stack:
        fresh = {
            (protocol, family): stack.enter_context(socket.socket(family, kind))
            for protocol, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM))
            for family in _families()
        }
        for option in OPTIONS.values():
            found: dict[str, OptionValue | None] = {}
            for (protocol, family), sock in fresh.items():
                if protocol not in found and applies(option, protocol, family):
                    found[protocol] = current(sock, option)
            yield option, found.get("tcp"), found.get("udp")


def _families() -> list[int]:
    """Return the address families that this kernel has, IPv4 first."""
    found: list[int] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.socket(family, socket.SOCK_DGRAM).close()
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
        else:
            found.append(family)
    return found


# --- from the configuration -------------------------------------------------------------------


def _check_flag(_option: Option, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"expected true or false{units.if_quoted(value)}")


def _check_number(option: Option, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value in option.values:
        return value
    span = f"from {option.values[0]} to {option.values[-1]}"
    raise ValueError(f"expected a whole number {span}{units.if_quoted(value)}")


def _check_size(option: Option, value: object) -> int:
    size = units.size(value)
    if size is not None and size in option.values:
        return size
    limit = option.values[-1]
    raise ValueError(f'expected a size in bytes such as 65536 or "64K", at most {limit}')


def _check_linger(_option: Option, value: object) -> OptionValue:
    # close(2) waits even where the socket never blocks, and the whole loop with it.
    if isinstance(value, int) and value == 0:
        return value
    raise ValueError("expected false, or 0 for a reset at close; waiting would hold up all others")


def _check_text(_option: Option, value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_WORD, value):
        return value
    raise ValueError('expected a name such as "cubic", at most 15 letters, digits, "_" or "-"')


_CHECKS: dict[Kind, Callable[[Option, object], OptionValue]] = {
    "flag": _check_flag,
    "number": _check_number,
    "size": _check_size,
    "linger": _check_linger,
    "text": _check_text,
}


# --- to the kernel ----------------------------------------------------------------------------


def _pack_number(value: OptionValue) -> bytes:
    return (int(value) % len(WORD)).to_bytes(4, sys.byteorder)


def _pack_linger(value: OptionValue) -> bytes:
    return _LINGER.pack(value is not False, int(value))


def _pack_text(value: OptionValue) -> bytes:
    return str(value).encode()


_PACKERS: dict[Kind, Callable[[OptionValue], bytes]] = {
    "flag": _pack_number,
    "number": _pack_number,
    "size": _pack_number,
    "linger": _pack_linger,
    "text": _pack_text,
}


# --- from the kernel --------------------------------------------------------------------------


def _read_flag(_option: Option, data: bytes) -> bool:
    return any(data)


def _read_number(option: Option, data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder, signed=option.values[0] < 0)


def _read_size(option: Option, data: bytes) -> int | str:
    return "unlimited" if set(data) == {0xFF} else _read_number(option, data)


def _read_linger(_option: Option, data: bytes) -> OptionValue:
    on, seconds = _LINGER.unpack(data)
    return int(seconds) if on else False


def _read_timeval(_option: Option, data: bytes) -> float:
    seconds, microseconds = _TIMEVAL.unpack(data)
    return float(seconds + microseconds / 1e6)


def _read_text(_option: Option, data: bytes) -> str:
    return data.rstrip(b"\0").decode("ascii", "replace") or "none"


def _read_address(_option: Option, data: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET, data)


def _read_structure(_option: Option, data: bytes) -> str:
    return f"{len(data)} bytes" if data else "none"


_READERS: dict[Kind, Callable[[Option, bytes], OptionValue]] = {
    "flag": _read_flag,
    "number": _read_number,
    "size": _read_size,
    "linger": _read_linger,
    "timeval": _read_timeval,
    "text": _read_text,
    "address": _read_address,
    "structure": _read_structure,
}
