"""Clients that come and go without a pause: the others are served, and systemd hears of it."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic

from tests.functional.conftest import Start
from tests.support import storm
from tests.support.peers import connect
from tests.support.run import Run, echo

STORM_SECONDS = 15.0
STORM_CONNECTIONS = 1_000_000
ESTABLISHED = 10
WATCHDOG_SECONDS = 8.0
LONGEST_SECONDS = 4.0
"""For a round trip: 0.1 s was the longest measured, 6.6 s before the loops were bounded. A host
that has other work adds to it.
"""


@contextmanager
def storming(port: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Have a process connect and close in a loop meanwhile."""
    arguments = (str(port), str(STORM_CONNECTIONS), str(STORM_SECONDS), *more)
    process = subprocess.Popen(
        [sys.executable, str(Path(storm.__file__)), *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        with process:
            process.wait()


def _fed_at(run: Run, times: list[float]) -> None:
    """Note when the watchdog was fed since the last look."""
    run._hear()
    times += [monotonic()] * (len(run.notices_with("WATCHDOG")) + 1 - len(times))


def test_established_clients_are_served_in_a_storm(start: Start, port: int) -> None:
    """While one process connects and closes in a loop for 15 s, each round trip of ten established
    clients takes less than four, the watchdog is fed in time, and nothing is "full".
    """
    configuration = echo(port, max_connections=2000) | {"log": {"queue": 1_000_000}}
    environment = {"WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1e6))}
    run = start(configuration, environment=environment)
    trips: list[float] = []
    fed = [monotonic()]
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(("127.0.0.1", port))) for _ in range(ESTABLISHED)]
        process = stack.enter_context(storming(port))
        while process.poll() is None:
            for client in clients:
                began_at = monotonic()
                client.sendall(b"x")
                assert client.recv(1) == b"x"
                trips.append(monotonic() - began_at)
            _fed_at(run, fed)
        assert process.stdout is not None
        assert int(process.stdout.read()) > 1000
    fed.append(monotonic())
    assert len(trips) > 100 * ESTABLISHED
    assert max(trips) < LONGEST_SECONDS
    assert max(after - before for before, after in pairwise(fed)) < WATCHDOG_SECONDS
    run.wait(lambda: run.held() == run._at_rest, "rest")
    assert run.lines_with("full with") == []
    assert len(run.lines_with(" connected to ")) > 1000
