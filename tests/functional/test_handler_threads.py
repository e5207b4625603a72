"""Threads that the module of a handler leaves behind, and handlers that compute."""

import signal
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.clients import ended
from tests.support.peers import connect
from tests.support.run import echo

HOST = "127.0.0.1"

SAYS = """
def talk(connection):
    connection.send(b"hello")
"""

COMPUTES = """
from time import process_time

def compute(connection):
    until = float(connection.recv())
    while process_time() < until:
        sum(range(1000))
    connection.send(b"done")
"""
COMPUTING = 64
COMPUTE_SECONDS = 12.0
WATCHDOG_SECONDS = 8.0
"""The longest time without a feed was 3.9 s of 20, and all of the 20 s before ticks had a shorter
switch interval and pings came before other calls. Both are processor time of the run, which does
not depend on what else the host does.
"""

HOLDS = {
    "thread": """
import threading, time
threading.Thread(target=time.sleep, args=(3600,)).start()
""",
    "executor": """
import time
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor().submit(time.sleep, 3600)
""",
    "exit function": """
import atexit, time
atexit.register(time.sleep, 3600)
""",
}
"""What keeps Python from ending, as a module may leave it behind when it is imported."""


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]])
@pytest.mark.parametrize("held", HOLDS)
def test_nothing_of_a_module_holds_a_stop(
    start: Start, port: int, tmp_path: Path, held: str, signals: list[signal.Signals]
) -> None:
    """A stop, and the first half of a restart, end after the last record, with status 0, whatever
    the module of a handler has begun.
    """
    (tmp_path / "holding.py").write_text(HOLDS[held] + SAYS)
    run = start(
        echo(port, host=[HOST], service="python:holding:talk"),
        environment={"PYTHONPATH": str(tmp_path)},
    )
    with connect((HOST, port)) as client:
        assert client.recv(5) == b"hello"
        assert ended(client)
    run.wait_line(" closed: ")
    for each in signals:
        run.send(each)
    run.wait_end()
    assert run.lines[-1].startswith("<5>stopped")


@pytest.mark.parametrize("held", HOLDS)
def test_nothing_of_a_module_holds_a_start_that_fails(
    start: Start, port: int, tmp_path: Path, held: str
) -> None:
    """It ends with its status and its reason although the module of a handler was imported."""
    (tmp_path / "holding.py").write_text(HOLDS[held])
    run = start(
        echo(port, host=[HOST], service="python:holding:missing"),
        environment={"PYTHONPATH": str(tmp_path)},
        ready=False,
    )
    run.wait_failure(78)
    assert run.lines


def test_handlers_that_compute_do_not_starve_the_watchdog(
    start: Start, port: int, tmp_path: Path
) -> None:
    """While 64 threads of a handler compute for 12 s of processor time, the watchdog is fed before
    they have had 8 s of it.
    """
    (tmp_path / "cruncher.py").write_text(COMPUTES)
    run = start(
        echo(port, host=[HOST], service="python:cruncher:compute", handler_threads=COMPUTING),
        environment={
            "PYTHONPATH": str(tmp_path),
            "WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6)),
        },
    )
    fed_at = [run.cpu_seconds()]
    with ExitStack() as stack:
        clients = [stack.enter_context(connect((HOST, port))) for _ in range(COMPUTING)]
        for client in clients:
            client.sendall(str(COMPUTE_SECONDS).encode())
        while run.cpu_seconds() < COMPUTE_SECONDS:
            fed = len(run.notices_with("WATCHDOG"))
            run._hear()
            fed_at += [run.cpu_seconds()] * (len(run.notices_with("WATCHDOG")) - fed)
        fed_at.append(run.cpu_seconds())
        assert max(after - before for before, after in pairwise(fed_at)) < WATCHDOG_SECONDS
        run.wait_line(" closed: finished", COMPUTING)
        assert all(client.recv(4) == b"done" for client in clients)
    run.rest()
