"""How the figures change with one number: connections, the log's speed, instances, accepts."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from tests.bench import stage
from tests.bench.boxes import Box
from tests.bench.figures import Sample
from tests.bench.loads import Bench
from tests.bench.peers import (
    OWN,
    PEERS,
    REFERENCE,
    XINETD_LOGS,
    Peer,
    accepting,
    instances,
    netsrvd,
)
from tests.bench.scenarios import QUICK, SCENARIOS, STEADY_TCP, STORM, Scenario
from tests.bench.servers import everywhere, log_cpu
from tests.bench.sides import side_by_side

CONNECTIONS = {
    count: Scenario(f"{count} connections", (f"tcp_load -c {count}",), "", QUICK)
    for count in (1, 8, 64, 512, 2000, 8000)
}

CHURN = next(each.loads for each in SCENARIOS if each.name == "churn")
LOGGED = Scenario("churn, logged", CHURN, "")

SPEEDS = (1000, 3000, 10_000, 30_000)
LOGS = {name: Scenario(f"log {name}", CHURN, "") for name in ("none", "journal", *map(str, SPEEDS))}
DROPS, WAITS, SILENT = "netsrvd, drops", "netsrvd, waits", "netsrvd, errors only"

ACCEPTS = (1, 4, 8, 16, 32, 64)
"""Numbers of accepts a turn that are compared; the program's own is one of them."""
BURSTS = Scenario("accepts a turn", STORM, "", quiet=0)

COUNTS = (1, 2, 4)
FREE = {
    "tcp": Scenario("free tcp", (STEADY_TCP,), "", pinned=False),
    "udp": Scenario("free udp", ("udp_load -w 256 -p 64",), "", pinned=False),
}


def ask_anew(bench: Bench, number: int, scenario: Scenario, peer: Peer, log: Box) -> Sample:
    """Start a server, measure it, end it."""
    server = bench.start(number, peer)
    if server is None:
        return {"failed": "did not start"}
    with server:
        return bench.ask(number, scenario, server, log)


def logged(bench: Bench, rounds: int) -> None:
    """Measure short connections that are all logged to a journal; the reference logs nothing.

    The journal is empty each time, and its records are counted: `records_lost` are those that are
    missing to two for each connection. It runs where the scheduler puts it: with two CPUs its
    place beside the load would be the limit.
    """
    waits = netsrvd(WAITS, '[log]\nwhen_full = "wait"\n')
    reference = next(peer for peer in PEERS if peer.name == REFERENCE)
    identifiers = {reference: "", netsrvd(): OWN, waits: OWN, XINETD_LOGS: "xinetd"}
    for number in range(rounds):
        for peer, identifier in identifiers.items():
            with stage.journal(everywhere()) as log:
                server = bench.start(number, peer)
                if server is None:
                    continue
                with server:
                    before = stage.records(identifier) if identifier else 0
                    sample = bench.ask(number, LOGGED, server, log)
                    if "failed" in sample or not identifier:
                        continue
                    server.box.settle()
                    log.settle()
                    records = stage.records(identifier) - before
                    sample["records_lost"] = max(0, 2 * sample["total"] - records)


def connections(bench: Bench, peers: list[Peer], rounds: int) -> None:
    """Measure the cost of a message with ever more connections, all of them busy."""
    quick = [peer for peer in peers if peer.name in QUICK]
    side_by_side(bench, quick, [*CONNECTIONS.values()], rounds)


def log_speed(bench: Bench, rounds: int) -> None:
    """Measure short connections with logs of different speed, and a queue that is soon full."""
    drops = netsrvd(DROPS, "[log]\nqueue = 1000\n")
    waits = netsrvd(WAITS, '[log]\nqueue = 1000\nwhen_full = "wait"\n')
    silent = netsrvd(SILENT, '[log]\nlevel = "error"\n')
    cpu = log_cpu()
    logs: dict[str, Callable[[], AbstractContextManager[Box]]] = {
        "none": partial(stage.journal, cpu),
        "journal": partial(stage.journal, cpu),
        **{str(speed): partial(stage.slow_log, speed, cpu) for speed in SPEEDS},
    }
    for number in range(rounds):
        for name, make_log in logs.items():
            for peer in (silent,) if name == "none" else (drops, waits):
                with make_log() as log:
                    ask_anew(bench, number, LOGS[name], peer, log)


def processes(bench: Bench, rounds: int) -> None:
    """Measure several instances on one port.

    Server and load run where the scheduler puts them.
    """
    with stage.journal(log_cpu()) as log:
        for number in range(rounds):
            for count in COUNTS:
                ask_anew(bench, number, FREE["tcp"], instances(count), log)
                ask_anew(bench, number, FREE["udp"], instances(count), log)


def bursts(bench: Bench, rounds: int) -> None:
    """Measure an established client beside connecting ones, with other numbers of accepts a turn.

    More accepts a turn let the established client wait longer; fewer cost a turn of the loop for
    each connection.
    """
    with stage.journal(log_cpu()) as log:
        for number in range(rounds):
            for accepts in random.sample(ACCEPTS, len(ACCEPTS)):
                ask_anew(bench, number, BURSTS, accepting(accepts), log)
