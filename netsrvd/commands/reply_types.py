"""Tells whether a reply has the types that the interface `io.netsrvd` gives it.

The socket may be that of another program, or of a daemon of another version.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from netsrvd.control import interface
from netsrvd.counters import BOTH, Definition, definitions

Check = Callable[[Any], bool]

LARGEST = 1 << 53
"""Of an amount of seconds, and of a rate. A time of this many seconds can be shown."""

LARGEST_COUNT = 1 << 64

_DEFINED = re.compile(r"^(?:type|method) (\w+) ?(?:\([^()]*\) -> )?\(([^()]*)\)$", re.MULTILINE)
_MEMBER = re.compile(r"(\w+): ([^\s,]+)")


@cache
def is_reply(method: str) -> Check:
    """Return the function that tells whether a reply to a method has the types of its members.

    Members that are not known here may be there besides: a later version may have added them.
    """
    return _check(method, BOTH)


@cache
def _members() -> Mapping[str, Mapping[str, str]]:
    """Return the types of the members of each type, and of what each method returns."""
    return {name: dict(_MEMBER.findall(text)) for name, text in _DEFINED.findall(interface.text())}


def _check(kind: str, protocols: Iterable[str]) -> Check:
    """Return the check of a type, as Varlink writes it. Counters and gauges have the figures of
    these protocols at least.
    """
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind.startswith("?"):
        check = _check(kind[1:], protocols)
        return lambda value: value is None or check(value)
    if kind.startswith("[]"):
        check = _check(kind[2:], protocols)
        return lambda value: isinstance(value, list) and all(map(check, value))
    if kind.startswith("[string]"):
        check = _check(kind[8:], protocols)
        return lambda value: isinstance(value, dict) and all(map(check, value.values()))
    if kind == "Listener":
        by_protocol = {each: _object(kind, (each,)) for each in BOTH}
        return lambda value: (
            isinstance(value, dict)
            and value.get("protocol") in BOTH
            and by_protocol[value["protocol"]](value)
        )
    return _object(kind, protocols)


def _object(kind: str, protocols: Iterable[str]) -> Check:
    figures = interface.FIGURES.get(kind)
    if figures:
        members = {each.name: _figure(each, protocols) for each in definitions(figures)}
    else:
        members = {name: _check(each, protocols) for name, each in _members()[kind].items()}
    checks = [*members.items()]
    return lambda value: (
        isinstance(value, dict) and all(check(value.get(name)) for name, check in checks)
    )


def _figure(figure: Definition, protocols: Iterable[str]) -> Check:
    is_required = not figure.protocols or not {*protocols}.isdisjoint(figure.protocols)
    return _check(("" if is_required else "?") + interface.kind_of(figure), protocols)


def _is_float(value: object) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # type: ignore[operator]


def _is_int(value: object) -> bool:
    return type(value) is int and -LARGEST_COUNT <= value <= LARGEST_COUNT


_SIMPLE: Mapping[str, Check] = {
    "string": lambda value: isinstance(value, str),
    "int": _is_int,
    "float": _is_float,
}
