"""Many clients that behave badly, and too few descriptors for them."""

import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.process.conftest import Start
from tests.support.clients import serves, talking
from tests.support.peers import connect, echoed, reset
from tests.support.run import Run, echo

Crowd = Callable[[int], list[socket.socket]]

CROWD = 300

SMALL_BUFFERS = {"SO_SNDBUF": "16K", "SO_RCVBUF": "16K"}


@pytest.fixture
def crowd(port: int) -> Iterator[Crowd]:
    """Make so many connections, which are closed at the end."""
    with ExitStack() as stack:

        def connected(count: int) -> list[socket.socket]:
            address = ("127.0.0.1", port)
            return [stack.enter_context(connect(address, SO_RCVBUF=4096)) for _ in range(count)]

        yield connected


def _say_nothing(sockets: list[socket.socket]) -> None:
    """Do nothing."""


def _break_off(sockets: list[socket.socket]) -> None:
    """Reset every connection."""
    for sock in sockets:
        reset(sock)


def _leave(sockets: list[socket.socket]) -> None:
    """Close every connection."""
    for sock in sockets:
        sock.close()


def _send_and_never_read(sockets: list[socket.socket]) -> None:
    """Send what is taken, and again when the server has had time to read it and to answer."""
    for sock in sockets * 2:
        sock.setblocking(False)
        with suppress(BlockingIOError, ConnectionError):
            while True:
                sock.send(bytes(65536))


@pytest.mark.parametrize(
    ("behave", "ending", "keys"),
    [
        (_say_nothing, "closed: idle", {"idle_timeout": 0.5}),
        (_break_off, "closed: reset", {}),
        (_leave, "closed: client", {}),
        (_send_and_never_read, "closed: write", {"write_timeout": 0.5}),
    ],
    ids=["silent", "resetting", "leaving", "never reading"],
)
def test_a_crowd_hurts_nobody(
    start: Start,
    port: int,
    crowd: Crowd,
    behave: Callable[[list[socket.socket]], None],
    ending: str,
    keys: dict[str, object],
) -> None:
    """Each has a record of its end; others are served meanwhile; nothing of it is left."""
    run = start(echo(port, **keys, options=SMALL_BUFFERS))
    behave(crowd(CROWD))
    assert serves(run.port)
    run.wait_line(ending, CROWD)
    run.wait_line(" connected to ", CROWD)


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


@pytest.fixture
def short(start: Start) -> Run:
    """A run with 64 descriptors, and a watchdog whose tick is 100 ms."""
    return start(limits=_few_descriptors, environment={"WATCHDOG_USEC": "400000"})


def test_too_few_descriptors_are_survived(short: Run, crowd: Crowd) -> None:
    """It is told once; those inside and UDP are served, systemd hears of it, no CPU is burnt."""
    with talking(short.port) as early:
        waiting = crowd(200)
        short.wait_line(f"accept on 127.0.0.1:{short.port}: EMFILE: ")
        before, fed = short.cpu_seconds(), len(short.notices_with("WATCHDOG"))
        short.wait_notice("WATCHDOG", fed + 10)
        assert short.cpu_seconds() - before < 0.25
        assert echoed(early)
        assert len(short.lines_with("<4>")) == 1
        for sock in waiting[:100]:
            sock.close()
        for sock in waiting[150:]:
            sock.close()
        for sock in waiting[100:150:10]:
            assert echoed(sock)
    for sock in waiting:
        sock.close()
    assert serves(short.port)
    short.wait_line("works again after ")
    short.wait_line(" connected to ", 200)


def test_a_reload_without_descriptors_fails_in_order(short: Run, crowd: Crowd) -> None:
    """Nothing that a reload needs can be had: the old configuration stays, and is told to stay."""
    (short.config.parent / "conf.d").mkdir()
    waiting = crowd(100)
    short.wait_line(": EMFILE: ")
    status = short.reload(echo(short.port))["STATUS"]
    assert status.startswith("Reload failed, the old configuration is in force: ")
    for sock in waiting:
        sock.close()
    short.wait_line(" closed: ", 100)
    assert short.reload(echo(short.port))["STATUS"].startswith("Serving ")
