"""netsrvd.samples"""

from netsrvd.samples import SAMPLE_SECONDS, SPANS, Rates, Samples, Totals


def totals(number: int) -> Totals:
    """Return sums that are all the same."""
    return Totals(*[number] * len(Totals._fields))


def sampled(seconds: int) -> Samples:
    """Return the samples of a run of so long, at two connections a second."""
    samples = Samples()
    for now in range(seconds + 1):
        if samples.is_due(now):
            samples.add(now, totals(2 * now))
    return samples


def test_samples_are_taken_now_and_then() -> None:
    """Ticks come more often: those between are not kept, nor those of long ago."""
    samples = sampled(12)
    assert samples.rates(12, totals(24)) == [Rates(12, totals(24))]
    assert not samples.is_due(12)
    assert samples.is_due(10 + SAMPLE_SECONDS)


def test_there_are_rates_of_a_minute_and_of_five() -> None:
    """Over the time that lies between the oldest sample within it and now, which is stated."""
    minute, five = sampled(1003).rates(1003, totals(2006))
    assert SPANS[0] - SAMPLE_SECONDS < minute.seconds <= SPANS[0]
    assert SPANS[1] - SAMPLE_SECONDS < five.seconds <= SPANS[1]
    assert {*minute.a_second().values()} == {*five.a_second().values()} == {2.0}


def test_in_the_first_second_there_are_none() -> None:
    """So little time says nothing."""
    assert sampled(0).rates(0.5, totals(1)) == []
    assert Samples().rates(100, totals(1)) == []


def test_no_rate_is_below_nothing() -> None:
    """A sample that another thread has taken may be a little newer than the figures."""
    assert {*Rates(2.0, totals(-1)).a_second().values()} == {0.0}
