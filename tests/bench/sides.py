"""The comparison side by side: all servers on one CPU, asked one after the other."""

import random
from contextlib import ExitStack

from tests.bench import stage
from tests.bench.loads import Bench
from tests.bench.peers import Peer
from tests.bench.scenarios import TOGETHER, Scenario
from tests.bench.servers import Server, log_cpu

FIELD_EVERY = 3
"""The peers that no target names are measured in every third round."""


def side_by_side(bench: Bench, peers: list[Peer], scenarios: list[Scenario], rounds: int) -> None:
    """Measure a number of rounds.

    The servers of a round run from its beginning to its end, and those that are compared are asked
    within seconds: a machine that is slower for a while is so for all of them.
    """
    targeted = {*TOGETHER, *(name for scenario in scenarios for name in scenario.also)}
    with stage.journal(log_cpu()) as log:
        for number in range(rounds):
            is_full = number % FIELD_EVERY == 0
            with ExitStack() as stack:
                servers = {}
                for peer in peers:
                    if is_full or peer.name in targeted:
                        server = bench.start(number, peer)
                        if server:
                            servers[peer.name] = stack.enter_context(server)
                for scenario in scenarios:
                    for name in shuffled(scenario, servers, is_full=is_full):
                        bench.ask(number, scenario, servers[name], log)


def shuffled(scenario: Scenario, servers: dict[str, Server], *, is_full: bool) -> list[str]:
    """Return the names of the servers to measure, in an order that changes.

    Those that the targets name come first; without `is_full` they are all.
    """
    targeted = {*TOGETHER, *scenario.also}
    general = [name for name, server in servers.items() if server.peer.general]
    names = [
        name
        for name in {*(scenario.among or general), *scenario.also}
        if name in servers
        and (is_full or name in targeted)
        and scenario.protocols <= {*servers[name].peer.protocols}
    ]
    random.shuffle(names)
    return sorted(names, key=lambda name: name not in targeted)
