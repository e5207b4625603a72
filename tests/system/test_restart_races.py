"""What else is asked of systemd while a restart is under way, on a real Debian."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.handover import ConnectionsRestored
from netsrvd.events.lifecycle import NotHandedOver
from tests.support.installed import SERVICE, as_nobody, configure, drop_in, main_pid, shown
from tests.support.machine import Machine
from tests.support.patience import eventually
from tests.support.strangers import TAKE_TCP_PORT, TAKE_UDP_PORT

PATIENT = """
import itertools, socket, sys
sock = socket.create_connection(("127.0.0.1", 51423), timeout=60)
for line in itertools.chain(["first"], sys.stdin):
    sock.sendall(b"hello")
    assert sock.recv(5, socket.MSG_WAITALL) == b"hello"
    print("served", flush=True)
"""
"""A client that says something for each line of its input, and leaves at the end of that."""

SYSTEMCTL = """\
#!/bin/sh
case "$*" in
*list-jobs*)
    echo >>/run/asked
    count=$(wc -l </run/asked)
    [ "$count" -gt 1 ] || exit 1
    [ "$count" -gt 4 ] || exit 0
    ;;
esac
exec /srv/real/systemctl "$@"
"""
"""A systemctl that fails once and then says three times that there are no jobs."""

SLOW = """\
import os, time
while os.path.exists("/etc/netsrvd/gate"):
    time.sleep(0.01)
def handle(connection):
    pass
"""
"""A module whose import takes until a file is removed."""

CONFIGURATION = """\
drain_timeout = "{seconds}s"
[listener.echo]
[listener.slow]
port = 51424
protocols = "tcp"
service = "python:slow:handle"
"""


class Client:
    """A connection to the service from inside a machine."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._expect()

    def talk(self) -> None:
        """Say something and assert that it is answered."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._expect()

    def _expect(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == "served\n"


@contextmanager
def client(machine: Machine) -> Iterator[Client]:
    """Give a client that is being served; it leaves in the end."""
    command = machine.command("python3", "-c", PATIENT)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        yield Client(process)


def told(machine: Machine, kind: type) -> list[dict[str, str]]:
    """Return the records of one kind, of all runs."""
    return machine.journal(f"MESSAGE_ID={kind.MESSAGE_ID}")


def starts_slowly(machine: Machine, drain_seconds: float) -> None:
    """Start the service, and have each later start wait until `go_on`."""
    machine.run("mkdir", "-p", "/usr/local/lib/netsrvd")
    machine.run("tee", "/usr/local/lib/netsrvd/slow.py", input=SLOW)
    configure(machine, CONFIGURATION.format(seconds=drain_seconds))
    machine.run("systemctl", "start", SERVICE)
    machine.run("touch", "/etc/netsrvd/gate")


def restart_until_it_starts(machine: Machine) -> str:
    """Restart the service; return its new main process as soon as that is there."""
    before = shown(machine, "MainPID")
    machine.run("systemctl", "restart", "--no-block", SERVICE)

    def look() -> str:
        pid, state = shown(machine, "MainPID"), shown(machine, "SubState")
        return pid if state == "start" and pid not in {"0", before} and taken(pid) else ""

    def taken(pid: str) -> bool:
        """Whether Python runs the command, not systemd the steps before it, and blocks SIGTERM."""
        words = machine.run("cat", f"/proc/{pid}/cmdline", check=False).stdout.split("\0")
        status = machine.run("cat", f"/proc/{pid}/status", check=False).stdout
        blocked = status.partition("SigBlk:")[2].split()
        return "run" in words and bool(blocked and int(blocked[0], 16) & (1 << 14))

    return eventually(look, "a process that starts")


def go_on(machine: Machine) -> None:
    machine.run("rm", "-f", "/etc/netsrvd/gate")


@pytest.fixture
def slow(quiet: Machine) -> Iterator[Machine]:
    """Give a machine whose service may be made to start slowly."""
    yield quiet
    go_on(quiet)


def test_a_stop_while_the_next_process_starts_drains(slow: Machine) -> None:
    """Who was handed over is served until it leaves, and has the record of its end."""
    starts_slowly(slow, 30)
    with client(slow) as live:
        restart_until_it_starts(slow)
        slow.run("systemctl", "stop", "--no-block", SERVICE)
        eventually(lambda: shown(slow, "SubState") == "stop-sigterm", "the stop")
        go_on(slow)
        live.talk()
        assert shown(slow, "SubState") == "stop-sigterm"
    eventually(lambda: shown(slow, "SubState") == "dead", "its end")
    assert shown(slow, "Result") == "success"
    assert told(slow, ConnectionsRestored)[-1]["NETSRVD_LOST"] == "0"
    closed, accepted = told(slow, Closed)[-1], told(slow, Accepted)[-1]
    assert closed["NETSRVD_REASON"] == "client"
    assert closed["NETSRVD_CONNECTION"] == accepted["NETSRVD_CONNECTION"]


def test_a_restart_while_the_next_process_starts_loses_nobody(slow: Machine) -> None:
    """Systemd runs no ExecStop= then: what is left after the drain goes along all the same. A
    reload that comes as early ends nothing.
    """
    starts_slowly(slow, 1)
    with client(slow) as live:
        pid = restart_until_it_starts(slow)
        for name in ("SIGHUP", "SIGUSR1"):
            slow.run("kill", "-s", name, pid)
        slow.run("systemctl", "restart", "--no-block", SERVICE)
        eventually(lambda: shown(slow, "SubState") == "stop-sigterm", "the stop")
        go_on(slow)
        assert main_pid(slow, other_than=pid) != pid
        live.talk()
    assert shown(slow, "NRestarts") == "0"


def test_a_restart_that_systemd_says_late_is_one(quiet: Machine) -> None:
    """As long as it fails to answer, or knows of no job, it is asked again."""
    quiet.run("systemctl", "start", SERVICE)
    quiet.run("sh", "-c", "mkdir -p /srv/real && cp /usr/bin/systemctl /srv/real/")
    quiet.run("sh", "-c", "cat >/srv/systemctl && chmod 755 /srv/systemctl", input=SYSTEMCTL)
    with client(quiet) as live:
        pid = main_pid(quiet)
        try:
            quiet.run("mount", "--bind", "/srv/systemctl", "/usr/bin/systemctl")
            quiet.run("systemctl", "restart", SERVICE)
        finally:
            quiet.run("umount", "/usr/bin/systemctl")
        assert main_pid(quiet) != pid
        live.talk()


def test_restarts_during_a_reexec_of_systemd_lose_nobody(quiet: Machine) -> None:
    """Systemd forgets nothing then, but answers nothing for a while."""
    quiet.run("systemctl", "start", SERVICE)
    both = f"systemctl restart --no-block {SERVICE}; systemctl daemon-reexec"
    with client(quiet) as live:
        for _ in range(5):
            pid = main_pid(quiet)
            quiet.run("sh", "-c", both)
            assert main_pid(quiet, other_than=pid) != pid
            live.talk()


WAITING = """
import socket
with socket.create_connection(("127.0.0.1", 51423), timeout=60) as tcp:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(60)
    udp.sendto(b"udp", ("127.0.0.1", 51423))
    tcp.sendall(b"tcp")
    print("waits", flush=True)
    print(tcp.recv(3) + udp.recv(3), flush=True)
