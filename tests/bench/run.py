"""`make bench`: netsrvd side by side with its peers, in rounds; see docs/performance.md."""

import argparse
import json
import resource
import shutil
import sys
import time
from fnmatch import fnmatch
from typing import Any

from tests.bench import growth, report, stage
from tests.bench.boxes import BUILD, OUTPUT, ROOT
from tests.bench.cold import cold_starts
from tests.bench.figures import Figures
from tests.bench.loads import Bench
from tests.bench.peers import PEERS
from tests.bench.scenarios import SCENARIOS
from tests.bench.sides import side_by_side
from tests.bench.targets import earlier_targets, targets
from tests.bench.versions import machine, version

ALL = (None, "*", "*")
RESULT = BUILD / "result.json"
PAGE = ROOT / "docs/performance.md"


def main() -> None:
    """Measure, then write what was found; on a stage of its own from the first step on."""
    arguments = parser().parse_args()
    if arguments.publish and (arguments.only, arguments.peers, arguments.scenarios) != ALL:
        sys.exit("only a full run is published")
    if not arguments.report:
        stage.enter()
        raise_limits()
        document = measure(arguments)
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
    write(json.loads(RESULT.read_text()), publish=arguments.publish)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="tests.bench.run", description=__doc__)
    top.add_argument("--rounds", type=int, default=6)
    top.add_argument("--seconds", type=float, default=0.5, help="of each measurement (0.5)")
    top.add_argument("--peers", default="*", help="only those, as 'go,xinetd*'; never without C")
    top.add_argument("--scenarios", default="*", help="only those, as 'udp*,churn'")
    top.add_argument(
        "--only",
        choices=("sides", "logged", "cold", "accepts", "growth"),
        help="only the comparison side by side, the one with the journal, cold starts, the accepts "
        "of a turn, or the growth",
    )
    top.add_argument("--publish", action="store_true", help="write into docs/performance.md, too")
    top.add_argument("--report", action="store_true", help="measure nothing, report the last run")
    return top


def raise_limits() -> None:
    """Let servers have as many descriptors as the system allows: not all ask for them."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return all that is measured, with what must be known to read it."""
    began = time.monotonic()
    for old in OUTPUT.glob("*"):
        old.unlink()
    versions = {peer.name: version(peer) for peer in PEERS}
    peers = [each for each in PEERS if versions[each.name] and chosen(each.name, arguments.peers)]
    scenarios = [each for each in SCENARIOS if chosen(each.name, arguments.scenarios)]
    rounds, only = arguments.rounds, arguments.only
    bench = Bench(rounds, arguments.seconds)
    if only in (None, "sides"):
        side_by_side(bench, peers, scenarios, rounds)
    if only in (None, "logged"):
        growth.logged(bench, rounds)
    if only in (None, "cold"):
        cold_starts(bench, rounds)
    if only in (None, "accepts"):
        growth.bursts(bench, rounds)
    if only in (None, "growth"):
        fewer = (rounds + 1) // 2
        growth.connections(bench, peers, fewer)
        growth.log_speed(bench, fewer)
        growth.processes(bench, fewer)
    return {
        "machine": machine(),
        "versions": versions,
        "rounds": rounds,
        "seconds": arguments.seconds,
        "minutes": (time.monotonic() - began) / 60,
        "samples": bench.samples,
    }


def chosen(name: str, patterns: str) -> bool:
    """Return whether one of some patterns with commas between them fits."""
    return any(fnmatch(name, pattern) for pattern in patterns.split(","))


def write(document: dict[str, Any], *, publish: bool) -> None:
    """Write the report into build/bench and show its targets; put it into docs if asked to."""
    from tests.bench import plots  # takes a second

    figures = Figures(document["samples"])
    drawn = BUILD / report.PLOTS
    drawn.mkdir(exist_ok=True)
    plots.draw_all(figures, drawn)
    text = "\n".join(report.page(document)) + "\n"
    (BUILD / PAGE.name).write_text(text)
    found = [*targets(figures), *earlier_targets(figures)]
    print("\n".join(report.target_lines([each for each in found if each.figure])))
    print(f"\nmore in {(BUILD / PAGE.name).relative_to(ROOT)}")
    if publish:
        shutil.copytree(drawn, PAGE.parent / report.PLOTS, dirs_exist_ok=True)
        PAGE.write_text(report.spliced(PAGE.read_text(), text))


if __name__ == "__main__":
    main()
