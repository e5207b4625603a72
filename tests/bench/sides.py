"""The comparison side by side: all servers on one CPU, asked one after the other."""

import random
from contextlib import ExitStack

from tests.bench import stage
from tests.bench.loads import Bench
from tests.bench.peers import Peer
from tests.bench.scenarios import TOGETHER, Scenario
from tests.bench.servers import Server, log_cpu

FIELD_EVERY = 3
"""The peers that no target names are there in every third round."""


def side_by_side(bench: Bench, peers: list[Peer], scenarios: list[Scenario], rounds: int) -> None:
    """Measure so many rounds.

    The servers of a round run from its beginning to its end, and those that are compared are asked
    within seconds: a machine that is slower for a while is so for all of them.
    """
    with stage.journal(log_cpu()) as log:
        for number in range(rounds):
            field = number % FIELD_EVERY == 0
            with ExitStack() as stack:
                servers = {}
                for peer in peers:
                    if field or peer.name in TOGETHER:
                        server = bench.start(number, peer)
                        if server:
                            servers[peer.name] = stack.enter_context(server)
                for scenario in scenarios:
                    for name in shuffled(scenario, servers):
                        bench.ask(number, scenario, servers[name], log)


def shuffled(scenario: Scenario, servers: dict[str, Server]) -> list[str]:
    """Return who is to be asked, in an order that changes: first those that the targets name."""
    among = scenario.among or tuple(name for name in servers if name != "one loop")
    names = [
        name
        for name in among
        if name in servers and scenario.protocols <= {*servers[name].peer.protocols}
    ]
    random.shuffle(names)
    return sorted(names, key=lambda name: name not in TOGETHER)
