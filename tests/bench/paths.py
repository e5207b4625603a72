"""Draws docs/pictures/paths.png: `netsrvd probe --stamp --sweep 16` over paths of which one is bad.

    .venv/bin/python -m tests.bench.paths

The paths are those of a relay between network namespaces (tests/support/impairment), and the
reflector is this daemon. The summary goes to standard output, for docs/measuring.md. Wants root.
"""

import random
import subprocess
import tempfile
from pathlib import Path

from tests.support import reflectors
from tests.support.impairment.path import FAR, Entry, Way, impaired, network
from tests.support.run import COMMAND

PICTURE = Path(__file__).parents[2] / "docs/pictures/paths.png"

PATHS, PORTS = 8, 16
BAD = 5
"""The path that is bad, on the way out."""

MS = 1_000_000
PLANNED = 997
"""Entries of a plan, which begins again after them."""


def delays(usual_ms: float, loss: float, seed: int) -> list[Entry]:
    """Return delays of a path with a queue that is empty most of the time, and losses."""
    random_ = random.Random(seed)
    return [
        None if random_.random() < loss else round((usual_ms + random_.expovariate(1 / 0.2)) * MS)
        for _ in range(PLANNED)
    ]


def first_port(way: Way) -> int:
    """Return the first of ports of which exactly one is on the bad path."""
    return next(
        first
        for first in range(40_000, 60_000)
        if sum(way.path_of(port) == BAD for port in range(first, first + PORTS)) == 1
    )


def main() -> None:
    """Run the probe, and let it draw."""
    usual = [delays(5, 0.002, path) for path in range(PATHS)]
    plans = dict(enumerate(usual)) | {BAD: delays(6.5, 0.12, BAD)}
    there = Way(plans=plans, paths=PATHS)
    back = Way(plan=delays(5, 0.002, PATHS))
    with (
        network() as between,
        tempfile.TemporaryDirectory() as folder,
        reflectors.netsrvd(between.responder, Path(folder), "stamp", stamp_stateful=True),
        impaired(between, Path(folder), there, back),
        between.prober.entered(),
    ):
        command = [
            *(COMMAND, "probe", "--quiet", "--stamp", "--sweep", PORTS, "--count", 100),
            *("--interval", "100ms", "--source-port", first_port(there), "--plot", PICTURE, FAR),
        ]
        subprocess.run([*map(str, command)], check=True)


if __name__ == "__main__":
    main()