"""
"""A client that comes while no process serves."""


def test_no_other_user_takes_the_ports_of_a_service_without_socket_unit(slow: Machine) -> None:
    """While one process has ended and the next has not begun, clients wait and no other user gets
    the ports: the sockets are in the descriptor store. It is empty later.
    """
    slow.run("systemctl", "stop", "netsrvd.socket")
    starts_slowly(slow, 10)
    with client(slow) as live:
        restart_until_it_starts(slow)
        assert int(shown(slow, "NFileDescriptorStore")) == 4 + 2 + 2
        for script in (TAKE_UDP_PORT, TAKE_TCP_PORT):
            for host in ("0.0.0.0", "127.0.0.1", "::"):
                assert as_nobody(slow, script, host, "51423") == "EADDRINUSE"
        waiting = slow.command("python3", "-c", WAITING)
        with subprocess.Popen(waiting, stdout=subprocess.PIPE, text=True) as new:
            assert new.stdout
            assert new.stdout.readline() == "waits\n"
            go_on(slow)
            assert new.stdout.readline() == "b'tcpudp'\n"
        live.talk()
    eventually(lambda: shown(slow, "NFileDescriptorStore") == "0", "an empty store")
    slow.run("systemctl", "stop", SERVICE)
    assert as_nobody(slow, TAKE_UDP_PORT, "0.0.0.0", "51423") == "bound"


def test_two_restarts_at_once_lose_nobody(quiet: Machine) -> None:
    """Whatever the second one meets: a process that stops, one that starts, or one that serves."""
    configure(quiet, 'drain_timeout = "1s"\n')
    quiet.run("systemctl", "start", SERVICE)
    both = f"systemctl restart {SERVICE} & systemctl restart {SERVICE}; wait"
    with client(quiet) as live:
        for _ in range(5):
            quiet.run("sh", "-c", both)
            live.talk()
    assert shown(quiet, "NRestarts") == "0"


def test_a_store_that_refuses_loses_nobody(quiet: Machine) -> None:
    """A drop-in that has the store keep nothing, and does not tell the daemon: the connections are
    served until they end.
    """
    text = "[Service]\nFileDescriptorStoreMax=0\n"
    configure(quiet, 'drain_timeout = "30s"\n')
    with drop_in(quiet, text):
        quiet.run("systemctl", "start", SERVICE)
        pid = main_pid(quiet)
        with client(quiet) as live:
            quiet.run("systemctl", "restart", "--no-block", SERVICE)
            [told_why] = eventually(lambda: told(quiet, NotHandedOver), "its record")
            assert "FileDescriptorStoreMax=" in told_why["MESSAGE"]
            live.talk()
        assert main_pid(quiet, other_than=pid) != pid
        assert told(quiet, Closed)[-1]["NETSRVD_REASON"] == "client"
