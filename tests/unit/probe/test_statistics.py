"""netsrvd.probe.statistics: against hand-worked samples, and against Python's own statistics."""

import statistics as reference
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.probe import statistics
from netsrvd.probe.statistics import Directions, Offset
from tests.support.effort import in_proportion

SAMPLES = st.lists(st.integers(0, 10**12), min_size=2, max_size=200)


@given(SAMPLES)
def test_summary_is_that_of_python(values: list[int]) -> None:
    """Mean, median and deviation are those of Python's module, percentiles its inclusive ones."""
    found = statistics.summary(values)
    assert found
    assert (found.samples, found.least, found.most) == (len(values), min(values), max(values))
    assert found.mean == pytest.approx(reference.fmean(values))
    assert found.median == pytest.approx(reference.median(values))
    assert found.deviation == pytest.approx(reference.stdev(values), abs=1e-3)
    hundredths = reference.quantiles(values, n=100, method="inclusive")
    assert found.p95 == pytest.approx(hundredths[94])
    assert found.p99 == pytest.approx(hundredths[98])


def test_summary_of_little() -> None:
    """One value is its own distribution, and none has no distribution."""
    assert statistics.summary([]) is None
    one = statistics.summary([7])
    assert one == (1, 7, 7, 7, 7, 7, 7, 0)


def test_delay_variation_by_hand() -> None:
    """PDV is the distance from the least delay, IPDV that of neighbours, none beside a loss."""
    assert statistics.packet_delay_variation([5, 3, 9]) == [2, 0, 6]
    assert statistics.inter_packet_delay_variation([5, 3, None, 9, 10]) == [-2, 1]
    assert statistics.packet_delay_variation([]) == []


@pytest.mark.parametrize(
    ("arrivals", "reordered", "extent"),
    [
        ([], 0, 0),
        ([1, 2, 3], 0, 0),
        ([1, 3, 2], 1, 1),
        ([4, 1, 2, 3], 3, 3),
        # the example of RFC 4737, 4.2.3: 7 and 8 overtake 4, 5 and 6
        ([1, 2, 3, 7, 8, 4, 5, 6], 3, 4),
        ([2, 4, 1, 3], 2, 2),
    ],
)
def test_reordering_by_hand(arrivals: list[int], reordered: int, extent: int) -> None:
    """Reordered packets and their largest extent are those of RFC 4737."""
    found = statistics.reordering(arrivals)
    assert (found.reordered, found.extent) == (reordered, extent)
    assert found.ratio == (reordered / len(arrivals) if arrivals else 0)


def by_definition(arrivals: Sequence[int]) -> tuple[int, int]:
    """Return reordered packets and the largest extent as RFC 4737 defines them."""
    expected = reordered = extent = 0
    for place, number in enumerate(arrivals):
        if number >= expected:
            expected = number + 1
            continue
        reordered += 1
        first = next(at for at in range(place) if arrivals[at] > number)
        extent = max(extent, place - first)
    return reordered, extent


@given(st.lists(st.integers(0, 60), unique=True))
def test_reordering_is_the_definition(arrivals: list[int]) -> None:
    """For any order and any losses it is what the definition gives."""
    found = statistics.reordering(arrivals)
    assert (found.reordered, found.extent) == by_definition(arrivals)
    assert bool(found.reordered) == any(after < before for before, after in pairwise(arrivals))


@given(
    st.lists(st.sampled_from(["out", "back", "none"]), min_size=1, max_size=80),
    st.integers(0, 5),
    st.integers(0, 1000),
)
def test_loss_each_way_is_what_was_lost(fates: list[str], first: int, start: int) -> None:
    """A reflector that counts tells the losses each way, but those behind the last answer."""
    counts, count = [], start
    for number, fate in enumerate(fates, first):
        if fate != "out":
            if fate == "none":
                counts.append((number, count))
            count += 1
    found = statistics.directions(
        [(number, count - start) for number, count in counts], first, len(fates), from_zero=True
    )
    if found is None:
        assert not counts or all(number == count - start for number, count in counts)
        return
    end = max(number for number, _ in counts) - first + 1
    assert found == Directions(
        fates[:end].count("out"), fates[:end].count("back"), len(fates) - end
    )


def test_loss_each_way_from_any_count() -> None:
    """Without a known beginning, the first answer is the beginning: those before are undecided."""
    counts = [(2, 70), (3, 71), (6, 73)]
    assert statistics.directions(counts, 0, 9, from_zero=False) == Directions(1, 1, 4)


def test_loss_each_way_unknown() -> None:
    """Copied numbers, and counts that another client has pushed, tell nothing."""
    assert statistics.directions([(1, 1), (3, 3)], 1, 4, from_zero=True) is None
    assert statistics.directions([(1, 0), (3, 9)], 1, 4, from_zero=True) is None
    assert statistics.directions([], 1, 4, from_zero=True) is None


