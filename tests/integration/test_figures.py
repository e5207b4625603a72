"""What a server says of itself: progress, what was seen, whether it is empty, its threads."""

import threading
from collections.abc import Iterator

import pytest

from netsrvd.events.lifecycle import ThreadFailed
from tests.support.patience import eventually
from tests.support.peers import connect, datagrams, echoed
from tests.support.server import Reported, RunningServer, on_loopback

LISTENERS = (
    on_loopback("echo", protocols=("tcp", "udp")),
    on_loopback("proxied", proxies=("127.0.0.1",)),
    on_loopback("closed", deny=("127.0.0.1",)),
)


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> Reported:
    return Reported(monkeypatch)


@pytest.fixture
def running(reported: Reported) -> Iterator[RunningServer]:
    made = RunningServer(*LISTENERS)
    made.start()
    yield made
    made.end()


def test_progress_is_whatever_moves(running: RunningServer) -> None:
    """A byte that comes or goes, and an end, change the number, and nothing else does."""
    server = running.server
    with connect(running.address("echo")) as client:
        running.serves(1)
        seen = [server.progress(), server.progress()]
        assert len({*seen}) == 1
        assert echoed(client, b"x")
        seen.append(server.progress())
        assert echoed(client, b"y")
        seen.append(server.progress())
    running.serves(0)
    seen.append(server.progress())
    assert len({*seen}) == 4
    assert seen == sorted(seen)


def test_what_was_seen_is_whoever_came(running: RunningServer) -> None:
    """Connections and datagrams, served or refused."""
    server = running.server
    assert server.seen() == 0
    with connect(running.address("echo")) as client:
        assert echoed(client)
        assert server.seen() == 1
    with connect(running.address("closed")) as refused:
        assert refused.recv(1) == b""
    assert server.seen() == 2
    with datagrams() as asker:
        asker.sendto(b"x", running.address("echo", "udp"))
        assert asker.recv(1) == b"x"
    eventually(lambda: server.seen() == 3)
    assert server.flows == 1


def test_a_server_is_empty_without_any_connection(running: RunningServer) -> None:
    """One that waits for the header of a proxy is a connection, though it is not served."""
    server = running.server
    assert server.is_empty
    with connect(running.address("proxied")):
        eventually(lambda: not server.is_empty)
        assert server.live == 0
    eventually(lambda: server.is_empty)
    with connect(running.address("echo")) as client:
        assert echoed(client)
        assert not server.is_empty
    eventually(lambda: server.is_empty)


def test_there_are_three_threads_whatever_is_served(running: RunningServer) -> None:
    """One for each protocol and one for the log, besides the main one."""
    names = {thread.name for thread in threading.enumerate()} - {"MainThread"}
    assert names == {"tcp", "udp", "log"}
    assert {thread.name for thread in running.server.threads()} == names


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_loop_without_sockets_is_not_started(reported: Reported, protocol: str) -> None:
    """A reload that has a use for it starts it."""
    made = RunningServer(on_loopback("one", protocols=(protocol,)))
    made.start()
    assert {thread.name for thread in made.server.threads()} == {protocol, "log"}
    made.reload(on_loopback("one", protocols=("tcp", "udp")))
    assert {thread.name for thread in made.server.threads()} == {"tcp", "udp", "log"}
    with connect(made.address("one")) as client, datagrams() as asker:
        assert echoed(client)
        asker.sendto(b"x", made.address("one", "udp"))
        assert asker.recv(1) == b"x"
    made.end()


def test_a_thread_that_fails_is_told_and_wakes_the_main_thread(
    running: RunningServer, reported: Reported
) -> None:
    """With its traceback, for the log and for standard error."""
    running.server._tcp.call_soon_threadsafe(lambda: 1 // 0)
    eventually(lambda: running.wakes)
    [failure] = running.server.failures
    running.server.failures.clear()
    assert failure.startswith("thread tcp failed: ZeroDivisionError(")
    told = reported.only(ThreadFailed)
    assert told.thread == "tcp"
    assert "1 // 0" in told.traceback
