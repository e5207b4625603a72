"""netsrvd.config.values"""

import datetime as dt
import math
import re
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from netsrvd.config import values
from netsrvd.config.values import Type

HUGE = 16**5000
"""More digits than Python writes in decimal; TOML can have it in hexadecimal."""

DURATION = values.duration(0, 3600.0)
WORD = values.choice(("tcp", "udp"))
NAMED = values.matching(re.compile("[a-z]+"), "names")
SEVERAL = values.list_of(WORD.read, may_be_empty=False, what="one or both")

TAKEN: list[tuple[Type, Any, Any]] = [
    (values.integer(0, 64), 0, 0),
    (values.integer(0, 64), 64, 64),
    (DURATION, 30, 30.0),
    (DURATION, 1.5, 1.5),
    (DURATION, "500ms", 0.5),
    (DURATION, "1.5 s", 1.5),
    (DURATION, "10min", 600.0),
    (DURATION, "1h", 3600.0),
    (values.duration(0, 1e9), "2d", 172_800.0),
    (WORD, "udp", "udp"),
    (values.boolean(), False, False),
    (values.interface(), "", ""),
    (values.interface(), "eth0.7", "eth0.7"),
    (values.interface(), "größe0", "größe0"),
    (values.path(), "", ""),
    (values.path(), "/etc/netsrvd/Sprüche", "/etc/netsrvd/Sprüche"),
    (NAMED, "lab", "lab"),
    (SEVERAL, "tcp", ("tcp",)),
    (SEVERAL, ["udp", "tcp", "udp"], ("udp", "tcp")),
    (values.list_of(WORD.read, may_be_empty=True, what=""), [], ()),
]

REFUSED: list[tuple[Type, Any, str]] = [
    *(
        (values.integer(1, 9, "a port"), wrong, "a port from 1 to 9")
        for wrong in (0, 10, True, 1.0, "1", None, [1])
    ),
    *(
        (DURATION, wrong, 'a duration from 0 to 1h, in seconds or as "500ms", "30s"')
        for wrong in (-1, 3601, "61min", "1 week", "", "s", "٣s", True, math.inf, math.nan, [])
    ),
    *((WORD, wrong, 'one of "tcp", "udp"') for wrong in ("TCP", "", 1, ["tcp"])),
    *((values.boolean(), wrong, "true or false") for wrong in (0, 1, "true", None)),
    *(
        (values.interface(), wrong, "the name of a network interface")
        for wrong in ("a b", "a/b", "a:b", "x" * 16, "ö" * 8, "\x1b[1m", "\u202e", "..", 7)
    ),
    *((values.path(), wrong, "an absolute path") for wrong in ("quotes", "./q", "/a\n", 7, ["/a"])),
    *((NAMED, wrong, "names") for wrong in ("", "a\n", "A", 7, None)),
    *((SEVERAL, wrong, "one or both") for wrong in ([], 7, {"tcp": True}, None)),
    (SEVERAL, ["tcp", "sctp", "dccp"], 'one of "tcp", "udp" (not "sctp", "dccp")'),
]


@pytest.mark.parametrize(("kind", "value", "setting"), TAKEN)
def test_what_is_right_is_taken(kind: Type, value: object, setting: object) -> None:
    """A value of the right type and range becomes the setting that it means."""
    read = kind.read(value)
    assert (read, type(read)) == (setting, type(setting))