@given(
    st.integers(-(10**12), 10**12),
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6))),
)
def test_the_offset_is_within_its_bounds(ahead: int, delays: list[tuple[int, int, int]]) -> None:
    """Whatever the delays are each way, the bounds enclose the difference of the clocks."""
    trips = [
        (at, at + out + ahead, at + out + inside + ahead, at + out + inside + back)
        for at, (out, back, inside) in enumerate(delays)
    ]
    found = statistics.clock_offset(trips)
    if not delays:
        assert found is None
        return
    assert found
    assert found.least_ns <= ahead <= found.most_ns
    assert found.is_consistent
    assert found.agree == (found.least_ns <= 0 <= found.most_ns)


def test_a_clock_that_was_stepped_is_inconsistent() -> None:
    """One offset cannot fit probes before and after a step."""
    before, after = (0, 10, 10, 20), (100, 1110, 1110, 120)
    found = statistics.clock_offset([before, after])
    assert found == Offset(990, 10)
    assert not found.is_consistent


def test_the_bad_one_of_sixteen_stands_out() -> None:
    """A stream that loses more or is slower than the others is named, the others are not."""
    good = [(100, 1, 1e6 + index * 1e4) for index in range(15)]
    assert statistics.outliers([*good, (100, 20, 1e6)]) == [*[""] * 15, "loses more"]
    assert statistics.outliers([*good, (100, 0, 2e6)]) == [*[""] * 15, "slower"]
    assert statistics.outliers([*good, (100, 90, 5e6)])[-1] == "loses more, slower"
    assert statistics.outliers([*good, (100, 100, None)])[-1] == "loses more"


@given(st.integers(0, 2**32))
def test_equal_streams_do_not_stand_out(seed: int) -> None:
    """Sixteen streams that lose 2 % at random and have the same delays have no bad one."""
    random = Random(seed)
    streams = [
        (100, sum(random.random() < 0.02 for _ in range(100)), random.gauss(1e6, 2e4))
        for _ in range(16)
    ]
    assert [*filter(None, statistics.outliers(streams))] in ([], ["loses more"])


def test_few_streams_are_not_compared() -> None:
    """Of four there is no usual one."""
    assert statistics.outliers([(9, 0, 1.0)] * 3 + [(9, 9, None)]) == [""] * 4


def bucket(count: int, interval_ns: int, rate: float, burst: float) -> list[tuple[int, bool]]:
    """Return what a limit by a token bucket answers of probes at an interval."""
    tokens, found = burst, []
    for index in range(count):
        tokens = min(burst, tokens + rate * interval_ns / 1e9)
        answered = tokens >= 1
        tokens -= answered
        found.append((index * interval_ns, answered))
    return found


@given(st.integers(20, 80), st.integers(3, 50))
def test_a_limit_of_rate_is_seen(rate: int, burst: int) -> None:
    """A token bucket is recognised, with its rate."""
    found = statistics.rate_limit(bucket(1000, 10_000_000, rate, burst))
    assert found
    assert found.per_second == pytest.approx(rate, rel=0.1)
    assert found.burst >= burst


def late(random: Random, count: int) -> Iterator[float]:
    """Yield times of sending, 10 ms apart but for pauses, after which what is due is sent."""
    at = paused = 0.0
    for index in range(count):
        if random.random() < 0.02:
            paused = at + random.uniform(0.005, 0.05)
        at = max(index * 0.01, paused, at + 0.0001)
        yield at


def poisson(random: Random, count: int) -> Iterator[float]:
    """Yield times of sending whose intervals are exponential, of 10 ms in the mean."""
    return accumulate(random.expovariate(100) for _ in range(count))


@pytest.mark.parametrize("times", [late, poisson])
@pytest.mark.parametrize("rate", [20, 50])
def test_a_limit_of_rate_is_seen_by_a_late_prober(
    times: Callable[[Random, int], Iterator[float]], rate: int
) -> None:
    """Neither intervals at random nor pauses hide a limit whose burst they do not exceed."""
    for seed in range(10):
        last, tokens, probes = 0.0, 10.0, []
        for at in times(Random(seed), 500):
            tokens = min(10.0, tokens + rate * (at - last))
            last = at
            answered = tokens >= 1
            tokens -= answered
            probes.append((int(at * 1e9), answered))
        found = statistics.rate_limit(probes)
        assert found
        assert found.per_second == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("share", [0.06, 0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("count", [50, 100, 200, 1000])
def test_losses_at_random_are_no_limit(count: int, share: float) -> None:
    """Of two hundred runs with losses at random none is taken for a limit."""
    for seed in range(200):
        random = Random(seed)
        probes = [(index * 10_000_000, random.random() >= share) for index in range(count)]
        assert statistics.rate_limit(probes) is None


def test_no_loss_is_no_limit() -> None:
    """Without losses, or without answers, there is nothing to recognise."""
    assert statistics.rate_limit([(index, True) for index in range(1000)]) is None
    assert statistics.rate_limit([(index, False) for index in range(1000)]) is None
    assert statistics.rate_limit([]) is None


def test_many_streams_are_compared_at_once() -> None:
    """What comparing streams costs grows with their number, not with its square."""

    def compare(count: int) -> None:
        statistics.outliers([(100, index % 3, 1e6 + index % 7) for index in range(count)])

    assert in_proportion(compare)
