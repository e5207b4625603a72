"""Samples of sums of the run, from which the growth in the last minutes is known."""

from collections import deque
from typing import NamedTuple

SAMPLE_SECONDS = 5.0
"""The least time between two samples; they are taken at ticks of the main thread."""

SPANS = (60.0, 300.0)
"""Over these last seconds growth is shown."""


class Totals(NamedTuple):
    """Sums of a run whose growth is shown."""

    accepted: int
    refused: int
    received_bytes: int
    sent_bytes: int
    datagrams_received: int
    datagrams_sent: int
    log_records_lost: int


class Rates(NamedTuple):
    """The growth of `Totals` in the last `seconds`."""

    seconds: float
    grown: Totals

    def a_second(self) -> dict[str, float]:
        """Return the growth a second of each sum. It is not negative: samples are a little old."""
        each = self.grown._asdict().items()
        return {name: max(0.0, number / self.seconds) for name, number in each}


class Samples:
    """Samples of the last minutes. The main thread adds; any thread may read."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Totals]] = deque(
            maxlen=1 + int(SPANS[-1] / SAMPLE_SECONDS)
        )

    def is_due(self, now: float) -> bool:
        """Return whether another sample is to be taken."""
        return not self._samples or now - self._samples[-1][0] >= SAMPLE_SECONDS

    def add(self, now: float, totals: Totals) -> None:
        """Add a sample."""
        self._samples.append((now, totals))

    def rates(self, now: float, totals: Totals) -> list[Rates]:
        """Return the growth since the samples that are nearest to `SPANS` ago, and not older.

        There are fewer at the beginning of a run.
        """
        found: dict[float, Rates] = {}
        samples = list(self._samples)
        for span in SPANS:
            since = next(((at, old) for at, old in samples if 1.0 <= now - at <= span), None)
            if since:
                grown = (new - old for new, old in zip(totals, since[1], strict=True))
                found[since[0]] = Rates(now - since[0], Totals(*grown))
        return list(found.values())
