"""Figures that are known become the tables that are expected. Nothing is measured here."""

import itertools
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from netsrvd import __version__, tcp
from tests.bench import report, run
from tests.bench.cold import COLD, SMALLEST
from tests.bench.figures import Figures, Spread, bound
from tests.bench.growth import ACCEPTS, BURSTS, LOGGED
from tests.bench.peers import (
    GO,
    LIMITS,
    NO_RECORDS,
    OWN,
    PEERS,
    REFERENCE,
    UVLOOP,
    XINETD_LOGS,
    accepting,
)
from tests.bench.scenarios import COMPARED, LIMITED_SCENARIOS, SCENARIOS, START, TOGETHER
from tests.bench.sides import shuffled
from tests.bench.targets import CONNECTING, Target, earlier_targets, targets

TCP = "tcp 64 x 1 KiB"


def sample(**changes: Any) -> dict[str, Any]:
    """Return a sample of a server that was busy, with some of its figures changed."""
    part = {"rate": 1000.0, "p50_us": 50.0, "p99_us": 99.0}
    usual = part | {
        "server_us": 4.0,
        "server_busy": 1.0,
        "load_busy": 0.5,
        "log_busy": 0.0,
        "others_busy": 0.0,
        "lost_percent": 0.0,
        "errors": 0,
        "trouble": "",
        "total": 1200,
        "quiet_p50_us": 50.0,
        "quiet_p99_us": 99.0,
        "parts": [part, part],
    }
    return usual | changes


