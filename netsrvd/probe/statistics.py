"""Statistics of probes, as pure functions. Times are in nanoseconds."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

MANY = 5
"""Streams below this number are not compared with each other: there is no usual one."""

LEAST_LOSS = 0.05
"""How much more a stream must lose than the others to stand out."""

LOSS_DEVIATIONS = 4.0
DELAY_DEVIATIONS = 6.0
"""How far a stream must be from the others, in standard deviations."""

LEAST_DELAY_SHARE = 0.05
LEAST_DELAY_NS = 100_000
"""How much slower a stream must be than the median of all to stand out."""

LIMIT_LEAST_DEVIATION = 4.0
"""There are too few probes to recognise a limit by if the number of answers, were losses at random,
had a smaller standard deviation.
"""

LIMIT_SHARE = 0.3
"""How far a bucket of tokens may stray, by that deviation, to be taken for a limit."""


class Summary(NamedTuple):
    """The distribution of a sample."""

    samples: int
    least: float
    mean: float
    median: float
    p95: float
    p99: float
    most: float
    deviation: float
    """The standard deviation of the sample (n - 1); 0 for one value."""


class Reordering(NamedTuple):
    """Reordered packets by RFC 4737, 4.1, of those that arrived, without duplicates."""

    reordered: int
    ratio: float
    """Reordered by received packets; 0 for none."""
    extent: int
    """The largest extent (4.2): how many packets later than in order one came, at most."""


class Directions(NamedTuple):
    """Probes that were lost on the way out and back, as the reflector's count tells."""

    out: int
    back: int
    undecided: int
    """Lost probes behind the last answer: no count came after them."""


class Offset(NamedTuple):
    """The bounds of what the reflector's clock is ahead of the own one."""

    least_ns: int
    most_ns: int

    @property
    def agree(self) -> bool:
        """Whether the clocks may be the same: no delay is below zero."""
        return self.least_ns <= 0 <= self.most_ns

    @property
    def is_consistent(self) -> bool:
        """Whether one offset fits all probes; otherwise one of the clocks has changed."""
        return self.least_ns <= self.most_ns


class Limit(NamedTuple):
    """A limit of rate that a reflector seems to have."""

    burst: int
    """Probes that were all answered in the beginning."""
    per_second: float
    """Answers a second after that."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile of an ascending sample: between neighbours by linear interpolation.

    It is method 7 of Hyndman and Fan, the default of numpy.percentile. `share` is from 0 to 1.
    """
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def summary(values: Iterable[float]) -> Summary | None:
    """Return the distribution of a sample; None for an empty one."""
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        return None
    mean = sum(ordered) / count
    squares = sum((each - mean) ** 2 for each in ordered)
    deviation = sqrt(squares / (count - 1)) if count > 1 else 0.0
    middle, p95, p99 = (percentile(ordered, share) for share in (0.5, 0.95, 0.99))
    return Summary(count, ordered[0], mean, middle, p95, p99, ordered[-1], deviation)


def packet_delay_variation(delays: Sequence[float]) -> list[float]:
    """Return what each delay is above the least one (PDV, RFC 5481, 4.2)."""
    least = min(delays, default=0)
    return [each - least for each in delays]


def inter_packet_delay_variation(delays: Sequence[float | None]) -> list[float]:
    """Return the differences between the delays of neighbours (IPDV, RFC 5481, 4.1).

    `delays` are in the order of sending, None for a packet that was lost: a pair with it has no
    difference (RFC 3393, 2.5).
    """
    return [
        after - before
        for before, after in pairwise(delays)
        if before is not None and after is not None
    ]


def reordering(arrivals: Sequence[int]) -> Reordering:
    """Return what is reordered of sequence numbers in the order of their first arrival.

    A packet is reordered if it has a lower number than one that arrived before it. Its extent is
    how many packets have come since the earliest of those with a higher number (RFC 4737, 4.2.2).
    """
    reordered = extent = 0
    # The numbers that were the highest when they came, with their places. They ascend, so the
    # earliest higher one is found by bisection.
    highest: list[int] = []
    places: list[int] = []
    for place, number in enumerate(arrivals):
        if not highest or number > highest[-1]:
            highest.append(number)
            places.append(place)
            continue
        low, high = 0, len(highest) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if highest[middle] > number else (middle + 1, high)
        reordered += 1
        extent = max(extent, place - places[low])
    ratio = reordered / len(arrivals) if arrivals else 0.0
    return Reordering(reordered, ratio, extent)