@pytest.mark.parametrize(("kind", "value", "expected"), REFUSED)
def test_what_is_wrong_is_refused_with_what_was_expected(
    kind: Type, value: object, expected: str
) -> None:
    """A wrong value raises ValueError, whose text completes the sentence "expected ..."."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is looked at below
        kind.read(value)
    assert str(caught.value).startswith(expected)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", [values.integer(1, 9), DURATION, WORD, SEVERAL])
def test_a_huge_number_is_as_wrong_as_any_other(kind: Type) -> None:
    """A number that is too large even to be written is refused in the same way."""
    for wrong in (HUGE, [HUGE]):
        with pytest.raises(ValueError, match=r"^(a|one) "):
            kind.read(wrong)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, 0),
        (0.0005, 0.0005),
        (0.25, "250ms"),
        (1.0, "1s"),
        (90.0, "90s"),
        (600.0, "10min"),
        (86_400.0, "1d"),
        (31_536_000.0, "365d"),
        (1.23456, 1.23456),
    ],
)
def test_a_duration_is_shown_with_its_largest_unit(seconds: float, shown: str | float) -> None:
    """A duration is shown with the largest unit that leaves a whole number, else as a number."""
    assert values.shown_duration(seconds) == shown


@given(st.floats(0, 1e9))
@example(1_234_567_891 * 0.001)
def test_a_duration_that_is_shown_is_read_as_the_same(seconds: float) -> None:
    """What is shown for any duration is read as exactly that duration."""
    kind = values.duration(0, 1e9)
    assert kind.read(kind.show(seconds)) == seconds


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_an_address_is_made_canonical(written: str, canonical: str) -> None:
    """Addresses are compared as texts later on, so each has one form."""
    assert values.address(written) == canonical


@pytest.mark.parametrize(
    "wrong",
    [
        *("localhost", "192.0.2.1:7", "192.0.2", "[::1]", "", 7, None),
        *("fe80::1%\x1b[31m", "fe80::1%a b", "fe80::1%" + "x" * 16, "fe80::1%"),
    ],
)
def test_what_is_no_address_is_refused(wrong: object) -> None:
    """Only addresses are taken, with interfaces that can be: a name could mean another tomorrow."""
    with pytest.raises(ValueError, match="names are not resolved"):
        values.address(wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *[(each, "a multicast address is none") for each in ("224.0.0.1", "ff02::1%eth0")],
        ("::ffff:192.0.2.1", 'IPv4 in its own form, such as "192.0.2.1"'),
    ],
)
def test_what_nobody_can_listen_on_is_refused(wrong: str, words: str) -> None:
    """Or it would be found out at the start, or never."""
    with pytest.raises(ValueError, match=words):
        values.address(wrong)


@pytest.mark.parametrize(
    ("value", "numbers"), [([], ()), (7, (7,)), ([1, 63, 1], (1, 63)), ([63], (63,))]
)
def test_a_list_of_numbers(value: object, numbers: tuple[int, ...]) -> None:
    """One number may stand for a list of itself; each counts once."""
    assert values.integers(1, 63).read(value) == numbers


@pytest.mark.parametrize("wrong", [[0], [64], True, [True], "7", ["7"], [1.0], None, [[1]]])
def test_what_is_no_list_of_numbers(wrong: object) -> None:
    """Texts, flags and what is out of range are refused, with the range."""
    with pytest.raises(ValueError, match="whole numbers from 1 to 63"):
        values.integers(1, 63).read(wrong)


@pytest.mark.parametrize("where", ["", "/etc/netsrvd/a key", "credential:a", "credential:Lab-1.k_"])
def test_where_a_key_may_be(where: str) -> None:
    """In a credential of systemd's, in a file, or nowhere."""
    assert values.key_source().read(where) == where


@pytest.mark.parametrize(
    "wrong", ["key", "credential:", "credential:../a", "credential:a/b", "/a\x1b", 7, None, "~/key"]
)
def test_where_no_key_can_be(wrong: object) -> None:
    """A key itself is none of them: it would be readable in the configuration."""
    with pytest.raises(ValueError, match="credential:NAME"):
        values.key_source().read(wrong)


@given(st.text() | st.lists(st.text() | st.booleans() | st.integers()) | st.floats(-1e9, 1e9))
def test_what_is_written_is_toml(value: object) -> None:
    """A value is written in one printable line that TOML reads as the same value."""
    text = values.written(value)
    assert text.isprintable()
    assert tomllib.loads(f"key = {text}")["key"] == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("\x7f\x1b\u202e", r'"\U0000007F\u001b\U0000202E"'),
        (dt.date(2026, 11, 23), '"2026-11-23"'),
        (HUGE, "…"),
        ("x" * 100, '"' + "x" * 78 + "…"),
    ],
    ids=["control", "date", "huge", "long"],
)
def test_a_value_is_shown_to_people_in_short(value: object, text: str) -> None:
    """What cannot be written is shown, too; nothing of it commands a terminal or fills it."""
    assert values.shortly(value) == text