def rounds(*samples: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the samples of one peer as they are kept."""
    return {str(number): each for number, each in enumerate(samples)}


def costs(*server_us: float) -> dict[str, dict[str, Any]]:
    """Return samples that differ in their cost only."""
    return rounds(*(sample(server_us=each) for each in server_us))


def target(figures: Figures, work: str, reference: str) -> Target:
    """Return one line of the tables of targets."""
    every = [*targets(figures), *earlier_targets(figures)]
    [found] = [each for each in every if (each.work, each.reference) == (work, reference)]
    return found


def test_ratios_are_those_of_one_round() -> None:
    """A round that is slow for both changes no ratio; the median of the ratios is what counts."""
    figures = Figures({TCP: {REFERENCE: costs(4, 8, 4), OWN: costs(4.4, 9.6, 5.2)}})
    assert figures.ratio("server_us", TCP, OWN, REFERENCE) == pytest.approx((1.2, 1.1, 1.3))


def test_rounds_that_failed_do_not_count() -> None:
    """A ratio is made of the rounds in which both have figures."""
    failed = {"failed": "it ended"}
    mine = rounds(failed, sample(server_us=5.0), sample(server_us=6.0))
    theirs = rounds(sample(), sample(), failed)
    figures = Figures({TCP: {REFERENCE: theirs, OWN: mine}})
    assert figures.ratio("server_us", TCP, OWN, REFERENCE) == Spread(1.25, 1.25, 1.25)
    assert figures.troubles() == [
        f"{REFERENCE}, {TCP}: it ended (1 of 3 rounds)",
        f"{OWN}, {TCP}: it ended (1 of 3 rounds)",
    ]


@pytest.mark.parametrize(("cost", "verdict"), [(5.2, "met"), (5.21, "met"), (5.24, "**not met**")])
def test_a_target_is_met_or_not(cost: float, verdict: str) -> None:
    """What counts is the median as it is shown, with two digits after the point."""
    figures = Figures({TCP: {REFERENCE: costs(4), OWN: costs(cost)}})
    assert target(figures, TCP, REFERENCE).verdict == verdict


def test_a_target_without_figures() -> None:
    """What was not measured is neither met nor missed."""
    every = [*targets(Figures({})), *earlier_targets(Figures({}))]
    assert {each.verdict for each in every} == {"not measured"}


def test_a_target_has_a_figure_once_it_was_measured() -> None:
    """Each target is computed from a scenario, a peer and a figure that a full run has."""
    figures = Figures(full_run())
    unmeasured = [each for each in targets(figures) if each.figure is None]
    assert unmeasured == []
    assert [each for each in earlier_targets(figures) if each.figure is None] == []


def test_the_targets_of_the_design() -> None:
    """Connections, messages, memory and cold starts have the limits that the design promises."""
    found = [
        (each.reference, ("≥ " if each.at_least else "≤ ") + f"{each.limit:g}", each.aim)
        for each in targets(Figures({}))
    ]
    assert found == [
        (REFERENCE, "≤ 2", 1.75),
        (XINETD_LOGS.name, "≤ 0.125", 0),
        (REFERENCE, "≤ 1.5", 1.35),
        (UVLOOP, "≤ 1", 0),
        (GO, "≤ 1", 0),
        (REFERENCE, "≤ 1.4", 0),
        ("one loop", "≥ 0.7", 0),
        ("one loop", "≥ 0.95", 0),
        ("", "≤ 1", 0),
        (REFERENCE, "≤ 1.3", 0),
        (UVLOOP, "≤ 1", 0),
        (REFERENCE, "≤ 1.42", 0),
        (UVLOOP, "≤ 1", 0),
        (REFERENCE, "≤ 1.4", 1.3),
        (REFERENCE, "≤ 1.55", 0),
        (REFERENCE, "≤ 1.25", 0),
        ("", "≤ 0.55", 0),
        (SMALLEST, "≤ 3", 0),
    ]


@pytest.mark.parametrize(("value", "verdict"), [(1.75, "met, and the aim"), (1.76, "met")])
def test_an_aim_is_said_to_be_reached(value: float, verdict: str) -> None:
    """A target with an aim says whether the median reaches that, too."""
    assert Target("work", "C", 2, Spread(value, 1, 3), aim=1.75).verdict == verdict


@pytest.mark.parametrize(("lost", "verdict"), [(0, "met"), (1, "not measured")])
def test_the_cost_with_a_log_counts_only_with_all_records(lost: int, verdict: str) -> None:
    """A single record that is missing in the journal, and the cost says nothing."""
    mine = rounds(sample(server_us=50.0, records_lost=lost))
    theirs = rounds(sample(server_us=400.0, records_lost=0))
    figures = Figures({LOGGED.name: {OWN: mine, XINETD_LOGS.name: theirs}})
    assert targets(figures)[1].verdict == verdict


def test_the_wait_of_an_established_client_is_its_own() -> None:
    """Its p50 is that of the quiet load in ms, whatever the busy load takes."""
    mine = rounds(sample(p50_us=9000.0, quiet_p50_us=500.0))
    figures = Figures({CONNECTING: {OWN: mine}})
    [found] = [each for each in targets(figures) if each.work.startswith(CONNECTING)]
    assert (found.figure, found.verdict) == (Spread(0.5, 0.5, 0.5), "met")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "server"),
        ({"server_busy": 0.4, "load_busy": 0.95}, "load"),
        ({"server_busy": 0.4, "log_busy": 0.45}, "load"),
        ({"server_busy": 0.4, "others_busy": 0.9}, "others"),
        ({"server_busy": 0.4}, "waiting"),
    ],
)
def test_what_bounds_a_rate(changes: dict[str, float], expected: str) -> None:
    """A server that waits while no other program is busy is throttled by itself."""
    assert bound(sample(**changes)) == expected


def test_the_line_of_a_target() -> None:
    """A line has the work, the reference, the limit, the median with its ends, the verdict."""
    lines = [
        Target("work", "C", 1.25, Spread(1.2, 1.1, 1.3), aim=1.1),
        Target("rates", "", 8, Spread(1234.5, 1234.5, 1234.5), at_least=True),
    ]
    assert [*report.target_lines(lines)][2:] == [
        "| work | C | ≤ 1.25 (aim 1.1) | 1.20 (1.10 to 1.30) | met |",
        "| rates | - | ≥ 8 | 1,234 | met |",
    ]


def test_the_line_of_a_peer() -> None:
    """The reference shows its cost, the others their ratio to it, with a mark where one is due."""
    peers = {
        REFERENCE: costs(4, 4),
        OWN: costs(4.6, 4.8),
        "go": rounds(sample(server_us=6.0, server_busy=0.1)),
        "ncat": rounds(sample(server_us=30.0, errors=2, trouble="wrong bytes")),
    }
    lines = [*report.summary_lines(Figures(dict.fromkeys(COMPARED, peers)))]
    columns = len(COMPARED)
    assert "| C |" + " 4 µs |" * columns in lines
    assert "| **netsrvd** |" + " 1.17 |" * columns in lines
    assert "| go |" + " 1.50 \\* |" * columns in lines
    assert "| ncat |" + " 7.50 † |" * columns in lines


def full_run() -> dict[str, Any]:
    """Return the samples of a run in which all was measured, the growth excepted."""
    names = [peer.name for peer in PEERS]
    usual = rounds(sample(crowd=8000, crowd_kib=0.5))
    everything: dict[str, Any] = {
        each.name: dict.fromkeys((*(each.among or names), *each.also), usual) for each in SCENARIOS
    }
    everything[START] = dict.fromkeys(names, rounds({"rss_mib": 18.0, "pss_mib": 12.0}))
    logging = (REFERENCE, OWN, XINETD_LOGS.name)
    everything[LOGGED.name] = dict.fromkeys(logging, rounds(sample(records_lost=0)))
    everything[BURSTS.name] = {accepting(accepts).name: usual for accepts in ACCEPTS}
    everything[COLD] = dict.fromkeys((SMALLEST, OWN), rounds({"first_answer_ms": 25.0}))
    return everything


def test_the_whole_page() -> None:
    """A full run becomes a page with all its parts; each table has as many cells in every line."""
    names = [peer.name for peer in PEERS]
    document = {
        "machine": dict.fromkeys(("date", "commit", "system", "kernel", "processor", "python"), "x")
        | {"cpus": 2},
        "versions": dict.fromkeys(names, "1.0") | {"go": ""},
        "rounds": 1,
        "seconds": 0.5,
        "minutes": 1.5,
        "samples": full_run(),
    }
    lines = [*report.page(document)]
    headings = [line.removeprefix("### ") for line in lines if line.startswith("### ")]
    single = [f"`{each.name}`" for each in SCENARIOS if len(each.loads) == 1]
    assert headings[: -1 - len(single)] == [
        "Targets",
        "Earlier targets",
        "CPU time of a message, as a ratio to C",
        "Loads at the same time",
        "Limits in force",
        "Memory",
        "Each connection logged twice",
        "Accepts of a turn",
        "Cold start",
    ]
    assert headings[-1 - len(single) : -1] == single
    assert "- go (a goroutine a connection): not installed" in lines
    assert [line for line in lines if line.startswith("| one loop | 1,000 |")]
    for above, below in itertools.pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert above.count("|") == below.count("|")


def test_only_the_generated_part_of_the_page_changes() -> None:
    """What people wrote before and behind the two comments stays."""
    before = f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nMore.\n"
    after = f"# Title\n\n{report.BEGIN}\n\nnew\n\n{report.END}\n\nMore.\n"
    assert report.spliced(before, "new\n") == after
    assert report.spliced(after, "new\n") == after


def test_the_limits_are_compared_in_one_round() -> None:
    """With limits a message costs so much of what it costs without, in the same round."""
    peers = {OWN: costs(4, 8), LIMITS: costs(4.4, 8.8)}
    lines = [*report.limits_lines(Figures(dict.fromkeys(LIMITED_SCENARIOS, peers)))]
    assert lines[2:] == [f"| {each} | 6 | 6.60 | 1.10 |" for each in LIMITED_SCENARIOS]


def test_the_accepts_of_a_turn() -> None:
    """A line has the wait of the established client, the rate and wait of the others, the cost."""
    parts = [{"rate": 500.0}, {"rate": 9000.0, "p99_us": 30.0}]
    figures = Figures({BURSTS.name: {"16 accepts": rounds(sample(parts=parts))}})
    assert "| 16 | 50 | 99 | 9,000 | 30 | 4 |" in report.accepts_lines(figures)


def test_another_number_of_accepts_is_the_same_program() -> None:
    """The program's own number is among those compared; the others run the tree's netsrvd."""
    assert tcp.ACCEPTS_PER_TURN in ACCEPTS
    command = accepting(7).command
    patched = command[: command.index("run")]
    done = subprocess.run([*patched, "--version"], capture_output=True, text=True, check=True)
    assert __version__ in done.stdout


def test_a_round_without_all_peers_has_those_that_targets_name() -> None:
    """Two of three rounds leave out the peers that no target names."""
    servers: Any = {peer.name: SimpleNamespace(peer=peer) for peer in PEERS}
    churn = next(each for each in SCENARIOS if each.name == "churn")
    assert {*shuffled(churn, servers, is_full=False)} == {
        *(REFERENCE, OWN, UVLOOP, GO),
        *(NO_RECORDS, LIMITS),
    }
    general = {peer.name for peer in PEERS if peer.general}
    assert {*shuffled(churn, servers, is_full=True)} == general | {NO_RECORDS, LIMITS}


def test_the_peers_of_a_scenario_are_there() -> None:
    """Scenarios name peers of the table only, and the reference is always among several."""
    names = {peer.name for peer in PEERS}
    for scenario in SCENARIOS:
        assert {*scenario.among, *scenario.also} <= names
        assert scenario.among in ((), (OWN,)) or REFERENCE in scenario.among
    assert {*TOGETHER} <= names


def test_the_command_line() -> None:
    """What is chosen by patterns is what fits one of them; by default that is everything."""
    arguments = run.parser().parse_args([])
    assert (arguments.only, arguments.peers, arguments.scenarios) == run.ALL
    assert run.chosen("udp 64 x 64 B", "tcp*,udp 64*")
    assert not run.chosen("churn", "tcp*,udp*")