def directions(
    counts: Sequence[tuple[int, int]], first: int, sent: int, *, from_zero: bool
) -> Directions | None:
    """Return how many probes were lost each way; None if the reflector's count does not tell.

    `counts` are the answers that came, without duplicates, as the sequence number of the probe and
    the reflector's count, of `sent` probes numbered from `first`. The count goes up by one for each
    answer, `from_zero` for the first; without that the first answer is taken as the beginning. A
    reflector that copies the number of the probe does not count.
    """
    if not counts or all(number == count for number, count in counts):
        return None
    numbers, totals = zip(*counts, strict=True)
    first_number, first_count = (first, 0) if from_zero else (min(numbers), min(totals))
    probes = max(numbers) - first_number + 1
    answered = max(totals) - first_count + 1
    if not len(counts) <= answered <= probes:
        return None
    undecided = first + sent - 1 - max(numbers) + first_number - first
    return Directions(probes - answered, answered - len(counts), undecided)


def clock_offset(trips: Iterable[tuple[int, int, int, int]]) -> Offset | None:
    """Return the bounds of the reflector's clock minus the own one; None without probes.

    Each trip is (sent, received there, sent there, received), the inner two of the reflector's
    clock. No delay is negative, so the offset lies between `sent there - received` and
    `received there - sent` of each.
    """
    bounds = [(left - back, came - out) for out, came, left, back in trips]
    if not bounds:
        return None
    return Offset(max(low for low, _ in bounds), min(high for _, high in bounds))


def outliers(streams: Sequence[tuple[int, int, float | None]]) -> list[str]:
    """Return for each stream how it differs from the others, an empty text if it does not.

    A stream is (settled probes, lost ones, median of its round trips or None).
    """
    losses = _lossy([(sent, lost) for sent, lost, _ in streams])
    delays = _slow([median for _, _, median in streams])
    return [", ".join(filter(None, both)) for both in zip(losses, delays, strict=True)]


def _lossy(streams: Sequence[tuple[int, int]]) -> list[str]:
    """Compare each loss with the usual one: a binomial test, by the normal distribution."""
    shares = sorted(lost / sent for sent, lost in streams if sent)
    if len(shares) < MANY:
        return [""] * len(streams)
    usual = percentile(shares, 0.5)

    def differs(sent: int, lost: int) -> bool:
        # as if the others had lost one probe more: a usual loss of 0 would have no deviation
        guarded = (usual * sent + 1) / (sent + 2)
        more = lost / sent - usual
        return more >= max(LEAST_LOSS, LOSS_DEVIATIONS * sqrt(guarded * (1 - guarded) / sent))

    return ["loses more" if sent and differs(sent, lost) else "" for sent, lost in streams]


def _slow(medians: Sequence[float | None]) -> list[str]:
    """Compare each median with that of all, by the median of their distances from it."""
    known = sorted(each for each in medians if each is not None)
    if len(known) < MANY:
        return [""] * len(medians)
    usual = percentile(known, 0.5)
    spread = 1.4826 * percentile(sorted(abs(each - usual) for each in known), 0.5)
    least = usual + max(DELAY_DEVIATIONS * spread, LEAST_DELAY_SHARE * usual, LEAST_DELAY_NS)
    return ["slower" if each is not None and each > least else "" for each in medians]


def rate_limit(probes: Sequence[tuple[int, bool]]) -> Limit | None:
    """Return the limit of rate that a reflector seems to have; None if it seems to have none.

    `probes` are (time of sending in nanoseconds, whether it was answered) in the order of sending.
    A limit is a token bucket: tokens come at a rate, each answer takes one, and there is no answer
    without one. The bucket is followed from the first loss on, when it was empty. If there is a
    bucket, it never has much less than a token at an answer, nor much more at a loss, however
    irregularly probes are sent. After losses at random it strays by the root of the number of
    probes.
    """
    burst = next((index for index, each in enumerate(probes) if not each[1]), len(probes))
    rest = probes[burst:]
    answers = sum(answered for _, answered in rest)
    losses = len(rest) - answers
    if not answers or losses < LEAST_LOSS * len(rest) or rest[-1][0] <= rest[0][0]:
        return None
    deviation = sqrt(answers * losses / len(rest))
    if deviation < LIMIT_LEAST_DEVIATION:
        return None
    rate = answers / (rest[-1][0] - rest[0][0])
    tokens, last = 0.5, rest[0][0]
    least = most = 1.0
    for at, answered in rest:
        tokens = min(max(burst, 1), tokens + rate * (at - last))
        last = at
        if answered:
            least = min(least, tokens)
            tokens -= 1
        else:
            most = max(most, tokens)
    return Limit(burst, rate * 1e9) if most - least <= LIMIT_SHARE * deviation else None
