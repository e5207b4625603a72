"""The targets, each computed from the figures of one run.

They are ratios of the server's CPU time per message within a round, if nothing else is said.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.bench.figures import Figures, Spread
from tests.bench.growth import LOGGED
from tests.bench.peers import OWN, REFERENCE, XINETD_LOGS
from tests.bench.scenarios import START

TCP = ("tcp 64 x 1 KiB", "tcp 1000 x 64 B")
UDP = tuple(
    f"udp {kind}{ports}"
    for ports in ("", " from 64 ports")
    for kind in ("64 x 64 B", "512 x 64 B", "64 x 1400 B")
)
LATENCY = ("tcp 1 x 64 B", "udp 1 x 64 B")
FLOODS = {"flood": "udp 64 x 64 B", "flood from 64 ports": "udp 64 x 64 B from 64 ports"}


class Target(NamedTuple):
    """One line of the table: what netsrvd needs, of what, at most (or at least) how much."""

    work: str
    reference: str
    limit: float
    figure: Spread | None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Return whether the median, as it is shown, is within the limit."""
        if self.figure is None:
            return "not measured"
        median = round(self.figure.median, 2)
        over, within = median >= self.limit, median <= self.limit
        return "met" if (over if self.at_least else within) else "**not met**"


def targets(figures: Figures) -> list[Target]:
    """Return all targets with the figures of a run."""
    return [*_cost(figures), *_others(figures), *_memory(figures), _logged(figures)]


def _cost(figures: Figures) -> Iterator[Target]:
    limits = [
        *((scenario, REFERENCE, 1.25) for scenario in TCP),
        *((scenario, "uvloop", 1.0) for scenario in TCP),
        ("tcp 16 x 64 KiB", REFERENCE, 1.1),
        *((scenario, REFERENCE, 1.25) for scenario in UDP),
        *((scenario, "uvloop", 0.7) for scenario in UDP),
    ]
    for scenario, peer, limit in limits:
        yield Target(scenario, peer, limit, figures.ratio("server_us", scenario, OWN, peer))


def _others(figures: Figures) -> Iterator[Target]:
    for scenario in LATENCY:
        ratio = figures.ratio("p50_us", scenario, OWN, REFERENCE)
        yield Target(f"{scenario}, p50", REFERENCE, 1.2, ratio)
    for scenario in ("tcp + udp", "tcp + udp, free"):
        ratio = figures.ratio("rate", scenario, OWN, "one loop")
        yield Target(f"{scenario}: rates, summed", "one loop", 1.0, ratio, at_least=True)
    ratio = figures.ratio("server_us", "tcp crowd", OWN, OWN, TCP[0])
    yield Target("a message among 8000 idle connections", "one among 64", 1.2, ratio)
    for flood, answered in FLOODS.items():
        ratio = figures.ratio("server_us", flood, OWN, OWN, answered)
        yield Target(f"{flood}: a refused datagram", "an answered one", 0.8, ratio)


def _memory(figures: Figures) -> Iterator[Target]:
    crowd = figures.spread("tcp crowd", OWN, "crowd_kib")
    yield Target("an idle connection among 8000, KiB", "", 1.5, crowd)
    yield Target("resident after the start, MiB", "", 25, figures.spread(START, OWN, "rss_mib"))


def _logged(figures: Figures) -> Target:
    """The rate counts only if no record was lost."""
    ratio = figures.ratio("rate", LOGGED.name, OWN, XINETD_LOGS.name)
    lost = figures.spread(LOGGED.name, OWN, "records_lost")
    work = "churn, each connection logged twice to a real journal: rate"
    counts = ratio if lost and lost.high == 0 else None
    return Target(work, "xinetd, the same", 8, counts, at_least=True)
