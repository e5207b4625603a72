"""netsrvd.access.sources"""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.access import sources
from netsrvd.access.sources import Bucket, Limits, Source, Sources

GAPS = st.lists(st.floats(0, 3.0), max_size=200)


def taken(bucket: Bucket, tokens: float, now: float) -> bool:
    """Take tokens out of a bucket that holds them."""
    bucket.refill(now)
    if bucket.tokens < tokens:
        return False
    bucket.tokens -= tokens
    return True


def test_a_bucket_holds_its_burst_and_no_more() -> None:
    """At first, and after any pause, as many tokens as the burst can be taken at once."""
    bucket = Bucket(10, 5)
    for now in (1.0, 1000.0):
        for _ in range(5):
            assert taken(bucket, 1, now)
        assert not taken(bucket, 1, now)


def test_tokens_flow_in_at_the_rate() -> None:
    """A tenth of a second brings one of ten tokens a second, and not before."""
    bucket = Bucket(10, 5)
    assert taken(bucket, 5, 100.0)
    assert not taken(bucket, 1, 100.0625)
    assert taken(bucket, 1, 100.125)


def test_a_rate_of_nothing_is_no_limit() -> None:
    """Rate 0 lets through whatever comes."""
    bucket = Bucket(0, 5)
    for _ in range(1000):
        assert taken(bucket, 10**9, 1.0)


@given(st.integers(1, 50), st.integers(1, 50), GAPS)
def test_no_span_of_time_has_more_than_burst_and_rate(
    rate: int, burst: int, gaps: list[float]
) -> None:
    """However the attempts lie in time, between any two of them at most the burst and what has
    flowed in are taken; and nothing is refused that a bucket would have had.
    """
    bucket, now, times = Bucket(rate, burst), 100.0, []
    for gap in gaps:
        now += gap
        if taken(bucket, 1, now):
            times.append(now)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - start) * rate + 1e-6
    assert len(times) >= min(len(gaps), burst)


LIMITS = Limits(10, 3, 1000, 2000)


@pytest.mark.parametrize(
    ("sizes", "excess"),
    [
        ([100, 100, 100, 100], "rate"),
        ([1500, 600], "bytes"),
        ([1000, 1000, 1000, 0], "bytes"),
        ([0, 0, 0, 0], "rate"),
    ],
)
def test_what_a_source_exceeds_first_is_the_reason(sizes: list[int], excess: str) -> None:
    """All is well until the count or the bytes are too many; the first that is says why."""
    source = Source("a", Limits(10, 3, 1000, 2000))
    found = [source.exceeds(size, 1.0) for size in sizes]
    assert next(filter(None, found)) == excess


def test_what_is_refused_takes_nothing_away() -> None:
    """A source that goes on exceeding its rate still gets what the rate allows."""
    source, served = Source("a", Limits(10, 1)), 0
    for millisecond in range(1000):
        served += source.exceeds(0, 5.0 + millisecond * 0.001) == ""
    assert served == pytest.approx(10, abs=1)


def test_the_budget_is_of_all_sources_together() -> None:
    """What one source was answered is no longer there for another one, until it flows in again."""
    limits = Limits(1000, 1000, 10**6, 10**6, Bucket(1000, 3000))
    one, two = Source("one", limits), Source("two", limits)
    assert one.exceeds(2000, 1.0) == ""
    assert two.exceeds(2000, 1.0) == "budget"
    assert two.exceeds(1000, 1.0) == ""
    assert two.exceeds(2000, 3.0) == ""


def test_a_source_without_limits_may_do_anything() -> None:
    """Nothing is exceeded, nothing is taken from the budget."""
    source = Source("a", None)
    assert not any(source.exceeds(65_507, 1.0) for _ in range(1000))
    assert not source.limited


def test_those_present_are_kept_however_many_come_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who have left the most recent are remembered, those present all of them."""
    monkeypatch.setattr(sources, "IDLE_SOURCES_KEPT", 3)
    table = Sources()
    inside = table.find("inside", LIMITS)
    table.acquire(inside)
    for number in range(10):
        table.find(str(number), LIMITS)
    assert (len(table._active), len(table._idle)) == (1, 3)
    assert table.find("inside", LIMITS) is inside
    table.release("inside")
    assert table.find("inside", LIMITS) is inside
    assert (len(table._active), len(table._idle)) == (0, 3)


def test_leaving_takes_as_often_as_arriving() -> None:
    """A source with two connections is present until both have left."""
    table = Sources()
    source = table.find("a", LIMITS)
    for _ in range(2):
        table.acquire(source)
    table.release("a")
    assert source.live == 1
    assert "a" in table._active
    table.release("a")
    assert (source.live, "a" in table._active) == (0, False)


def test_the_least_recent_leaves_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who shows up again is the most recent."""
    monkeypatch.setattr(sources, "IDLE_SOURCES_KEPT", 2)
    table = Sources()
    first = table.find("first", LIMITS)
    table.find("second", LIMITS)
    assert table.find("first", LIMITS) is first
    table.find("third", LIMITS)
    assert table.find("first", LIMITS) is first
    assert [*table._idle] == ["third", "first"]


def test_new_limits_hold_for_all() -> None:
    """ConnectionList or not, all begin anew under new limits; those without any stay without."""
    table = Sources()
    for name, limits in (("in", LIMITS), ("out", LIMITS), ("free", None)):
        source = table.find(name, limits)
        if name != "out":
            table.acquire(source)
    stricter = Limits(1, 1)
    table.renew(stricter)
    for name in ("in", "out"):
        source = table.find(name, stricter)
        assert [source.exceeds(0, 1.0), source.exceeds(0, 1.0)] == ["", "rate"]
    assert not table.find("free", None).limited
    assert table.find("free", stricter).exceeds(0, inf) == ""
    assert table.find("free", stricter).limited


def test_a_long_answer_is_owed() -> None:
    """What was sent beyond what was asked is taken from all who come, until it has flowed in."""
    limits = Limits(0, 0, budget=Bucket(100, 1000))
    one, other = Source("192.0.2.1", limits), Source("192.0.2.2", limits)
    assert one.exceeds(0, 1.0) == ""
    one.debit(-500)
    one.debit(1200)
    assert other.exceeds(1, 2.0) == "budget"
    assert other.exceeds(1, 3.5) == ""
    free = Source("127.0.0.1", None)
    free.debit(1 << 40)
    assert free.exceeds(1 << 40, 4.0) == ""
