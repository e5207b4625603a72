"""Many clients that behave badly, and too few descriptors for them."""

import re
import resource
import select
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support.clients import serves, talking
from tests.support.patience import eventually
from tests.support.peers import connect, echoed, reset
from tests.support.run import PATIENCE, Run, echo

Crowd = Callable[[int], list[socket.socket]]

CROWD = 2000

DRIBBLE_SECONDS = 1.0

SMALL_BUFFERS = {"SO_SNDBUF": "16K", "SO_RCVBUF": "16K"}


@pytest.fixture
def crowd(port: int) -> Iterator[Crowd]:
    """Return what makes connections, which are closed at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

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


def _dribble(sockets: list[socket.socket]) -> None:
    """Send one byte a second, three times, and leave."""
    watch = select.poll()
    for sock in sockets:
        watch.register(sock, select.POLLIN)
    for _ in range(3):
        again_at = monotonic() + DRIBBLE_SECONDS
        for sock in sockets:
            sock.send(b"x")
        assert all(sock.recv(10) == b"x" for sock in sockets)
        while (left := again_at - monotonic()) > 0:
            assert watch.poll(left * 1000) == [], "somebody was sent away"
    _leave(sockets)


@pytest.mark.parametrize(
    ("behave", "ending", "keys"),
    [
        (_say_nothing, "closed: idle", {"idle_timeout": 2}),
        (_dribble, "closed: client", {"idle_timeout": 20}),
        (_break_off, "closed: reset", {}),
        (_leave, "closed: client", {}),
        (_send_and_never_read, "closed: write", {"write_timeout": 0.5}),
    ],
    ids=["silent", "dribbling", "resetting", "leaving", "never reading"],
)
def test_a_crowd_hurts_nobody(
    start: Start,
    port: int,
    crowd: Crowd,
    behave: Callable[[list[socket.socket]], None],
    ending: str,
    keys: dict[str, object],
) -> None:
    """Each of 2,000 has a record of its end; others are served meanwhile; nothing of it is left."""
    run = start(echo(port, **keys, options=SMALL_BUFFERS))
    sockets = crowd(CROWD)
    behave(sockets)
    assert serves(run.port)
    run.wait_line(ending, CROWD)
    run.wait_line(" connected to ", CROWD + 2)
    run.wait_line(" closed: ", CROWD + 2)
    ids = [Counter(_ids(run.lines_with(word))) for word in (" connected to ", " closed: ")]
    assert ids[0] == ids[1]
    assert ids[0].total() == CROWD + 2


def _ids(lines: list[str]) -> list[str]:
    """Return the ids of the connections that these records are about."""
    return [line.rpartition("[")[2] for line in lines]


SCANS = ["-sT", "-sU", "-sV", "-sT -sV --version-all", "-sU -sV --version-light"]


@pytest.mark.parametrize("scan", SCANS)
def test_a_scan_by_nmap_is_survived(start: Start, port: int, scan: str) -> None:
    """Whatever nmap(1) sends to find out what this is, it goes on serving, holds no more than
    before, and has two records for each connection.
    """
    run = start(echo(port, idle_timeout=1))
    found = subprocess.run(
        ["nmap", *scan.split(), "-Pn", "-n", "--max-retries=1", f"-p{port}", "127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=True,
    )
    assert re.search(rf"^{port}/(tcp|udp) +open", found.stdout, re.MULTILINE), found.stdout
    assert serves(run.port)
    run.end()
    ids = [Counter(_ids(run.lines_with(word))) for word in (" connected to ", " closed: ")]
    assert ids[0] == ids[1]
    assert ids[0].total() >= 2
    assert run.lines_with("<3>") == []


def _few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, 64))


def test_connections_stay_below_the_limit_on_descriptors(
    start: Start, port: int, crowd: Crowd
) -> None:
    """With 64 descriptors it says how many connections it takes, takes just those of 500 clients,
    without an error, and each of the others as soon as one has left; UDP is served all the while.
    """
    run = start(echo(port), limits=_few_descriptors, environment={"WATCHDOG_USEC": "400000"})
    said = run.wait_line("<4>at most ")
    taken = int(said.split()[2])
    assert said.endswith(
        f"{taken} connections are taken instead of 10000: the limit on descriptors is 64"
    )
    with talking(run.port) as early:
        others = crowd(500)
        run.wait_line(f"full with {taken} connections, the daemon's max_connections = {taken};")
        before, fed = run.cpu_seconds(), len(run.notices_with("WATCHDOG"))
        run.wait_notice("WATCHDOG", fed + 10)
        assert run.cpu_seconds() - before < 0.25
        assert len(run.links()) < 64
        assert echoed(early)
        for sock in others:
            assert echoed(sock)
            sock.close()
    run.wait_line(" connected to ", 501)
    run.wait_line(" has room again")
    assert len(run.lines_with("<4>")) == 2


def _limit(run: Run, descriptors: int) -> None:
    """Give a process that runs another limit on descriptors."""
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (descriptors, 1024))


def _closed(sockets: list[socket.socket]) -> list[socket.socket]:
    """Return those at which the server's end has arrived."""
    readable, _, _ = select.select(sockets, [], [], 0)
    return [sock for sock in readable if sock.recv(1, socket.MSG_PEEK) == b""]


@pytest.fixture
def short(start: Start, port: int) -> Run:
    """A run whose descriptors somebody has cut down to those that it has and two more."""
    run = start(echo(port), environment={"WATCHDOG_USEC": "400000"})
    _limit(run, run._at_rest.total() - run._at_rest["threads"] + 2)  # without those of a visit
    return run


def test_too_few_descriptors_are_survived(short: Run, crowd: Crowd) -> None:
    """It is told once; those who wait for longer than a second are turned away, those inside and
    UDP are served, systemd hears of it, no CPU is burnt; with descriptors again all is as before.
    """
    with talking(short.port) as early:
        assert echoed(early)
        others = crowd(200)
        short.wait_line(f"accept on 127.0.0.1:{short.port}: EMFILE: ")
        short.wait_line("refused: descriptors: none is left; raise LimitNOFILE= ")
        before, fed = short.cpu_seconds(), len(short.notices_with("WATCHDOG"))
        short.wait_notice("WATCHDOG", fed + 10)
        assert short.cpu_seconds() - before < 0.25
        assert echoed(early)
        eventually(lambda: len(_closed(others)) >= 198, "those who wait are turned away")
        assert all(echoed(sock) for sock in set(others).difference(_closed(others)))
        assert len(short.lines_with("<4>")) == 1
    _limit(short, 1024)
    short.wait_line("works again after ")
    assert serves(short.port)
    again = crowd(200)
    assert all(echoed(sock) for sock in again)
    for sock in again + others:
        sock.close()


def test_a_reload_without_descriptors_fails_in_order(short: Run, crowd: Crowd) -> None:
    """Nothing that a reload needs can be had: the old configuration stays, and is told to stay."""
    (short.config.parent / "conf.d").mkdir()
    with talking(short.port) as early:
        assert echoed(early)
        _limit(short, len(short.links()))
        status = short.reload(echo(short.port))["STATUS"]
        assert status.startswith("Reload failed, the old configuration is in force: ")
        assert echoed(early)
    _limit(short, 1024)
    assert short.reload(echo(short.port))["STATUS"].startswith("Serving ")
