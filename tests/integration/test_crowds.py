"""Thousands of TCP connections at once; the clients are another process."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Self

from netsrvd.events.connections import Accepted, Closed
from tests.support import crowd
from tests.support.patience import eventually
from tests.support.peers import connect, echoed
from tests.support.serving import Serving

IDLE, BUSY, ROUNDS = 4000, 1000, 20


class Crowd:
    """The clients' process."""

    def __init__(self, *arguments: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(crowd.__file__)), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def figures(self) -> dict[str, Any]:
        """Return what it tells next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the clients ended early"
        return dict(json.loads(line))

    def go_on(self) -> None:
        """Let it ask once more and leave."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:
            self._process.wait()


def test_thousands_are_unremarkable(serving: Serving, many_descriptors: None) -> None:
    """4,000 idle and 1,000 busy connections at once: everybody is served, the busy ones by the
    thousand a second, and afterwards nothing is left of them.
    """
    tcp = serving.tcp()
    with Crowd(tcp.local[1], IDLE, BUSY, ROUNDS) as clients:
        assert clients.figures()["connected"] == IDLE + BUSY
        busy = clients.figures()
        assert busy["messages"] == BUSY * ROUNDS
        assert busy["seconds"] < 10
        eventually(lambda: serving.live == IDLE + BUSY, "all are served")
        with connect(tcp.local) as newcomer:
            assert echoed(newcomer)
        clients.go_on()
        assert clients.figures()["left"] == IDLE + BUSY
    closed = serving.told(Closed, IDLE + BUSY + 1)
    accepted = serving.so_far(Accepted)
    assert Counter(event.reason for event in closed) == {"client": IDLE + BUSY + 1}
    assert {event.connection for event in closed} == {event.connection for event in accepted}
    assert sum(event.bytes_sent for event in closed) == sum(
        (2 * IDLE, 2 * BUSY, BUSY * ROUNDS * len(crowd.MESSAGE), len(b"hello"))
    )
    assert serving.live == 0
