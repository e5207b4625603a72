"""Clients that do not read what they are sent, and a kernel without memory for them."""

import re
import select
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support.patience import eventually
from tests.support.peers import connect, echoed, read_exactly, reset
from tests.support.run import echo
from tests.support.strace import injected, injecting

HOST = "127.0.0.1"

SILENT = 20
QUEUED_BYTES = 256 << 10
"""For each client: 0.15 MiB were measured, and 4 MiB without a limit on unsent bytes."""

STUCK_SECONDS = 0.3
"""A client that could send nothing for this time is stuck."""

REFUSED = 20
"""Calls of send(2) that take nothing."""

HANDLER = """
def talk(connection):
    while True:
        connection.send(bytes(100_000))
"""


def _queued_bytes(port: int) -> list[int]:
    """Return what the kernel has queued for sending on each connection of a port (SO_MEMINFO)."""
    command = ["ss", "--no-header", "--tcp", "--memory", "--numeric", "sport", "=", f":{port}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(each) for each in re.findall(r",w([0-9]+),", found)]


def _are_stuck(clients: Sequence[socket.socket]) -> bool:
    """Send what is taken; return whether no client can send any more."""
    for client in clients:
        with suppress(BlockingIOError):
            while True:
                client.send(bytes(1 << 16))
    return select.select([], clients, [], STUCK_SECONDS)[1] == []


def test_a_client_that_never_reads_costs_little_memory(start: Start, port: int) -> None:
    """Each of 20 clients that send without an end and read nothing keeps less than 256 KiB of the
    kernel's memory on our side.
    """
    run = start(echo(port, host=[HOST], write_timeout=60))
    with ExitStack() as stack:
        clients = [stack.enter_context(connect((HOST, port))) for _ in range(SILENT)]
        for client in clients:
            client.setblocking(False)
        eventually(lambda: _are_stuck(clients), "all are stuck")
        queued = _queued_bytes(port)
        assert len(queued) == SILENT
        assert 0 < min(queued) <= max(queued) < QUEUED_BYTES
        for client in clients:
            reset(client)
    run.wait_line(" closed: reset", SILENT)


@pytest.mark.parametrize(("service", "seconds"), [("echo", 1.5), ("chargen", 1.5)])
def test_a_kernel_without_memory_is_asked_with_pauses(
    start: Start, port: int, service: str, seconds: float
) -> None:
    """A socket that has room, says epoll, and takes nothing is tried again ten or twenty
    times a second, not as often as the processor can; then the client gets all.
    """
    run = start(echo(port, host=[HOST], service=service))
    fault = f"write:error=EAGAIN:when=2..{REFUSED + 1}"
    with connect((HOST, port)) as client, injected(run.pid, fault, client):
        began_at = monotonic()
        if service == "echo":
            assert echoed(client)
            assert echoed(client)
        else:
            read_exactly(client, 4_000_000)  # more than the kernel has had before
        assert monotonic() - began_at > seconds
    run.wait_line(" closed: ")
    run.end()


def test_a_handler_asks_a_kernel_without_memory_with_pauses(
    start: Start, port: int, tmp_path: Path
) -> None:
    """So does the thread of a handler."""
    (tmp_path / "talker.py").write_text(HANDLER)
    run = start(
        echo(port, host=[HOST], service="python:talker:talk"),
        under=injecting(tmp_path, f"sendto:error=EAGAIN:when=2..{REFUSED + 1}"),
        environment={"PYTHONPATH": str(tmp_path)},
    )
    with connect((HOST, port)) as client:
        began_at = monotonic()
        read_exactly(client, 150_000)
        assert monotonic() - began_at > 0.8
    run.wait_line(" closed: ")
    run.rest()  # the thread of the handler stays
