"""Everything at once, for a while."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support import mixed_load
from tests.support.clients import serves
from tests.support.run import LOOPBACK, PATIENCE, Run, echo, free_port

LOAD_SECONDS = 40.0
RELOAD_SECONDS = 1.5
WARM_SECONDS = 10.0

ACCEPTED = re.compile(r" connected to \S+ \[(\S+)\]$")
CLOSED = re.compile(r" closed: (\w+), .* (\d+) bytes in, (\d+) out \[(\S+)\]$")


def _configurations(port: int, other: int) -> list[dict[str, object]]:
    """Return two, between which listeners come and go and limits change."""
    first = echo(port, flow_timeout=0.5) | {"log": {"when_full": "wait"}}
    second = echo(port, flow_timeout=1, max_flows=5, max_connections=5000, idle_timeout="5min")
    second["listener"] |= {"more": {"host": LOOPBACK, "port": other}}  # type: ignore[operator]
    return [first, second | {"log": {"when_full": "wait", "level": "debug"}}]


def _reload_until_over(run: Run, load: subprocess.Popen[str], other: int) -> tuple[int, list[int]]:
    """Reload as long as the load runs; return how often, and the memory seen after each reload."""
    began, memory = monotonic(), list[int]()
    configurations, reloads = _configurations(run.port, other), 0
    while load.poll() is None:
        again_at = began + (reloads + 1) * RELOAD_SECONDS
        run.wait(lambda at=again_at: monotonic() >= at or load.poll() is not None, "time to reload")
        run.configure(configurations[reloads % 2])
        run.send(signal.SIGHUP)
        reloads += 1
        run.wait_notice("READY", reloads + 1)
        if monotonic() - began > WARM_SECONDS:
            memory.append(run.memory_kb("VmRSS"))
    return reloads, memory


@pytest.mark.timeout(LOAD_SECONDS + 6 * PATIENCE)
def test_everything_at_once_leaves_nothing(start: Start, port: int) -> None:
    """Busy, idle, coming and going connections and datagrams, with a reload every 1.5 s: no
    byte is lost and nobody refused; memory, descriptors and threads are in the end what they were
    at the beginning; each connection has its two records, with exact figures.
    """
    other = free_port(port + 1)
    run = start(_configurations(port, other)[0])
    program = [sys.executable, mixed_load.__file__, str(port), str(LOAD_SECONDS)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as load:
        try:
            reloads, memory = _reload_until_over(run, load, other)
            assert load.stdout is not None
            done = Counter(json.loads(load.stdout.read()))
        finally:
            load.kill()
    assert load.returncode == 0
    assert reloads >= LOAD_SECONDS / RELOAD_SECONDS - 2
    assert serves(port)
    run.reload(_configurations(port, other)[0])
    clients = done["connections"] + done["visits"] + 2
    run.wait_line(" connected to ", clients)
    run.wait_line(" closed: ", clients)
    accepted = Counter(found[1] for line in run.lines if (found := ACCEPTED.search(line)))
    closed = {found[4]: found for line in run.lines if (found := CLOSED.search(line))}
    assert accepted == Counter(closed.keys())
    assert accepted.total() == clients
    assert {found[1] for found in closed.values()} == {"client"}
    assert all(found[2] == found[3] for found in closed.values())
    assert run.lines_with(" refused: ") == run.lines_with("<3>") == run.lines_with(" lost") == []
    assert memory[-1] <= memory[0] * 1.1, memory
    assert Path(f"/proc/{run.pid}").exists()
