"""What the samples of several rounds say: medians, spreads, and ratios within each round."""

from collections import Counter
from statistics import median
from typing import Any, NamedTuple

Sample = dict[str, Any]
"""The figures of one run under one scenario, or {"failed": why}."""

Samples = dict[str, dict[str, dict[str, Sample]]]
"""By scenario, by peer, by the number of the round (as text, for that is what JSON has)."""

FULL = 0.9
"""The share of its CPU from which on a program is called busy."""

DISTURBED = 0.2
"""CPUs that other programs may take before a slow run is put down to them."""


class Spread(NamedTuple):
    """The middle one of some figures, and the two ends."""

    median: float
    low: float
    high: float


def spread(values: list[float]) -> Spread | None:
    """Return the spread of some figures, if there are any."""
    return Spread(median(values), min(values), max(values)) if values else None


def bound(sample: Sample) -> str:
    """Return what kept the rate from being higher.

    "waiting" means that the server was throttled by itself: neither it nor the load had much to do.
    """
    if "failed" in sample:
        return "failed"
    if sample["server_busy"] >= FULL:
        return "server"
    if sample["load_busy"] + sample["log_busy"] >= FULL:
        return "load"
    return "others" if sample["others_busy"] > DISTURBED else "waiting"


class Figures:
    """All samples of a run, and the questions that are asked of them."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def rounds(self, scenario: str, peer: str) -> dict[str, Sample]:
        """Return the samples that have figures."""
        found = self.samples.get(scenario, {}).get(peer, {})
        return {number: sample for number, sample in found.items() if "failed" not in sample}

    def spread(self, scenario: str, peer: str, key: str) -> Spread | None:
        """Return the spread of one figure over the rounds."""
        rounds = self.rounds(scenario, peer).values()
        return spread([sample[key] for sample in rounds if key in sample])

    def ratio(
        self, key: str, scenario: str, peer: str, of_peer: str, of_scenario: str = ""
    ) -> Spread | None:
        """Return the spread of the ratios to another peer or scenario, each of the same round.

        A machine that is slower for a while is so for both.
        """
        mine = self.rounds(scenario, peer)
        theirs = self.rounds(of_scenario or scenario, of_peer)
        both = [(mine[number], theirs[number]) for number in mine if number in theirs]
        return spread([one[key] / other[key] for one, other in both if other[key]])

    def bound(self, scenario: str, peer: str) -> str:
        """Return what kept the rate from being higher in most rounds."""
        samples = self.samples[scenario][peer].values()
        return Counter(map(bound, samples)).most_common(1)[0][0]

    def troubles(self) -> list[str]:
        """Return a line for each peer that failed or answered wrongly under a scenario."""
        found = []
        for scenario, peers in self.samples.items():
            for peer, rounds in peers.items():
                told = [each.get("failed") or each.get("trouble") for each in rounds.values()]
                if any(told):
                    first = next(filter(None, told))
                    times = sum(map(bool, told))
                    found.append(f"{peer}, {scenario}: {first} ({times} of {len(told)} rounds)")
        return found

    def others_busy(self) -> Spread | None:
        """Return how many CPUs were busy with what is no part of the bench."""
        return spread([
            sample["others_busy"]
            for peers in self.samples.values()
            for rounds in peers.values()
            for sample in rounds.values()
            if "others_busy" in sample
        ])  # fmt: skip
