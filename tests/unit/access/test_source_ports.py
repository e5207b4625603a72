"""netsrvd.access.source_ports"""

import pytest

from netsrvd.access.source_ports import TABLE, SourcePorts, checked_ports
from netsrvd.settings import ListenerSettings

OWN = {51423, 7007}
DEFAULT = ListenerSettings("echo").refused_ports


@pytest.mark.parametrize(
    ("port", "word"),
    [
        *((port, "privileged") for port in (0, 1, 7, 19, 53, 123, 512, 1023)),
        *((port, "own") for port in OWN),
        *((port, "") for port in (1024, 2049, 51422, 51424, 65535)),
    ],
)
def test_services_are_not_answered(port: int, word: str) -> None:
    """By default ports below 1024 and our own are refused, and no other; the rule names its word
    and the reason.
    """
    rule = SourcePorts(DEFAULT, OWN).denied_by(port)
    assert bool(rule) == bool(word)
    if word:
        reason = TABLE[word].reason
        assert rule == f'source port {port}: refused_ports has "{word}": {reason}'


def test_stamp_stays_refused_where_services_are_welcome() -> None:
    """Port 862 has a row of its own, since two reflectors would answer each other for ever."""
    assert "stamp" in DEFAULT
    ports = SourcePorts(["stamp"], ())
    assert ports.denied_by(862)
    assert not ports.denied_by(863)
    assert not ports.denied_by(7)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [("7", [7], [6, 8]), ("6000-6063", [6000, 6063], [5999, 6064]), ("0-65535", [0, 65535], [])],
)
def test_ports_and_ranges(entry: str, inside: list[int], outside: list[int]) -> None:
    """A range has both of its ends in it."""
    ports = SourcePorts([entry], OWN)
    assert all(f'refused_ports has "{entry}"' in ports.denied_by(port) for port in inside)
    assert not any(ports.denied_by(port) for port in outside)


def test_an_empty_list_refuses_nobody() -> None:
    """Who says so answers every port."""
    assert not any(map(SourcePorts([], OWN).denied_by, range(65536)))


@pytest.mark.parametrize(
    ("value", "text"),
    [("own", "own"), (7, "7"), ("7", "7"), ("1-2", "1-2"), ("7-7", "7-7"), (65535, "65535")],
)
def test_what_an_entry_may_be(value: object, text: str) -> None:
    """Words, numbers and ranges."""
    assert checked_ports(value) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Own",
        "65536",
        65536,
        -1,
        "-1",
        "7-",
        "8-7",
        "1-65536",
        "7 ",
        "\N{ARABIC-INDIC DIGIT SEVEN}",
        True,
        7.0,
        None,
    ],
)
def test_what_an_entry_may_not_be(value: object) -> None:
    """Whatever else it is, the error says what was expected."""
    with pytest.raises(ValueError, match=r'^ports, ranges such as "6000-6063", or the words "priv'):
        checked_ports(value)
