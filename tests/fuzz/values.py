"""The value of any key or socket option: a setting that survives being printed, or ValueError."""

import tomllib
from typing import Any

from netsrvd.config.schema import GLOBAL_RULES, LOG_RULES, listener_rules
from netsrvd.config.values import shortly, written
from netsrvd.sockets.options import OPTIONS, parse
from netsrvd.startup import VALIDATORS

RULES = (*GLOBAL_RULES, *LOG_RULES, *listener_rules(VALIDATORS))
NAMES = {(row.kind, row.values, row.refused): name for name, row in OPTIONS.items()}.values()
"""Socket options, one of those that are read alike."""

LONGEST_COMPLAINT = 1000
"""Characters of a complaint beyond what it quotes of the value."""


def check(data: bytes) -> None:
    """Read the input as the TOML value, and as the text, of every key and kind of option."""
    source = data.decode(errors="replace")
    for value in (*_as_toml(source), source):
        assert shortly(value).isprintable()
        for rule in RULES:
            _reads(rule.kind.read, rule.kind.show, value, len(source))
        for name in NAMES:
            _reads(
                lambda given, name=name: parse(name, given), lambda given: given, value, len(source)
            )


def _as_toml(source: str) -> list[Any]:
    try:
        return [*tomllib.loads(f"value = {source}").values()][:1]
    except (ValueError, RecursionError):
        return []


def _reads(read: Any, show: Any, value: object, length: int) -> None:
    """See that a value is refused in one line, or is the same after it was printed."""
    try:
        setting = read(value)
    except ValueError as error:
        assert type(error) is ValueError, "an error of a library got through"
        assert str(error).isprintable()
        assert len(str(error)) < LONGEST_COMPLAINT + 100 * length
        return
    printed = written(show(setting))
    again = read(tomllib.loads(f"value = {printed}")["value"])
    assert (again, type(again)) == (setting, type(setting))
