"""The targets, each computed from the figures of one run.

They are ratios of the server's CPU time for a message within a round, unless the work says
otherwise.
"""

from collections.abc import Iterator
from typing import NamedTuple

from tests.bench.cold import COLD, SMALLEST
from tests.bench.figures import Figures, Spread
from tests.bench.growth import LOGGED
from tests.bench.peers import GO, NO_RECORDS, ONE_LOOP, OWN, REFERENCE, UVLOOP, XINETD_LOGS
from tests.bench.scenarios import START

TCP, TCP_MANY = "tcp 64 x 1 KiB", "tcp 1000 x 64 B"
MIXED, CONNECTING = "tcp + churn", "1 tcp + 256 connecting"
UDP_PORTS = "udp 64 x 64 B from 64 ports"
UDP = (
    *("udp 64 x 64 B", "udp 512 x 64 B", "udp 64 x 1400 B"),
    *("udp 512 x 64 B from 64 ports", "udp 64 x 1400 B from 64 ports"),
)
FLOODS = {"flood": "udp 64 x 64 B", "flood from 64 ports": UDP_PORTS}
LOGGED_TWICE = "churn, each connection logged twice to a real journal"


class Target(NamedTuple):
    """One line of the table: what netsrvd needs, of what, at most (or at least) how much."""

    work: str
    reference: str
    limit: float
    figure: Spread | None
    at_least: bool = False
    aim: float = 0.0
    """A better figure than the limit, if there is one that is aimed at."""

    @property
    def verdict(self) -> str:
        """Return whether the median, as it is shown, is within the limit, and within the aim."""
        if self.figure is None:
            return "not measured"
        if not self._reaches(self.limit):
            return "**not met**"
        return "met, and the aim" if self.aim and self._reaches(self.aim) else "met"

    def _reaches(self, value: float) -> bool:
        median = round(self.figure.median, 2) if self.figure else 0.0
        return median >= value if self.at_least else median <= value


def targets(figures: Figures) -> list[Target]:
    """Return the targets of the design with event loops, with the figures of a run."""
    return [*_connections(figures), *_messages(figures), *_memory(figures)]


def earlier_targets(figures: Figures) -> list[Target]:
    """Return the targets of before that still hold, with the figures of a run."""
    return [*_batches(figures), *_others(figures)]


def _connections(figures: Figures) -> Iterator[Target]:
    """Connections that come and go; those with records count only if no record was lost."""
    lost = figures.spread(LOGGED.name, OWN, "records_lost")
    for reference, limit, aim in ((REFERENCE, 2, 1.75), (XINETD_LOGS.name, 0.125, 0)):
        ratio = figures.ratio("server_us", LOGGED.name, OWN, reference)
        counts = ratio if lost and lost.high == 0 else None
        yield Target(LOGGED_TWICE, reference, limit, counts, aim=aim)
    for reference, limit, aim in ((REFERENCE, 1.5, 1.35), (UVLOOP, 1, 0), (GO, 1, 0)):
        ratio = figures.ratio("server_us", "churn", NO_RECORDS, reference)
        yield Target("churn without records", reference, limit, ratio, aim=aim)
    ratio = figures.ratio("server_us", MIXED, OWN, REFERENCE)
    yield Target(MIXED, REFERENCE, 1.4, ratio)
    for peer, work, limit in ((OWN, MIXED, 0.7), (NO_RECORDS, f"{MIXED}, without records", 0.95)):
        ratio = figures.ratio("rate", MIXED, peer, ONE_LOOP)
        yield Target(f"{work}: rates, summed", ONE_LOOP, limit, ratio, at_least=True)
    waited = figures.spread(CONNECTING, OWN, "quiet_p50_us")
    in_ms = Spread(*(each / 1000 for each in waited)) if waited else None
    yield Target(f"{CONNECTING}: p50 of the established, ms", "", 1, in_ms)


def _messages(figures: Figures) -> Iterator[Target]:
    for scenario, reference, limit in (
        (TCP, REFERENCE, 1.3),
        (TCP, UVLOOP, 1),
        (TCP_MANY, REFERENCE, 1.42),
        (TCP_MANY, UVLOOP, 1),
    ):
        ratio = figures.ratio("server_us", scenario, OWN, reference)
        yield Target(scenario, reference, limit, ratio)
    ratio = figures.ratio("p50_us", "udp 1 x 64 B", OWN, REFERENCE)
    yield Target("udp 1 x 64 B, p50", REFERENCE, 1.4, ratio, aim=1.3)
    for scenario, limit in (("tcp + 1 udp", 1.55), (UDP_PORTS, 1.25)):
        ratio = figures.ratio("server_us", scenario, OWN, REFERENCE)
        yield Target(scenario, REFERENCE, limit, ratio)


def _memory(figures: Figures) -> Iterator[Target]:
    idle = figures.spread("tcp crowd", OWN, "crowd_kib")
    yield Target("an idle connection among 8000, KiB", "", 0.55, idle)
    cold = figures.ratio("first_answer_ms", COLD, OWN, SMALLEST)
    yield Target("cold start: exec to the first answer", SMALLEST, 3, cold)


def _batches(figures: Figures) -> Iterator[Target]:
    limits = [
        ("tcp 16 x 64 KiB", REFERENCE, 1.1),
        *((scenario, REFERENCE, 1.25) for scenario in UDP),
        *((scenario, UVLOOP, 0.7) for scenario in (*UDP, UDP_PORTS)),
    ]
    for scenario, reference, limit in limits:
        ratio = figures.ratio("server_us", scenario, OWN, reference)
        yield Target(scenario, reference, limit, ratio)


def _others(figures: Figures) -> Iterator[Target]:
    ratio = figures.ratio("p50_us", "tcp 1 x 64 B", OWN, REFERENCE)
    yield Target("tcp 1 x 64 B, p50", REFERENCE, 1.2, ratio)
    for scenario in ("tcp + udp", "tcp + udp, free"):
        ratio = figures.ratio("rate", scenario, OWN, ONE_LOOP)
        yield Target(f"{scenario}: rates, summed", ONE_LOOP, 1, ratio, at_least=True)
    ratio = figures.ratio("server_us", "tcp crowd", OWN, OWN, TCP)
    yield Target("a message among 8000 idle connections", "one among 64", 1.2, ratio)
    for flood, answered in FLOODS.items():
        ratio = figures.ratio("server_us", flood, OWN, OWN, answered)
        yield Target(f"{flood}: a refused datagram", "an answered one", 0.8, ratio)
    yield Target("resident after the start, MiB", "", 25, figures.spread(START, OWN, "rss_mib"))
