"""A scrape of a server in this process: in steps, between which other clients are served."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from netsrvd import snapshot
from netsrvd.connection import Connection
from netsrvd.services.shown import Family
from tests.support.peers import connect, echoed, read_exactly
from tests.support.server import Reported, RunningServer, on_loopback

REQUEST = b"GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CLIENTS, A_STEP = 7, 2


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningServer]:
    Reported(monkeypatch)
    monkeypatch.setattr(snapshot, "CONNECTIONS_PER_STEP", A_STEP)
    metrics = on_loopback("metrics", service="metrics", protocols=("tcp",))
    made = RunningServer(on_loopback("echo", protocols=("tcp", "udp")), metrics)
    made.start()
    yield made
    made.end()


def test_a_step_looks_at_some_connections(running: RunningServer) -> None:
    """A step covers `A_STEP` connections or a listener; the sums are those of all."""
    with ExitStack() as stack:
        for _ in range(CLIENTS):
            assert echoed(stack.enter_context(connect(running.address("echo"))), b"x" * 100)
        found = list(running.server.families())
        steps = found.index(next(each for each in found if each is not None))
        families = {each.name: each for each in found if isinstance(each, Family)}
        assert steps >= CLIENTS // A_STEP + 3
        assert len(found) == steps + len(families)
        received = dict(families["netsrvd_received_bytes_total"].samples)
        assert received[("listener", "echo"), ("protocol", "tcp")] == CLIENTS * 100
        overview = list(running.server.overview())
        assert overview[:-1] == [None] * (len(overview) - 1)
        assert len(overview) >= CLIENTS // A_STEP + 3


@pytest.mark.parametrize("path", [b"metrics", b"", b"status.json"])
def test_each_step_is_a_turn_of_the_loop(
    running: RunningServer, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    """Between two of them it serves what came meanwhile."""
    turns: list[str] = []
    on_ready = Connection.on_ready

    def noted(self: Connection, *arguments: Any) -> None:
        turns.append(self.listener)
        on_ready(self, *arguments)

    monkeypatch.setattr(Connection, "on_ready", noted)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(running.address("echo"))) for _ in range(CLIENTS)]
        assert all(map(echoed, clients))
        turns.clear()
        with connect(running.address("metrics")) as sock:
            sock.sendall(REQUEST % path)
            assert read_exactly(sock, 12) == b"HTTP/1.1 200"
            while sock.recv(65536):
                pass
        assert turns.count("metrics") >= CLIENTS // A_STEP + 3
