"""The kinds of values that a configuration file may have: how each is read and written.

A `Type` reads what TOML gave or raises ValueError, whose text completes the sentence "expected …";
it shows a setting as the TOML value that would be read as the same.
"""

import re
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from netsrvd import units

DURATION_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(ms|s|min|h|d)"
"""Compiled, and then kept by `re`, when a value comes: a start need not wait for it. So are all
patterns of the daemon."""

_CREDENTIAL = r"credential:[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"

IFNAMSIZ = 16
"""Bytes that the kernel has for the name of an interface, a final NUL included (netdevice(7))."""

SHOWN_LENGTH = 80


class Type(NamedTuple):
    """How the values of one sort of key are read and shown."""

    read: Callable[[Any], Any]
    show: Callable[[Any], Any]


def identity(value: object) -> object:
    """Return `value`: it is shown in TOML as it stands in the settings."""
    return value


def integer(low: int, high: int, what: str = "a whole number") -> Type:
    """Return the type of whole numbers from `low` to `high`."""

    def read(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        raise ValueError(f"{what} from {low} to {high}{units.if_quoted(value)}")

    return Type(read, identity)


def integers(low: int, high: int) -> Type:
    """Return the kind of lists of whole numbers from `low` to `high`, without repetition."""

    def read(value: object) -> tuple[int, ...]:
        entries = [value] if isinstance(value, int) else value
        if not isinstance(entries, list) or not all(
            _is_within(each, low, high) for each in entries
        ):
            raise ValueError(f"a list of whole numbers from {low} to {high}")
        return tuple(dict.fromkeys(entries))

    return Type(read, list)


def _is_within(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def size(low: int, high: int) -> Type:
    """Return the type of sizes from `low` to `high` bytes: a number, or "64K", "1M"."""

    def read(value: object) -> int:
        count = units.size(value)
        if count is None or not low <= count <= high:
            span = f"from {units.shown_size(low)} to {units.shown_size(high)}"
            raise ValueError(f'a size {span}, in bytes or as "64K", "16M", "1G"')
        return count

    return Type(read, units.shown_size)


def duration(low: float, high: float) -> Type:
    """Return the type of durations from `low` to `high` seconds: a number, or "500ms", "10min"."""

    def read(value: object) -> float:
        seconds = _seconds(value)
        if seconds is None or not low <= seconds <= high:
            span = f"from {shown_duration(low)} to {shown_duration(high)}"
            forms = 'in seconds or as "500ms", "30s", "10min", "2h"'
            raise ValueError(f"a duration {span}, {forms}{units.if_quoted(value)}")
        return float(seconds)

    return Type(read, shown_duration)


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    found = re.fullmatch(_DURATION, value) if isinstance(value, str) else None
    return float(found[1]) * DURATION_UNITS[found[2]] if found else None


def shown_duration(seconds: float) -> str | float:
    """Return `seconds` with the largest unit that leaves a whole number, else as a number."""
    for unit, size in reversed(DURATION_UNITS.items()):
        count = round(seconds / size)
        if count and count * size == seconds:
            return f"{count}{unit}"
    return int(seconds) if seconds == int(seconds) else seconds


def choice(known: Collection[str]) -> Type:
    """Return the type of one of the `known` words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in known:
            return value
        raise ValueError("one of " + ", ".join(f'"{each}"' for each in known))

    return Type(read, identity)


def boolean() -> Type:
    """Return the type of `true` and `false`."""

    def read(value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise ValueError(f"true or false{units.if_quoted(value)}")

    return Type(read, identity)


def interface() -> Type:
    """Return the type of names of network interfaces."""

    def read(value: object) -> str:
        if isinstance(value, str) and _may_be_interface(value):
            return value
        raise ValueError('the name of a network interface, such as "eth0", or "" for any')

    return Type(read, identity)


def _may_be_interface(name: str) -> bool:
    allowed = name.isprintable() and not {*" /:"} & {*name} and name not in (".", "..")
    return allowed and len(name.encode()) < IFNAMSIZ


def path() -> Type:
    """Return the type of absolute paths; a reload may come from another working directory."""

    def read(value: object) -> str:
        if isinstance(value, str) and value.isprintable() and value[:1] in ("", "/"):
            return value
        raise ValueError('an absolute path, such as "/etc/netsrvd/quotes", or "" for none')

    return Type(read, identity)


def key_source() -> Type:
    """Return the kind of places that a key can be read from: a credential, or a file."""

    def read(value: object) -> str:
        text = value if isinstance(value, str) and value.isprintable() else "."
        if text[:1] in ("", "/") or re.fullmatch(_CREDENTIAL, text):
            return text
        raise ValueError('"credential:NAME", the absolute path of a file, or "" for none')

    return Type(read, identity)


def matching(pattern: str, what: str) -> Type:
    """Return the type of texts that a pattern describes as a whole."""

    def read(value: object) -> str:
        if isinstance(value, str) and re.fullmatch(pattern, value):
            return value
        raise ValueError(what)

    return Type(read, identity)


def list_of(read_one: Callable[[object], str], *, may_be_empty: bool, what: str) -> Type:
    """Return the type of lists without repetition; one text may stand for a list of itself."""

    def read(value: object) -> tuple[str, ...]:
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or not (entries or may_be_empty):
            raise ValueError(what)
        found: dict[str, None] = {}
        faults: dict[str, list[str]] = {}
        for entry in entries:
            try:
                found[read_one(entry)] = None
            except ValueError as error:
                faults.setdefault(str(error), []).append(shortly(entry))
        if faults:
            texts = [f"{expected} (not {', '.join(bad)})" for expected, bad in faults.items()]
            raise ValueError("; ".join(texts))
        return tuple(found)

    return Type(read, list)


def address(value: object) -> str:
    """Return the IP address of one host in its canonical form.

    Names are not resolved: they may change.
    """
    known = 'IP addresses such as "192.0.2.1" or "::1" (names are not resolved)'
    if not isinstance(value, str) or not _may_be_interface(value.partition("%")[2]):
        raise ValueError(known)
    import ipaddress  # noqa: PLC0415 - most configurations name no address

    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError(known) from None
    if found.is_multicast:
        raise ValueError("addresses of hosts; a multicast address is none")
    if mapped := getattr(found, "ipv4_mapped", None):
        raise ValueError(f'IPv4 in its own form, such as "{mapped}"')
    return str(found)


def written(value: object) -> str:
    """Return whatever TOML can hold as TOML, in one printable line.

    What JSON writes differently (dates, infinity) is no setting, so it is never read again.
    """
    try:
        import json  # noqa: PLC0415 - only for lists and faults

        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):  # thousands of digits, thousands of levels
        return "…"
    return "".join(each if each.isprintable() else f"\\U{ord(each):08X}" for each in text)


def shortly(value: object) -> str:
    """Return a value as `written`, with its end cut off if it is long."""
    text = written(value)
    return text if len(text) <= SHOWN_LENGTH else text[: SHOWN_LENGTH - 1] + "…"
