"""The figures in which truth and measurement are compared."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Figures of a sample, in the sample's unit."""

    count: int
    least: float
    median: float
    p95: float
    most: float
    deviation: float


def spread_of(sample: Sequence[float]) -> Spread:
    """Return the figures of a sample of at least one value; percentiles are the nearest rank."""
    ordered = sorted(sample)
    rank = -(-95 * len(ordered) // 100) - 1
    return Spread(
        len(ordered),
        ordered[0],
        statistics.median(ordered),
        ordered[rank],
        ordered[-1],
        statistics.pstdev(ordered),
    )
