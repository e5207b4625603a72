"""netsrvd.units"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.units import if_quoted, shown_size, size, span


@pytest.mark.parametrize(
    ("value", "count"),
    [(0, 0), (65536, 65536), ("7", 7), ("64K", 65536), ("1 M", 1 << 20), ("2G", 2 << 30)],
)
def test_sizes_are_read(value: object, count: int) -> None:
    """A number, or a text with K, M or G in powers of 1024."""
    assert size(value) == count


@pytest.mark.parametrize(
    "value", ["", "K", "64k", "1T", "-1K", "1.5M", " 1", "12345678901", True, 1.0, None, []]
)
def test_what_is_no_size_is_none(value: object) -> None:
    """Whatever else it is, no exception."""
    assert size(value) is None


@given(st.integers(0, 1 << 40))
def test_a_shown_size_is_read_as_the_same(count: int) -> None:
    """The unit is the largest that leaves a whole number."""
    shown = shown_size(count)
    assert size(shown) == count
    assert size(str(shown)) == count or count >= 10**10


@pytest.mark.parametrize(
    ("value", "words"),
    [
        *(("5000", ": a number, without quotes"), ("-1", ": a number, without quotes")),
        *(("true", ", without quotes"), ("false", ", without quotes")),
        *(("5000s", ""), ("yes", ""), (5000, ""), (None, ""), ("", ""), ("1" * 31, "")),
    ],
)
def test_what_only_has_quotes_too_many(value: object, words: str) -> None:
    """A number or a flag as a text is named as that; whatever else is wrong is not."""
    assert if_quoted(value) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.9, "0 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (90_061, "1 d 1 h"),
        (86_405, "1 d 5 s"),
    ],
)
def test_spans_of_time(seconds: float, text: str) -> None:
    """Two units at most."""
    assert span(seconds) == text
