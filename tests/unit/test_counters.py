"""netsrvd.counters"""

import re
from pathlib import Path

import pytest

from netsrvd import counters
from netsrvd.counters import ByReason, Counters, Gauges, RunFigures, definitions
from netsrvd.events.connections import Closed
from netsrvd.events.flows import FlowEnded
from netsrvd.events.refusals import Refused

ALL = [each for kind in (RunFigures, Gauges, Counters) for each in definitions(kind)]


def test_all_begin_with_nothing() -> None:
    """A new listener has counted nothing, by no reason."""
    for name, value in vars(Counters()).items():
        assert (value.total if isinstance(value, ByReason) else value) == 0, name


def test_counters_are_added_one_by_one() -> None:
    """The sum is a new object; those of the listeners stay theirs."""
    one = Counters(accepted=3, closed=ByReason(client=2, idle=1))
    two = Counters(accepted=4, closed=ByReason(idle=5, new=1))
    total = sum((one, two), Counters())
    assert (total.accepted, total.closed["idle"], total.closed["new"]) == (7, 6, 1)
    assert total.closed.total == 9
    assert (one.accepted, dict(one.closed)) == (3, {"client": 2, "idle": 1})


def test_a_copy_does_not_change() -> None:
    """What is counted after a copy is not in it."""
    counted = Counters()
    copy = counted.copy()
    counted.accepted += 1
    counted.closed["idle"] += 1
    assert copy == Counters() != counted


def test_a_record_has_each_count_and_its_reasons() -> None:
    """The fields of a record are those that are defined, in their order."""
    counted = Counters(refused=ByReason(access=2, rate=0, source=1))
    fields = counters.fields(counted)
    assert [*fields] == [*counters.recorded()]
    assert (fields["refused"], fields["refused_reasons"]) == (3, "access=2 source=1")
    assert fields["closed_reasons"] == ""


def test_each_metric_has_a_name_that_prometheus_likes() -> None:
    """Counters end in `_total`, no other does; each name is used once."""
    names = [each.metric for each in ALL]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"netsrvd(_[a-z]+)+", name) for name in names)
    assert {each.metric.endswith("_total") == (each.kind == "counter") for each in ALL} == {True}


@pytest.mark.parametrize(
    ("event", "reasons"),
    [
        (Closed, {*counters.CLOSED_REASONS, "lost"}),
        (Refused, {*counters.REFUSED_REASONS, *counters.UNANSWERED_REASONS}),
        (FlowEnded, {*counters.ENDED_REASONS}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_each_reason_is_counted_from_the_start(event: type, reasons: set[str]) -> None:
    """The reasons are those that the message catalog explains: `lost` is of no listener."""
    explained = set(re.findall(r"`([a-z-]+)`", event.__doc__ or ""))
    assert reasons <= explained
    settings = {"allow", "deny", "proxies", "any", "others", "reason", "rule"}
    assert explained - reasons <= settings


def test_the_documentation_has_each_figure() -> None:
    """docs/monitoring.md has a line for each figure, with what its definition says."""
    text = (Path(__file__).parents[2] / "docs/monitoring.md").read_text()
    lines = [f"| `{each.name}` | `{each.metric}` | {each.unit} | {each.help} |" for each in ALL]
    missing = "\n".join(line for line in lines if line not in text)
    assert not missing, f"docs/monitoring.md lacks:\n{missing}"
