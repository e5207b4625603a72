"""What services may show of the server: its metrics, and the status page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
"""The names and values that tell the samples of a metric apart."""


class Family(NamedTuple):
    """One metric, with a sample for each combination of labels."""

    name: str
    """Of a sample; that of a counter ends in `_total`, that of an info in `_info`."""
    kind: str
    """`counter`, `gauge`, or `info`, whose labels are facts and whose value is 1."""
    help: str
    """One sentence."""
    samples: Sequence[tuple[Labels, float]]


class Fact(NamedTuple):
    """One figure or text of the status page."""

    key: str
    title: str
    text: str
    is_bad: bool = False
    """Whether it is marked, as something is to be done about it."""


class Table(NamedTuple):
    """One table of the status page. Its cells are texts."""

    key: str
    title: str
    columns: tuple[str, ...]
    texts: int
    """How many columns, from the left, are texts; the others are numbers."""
    rows: Iterable[tuple[str, ...]]
    """They are made while they are written."""


class Overview(NamedTuple):
    """What the status page shows. Keys are letters alone."""

    title: str
    at: float
    """The time in seconds since 1970, as is the next one."""
    start: float
    """When the run began: counts are 0 then."""
    at_text: str
    facts: Sequence[Fact]
    series: Mapping[str, float]
    """Numbers and counts of which the page draws the history."""
    tables: Sequence[Table]
