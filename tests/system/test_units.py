"""What the units promise on a real Debian, beyond serving."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.lifecycle import Stopping
from netsrvd.events.log import RecordsLost
from tests.support.installed import SERVICE, configure, is_active, main_pid, shown, talk, tidy_up
from tests.support.machine import Machine
from tests.support.patience import eventually

PAUSE_SECONDS = 61
"""A pause of a host for a snapshot, as promised by WatchdogSec= in the unit."""

VISITS = 8000
BURST = f"""
import socket
for _ in range({VISITS}):
    with socket.create_connection(("127.0.0.1", 51423)) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
"""
USUAL_LIMIT = "[Journal]\nRateLimitIntervalSec=30s\nRateLimitBurst=500\n"
"""journald allows up to six times that where much disk space is free: 3,000 records."""

EXAMPLE = Path(__file__).parents[2] / "packaging/examples/log-namespace.conf"


@contextmanager
def drop_in(machine: Machine, text: str) -> Iterator[None]:
    """Give netsrvd.service a drop-in meanwhile."""
    folder = f"/run/systemd/system/{SERVICE}.d"
    machine.run("mkdir", "-p", folder)
    machine.run("sh", "-c", f"cat >{folder}/test.conf", input=text)
    machine.run("systemctl", "daemon-reload")
    yield
    machine.run("rm", "-r", folder)
    machine.run("systemctl", "daemon-reload")


@pytest.fixture
def escaped(installed: Machine) -> Iterator[str]:
    """Return the name of an instance, without its type, that systemd escapes."""
    installed.run("systemctl", "stop", "netsrvd.socket", SERVICE)
    name = "netsrvd@" + installed.run("systemd-escape", "lan-2").stdout.strip()
    assert "\\" in name
    yield name
    installed.run("systemctl", "stop", f"{name}.socket", f"{name}.service")
    tidy_up(installed)


def test_systemd_has_nothing_to_say_about_the_installed_units(installed: Machine) -> None:
    """systemd knows each directive, those of newer versions are used where it knows them, and no
    directive is left out.
    """
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "start", SERVICE)
    said = [record["MESSAGE"] for record in installed.journal("_PID=1")]
    assert [each for each in said if "netsrvd" in each and "system/netsrvd" in each] == []
    is_new = installed.suite != "bookworm"
    for unit in (SERVICE, "netsrvd@1.service"):
        assert shown(installed, "RestartSteps", unit) == ("5" if is_new else "")
        assert shown(installed, "BindLogSockets", unit) == ("yes" if is_new else "")
        paths = shown(installed, "BindReadOnlyPaths", unit).split()
        places = [each.split(":")[1] for each in paths if each.startswith("/run/systemd/journal:")]
        assert places == ["/run/journal" if is_new else "/run/systemd/journal"]


def test_an_escaped_instance_name_works(installed: Machine, escaped: str) -> None:
    """An instance whose name systemd escapes starts, serves, reloads, and hands its connections
    over at a restart.
    """
    service = f"{escaped}.service"
    installed.run("systemctl", "start", f"{escaped}.socket")
    assert talk(installed, "tcp", "hello") == "hello"
    assert main_pid(installed, service)
    installed.run("systemctl", "reload", service)
    installed.run("systemctl", "restart", service)
    assert talk(installed, "tcp", "again") == "again"
    [stop] = installed.journal(f"MESSAGE_ID={Stopping.MESSAGE_ID}", f"_SYSTEMD_UNIT={service}")
    assert stop["NETSRVD_PURPOSE"] == "restart"


def test_instances_come_and_go_side_by_side(installed: Machine, escaped: str) -> None:
    """One that stops takes nothing away from another one, though both have the same root."""
    pair = [f"{escaped}.service", "netsrvd@lan.service"]
    installed.run("systemctl", "start", *pair)
    for gone, stays in (pair, pair[::-1]):
        installed.run("systemctl", "stop", gone.replace(".service", ".socket"), gone)
        assert talk(installed, "tcp", "hello") == "hello"
        installed.run("systemctl", "reload", stays)
        installed.run("systemctl", "start", gone)
    installed.run("systemctl", "stop", "netsrvd@lan.socket", "netsrvd@lan.service")


def test_no_record_is_missing_after_a_burst(quiet: Machine) -> None:
    """journald's own limit on records does not hold for the daemon: each of two records a
    connection is in the journal, of many more than that limit allows.
    """
    quiet.run("mkdir", "-p", "/run/systemd/journald.conf.d")
    quiet.run("sh", "-c", "cat >/run/systemd/journald.conf.d/limit.conf", input=USUAL_LIMIT)
    quiet.run("systemctl", "restart", "systemd-journald.service")
    configure(quiet, '[log]\nwhen_full = "wait"\n')
    quiet.run("systemctl", "start", SERVICE)
    run = f"_SYSTEMD_INVOCATION_ID={shown(quiet, 'InvocationID')}"

    quiet.run("python3", "-c", BURST)

    quiet.run("systemctl", "stop", SERVICE)
    for kind, count in ((Accepted, VISITS), (Closed, VISITS), (RecordsLost, 0)):
        assert len(quiet.journal(run, f"MESSAGE_ID={kind.MESSAGE_ID}")) == count, kind
    quiet.run("rm", "-r", "/run/systemd/journald.conf.d")
    quiet.run("systemctl", "restart", "systemd-journald.service")


def test_records_go_to_a_journal_of_their_own(quiet: Machine) -> None:
    """With LogNamespace= they are in the journal of that namespace, and in no other."""
    text = EXAMPLE.read_text()
    if quiet.suite == "bookworm":  # as the example says
        text = re.sub(r"(?m)^#(?=\w)", "", text)
    with drop_in(quiet, text):
        quiet.run("systemctl", "restart", SERVICE)
        assert talk(quiet, "tcp", "hello") == "hello"
        quiet.run("systemctl", "stop", SERVICE)
        accepted = f"MESSAGE_ID={Accepted.MESSAGE_ID}"
        before = len(quiet.journal(accepted))
        quiet.run("systemctl", "restart", SERVICE)
        assert talk(quiet, "tcp", "hello") == "hello"
        quiet.run("systemctl", "stop", SERVICE)
        quiet.run("journalctl", "--namespace=netsrvd", "--sync")
        assert len(quiet.journal("--namespace=netsrvd", accepted)) == 2
        assert len(quiet.journal(accepted)) == before


def test_a_pause_of_the_host_does_not_end_the_daemon(quiet: Machine) -> None:
    """After all processes of the machine, systemd too, have stood still for a minute, as for a
    snapshot, the same daemon goes on.
    """
    quiet.run("systemctl", "start", SERVICE)
    pid = main_pid(quiet)
    with quiet.paused():
        time.sleep(PAUSE_SECONDS)  # systemd's clock goes on meanwhile: the pause is what is tested
    assert talk(quiet, "tcp", "hello") == "hello"
    eventually(lambda: is_active(quiet, SERVICE), "systemd has looked at its timers")
    assert main_pid(quiet) == pid
    assert shown(quiet, "NRestarts") == "0"


HOLD = """
import socket, time
from systemd.daemon import notify
with socket.create_server(("127.0.0.1", 51423)):
    notify("READY=1")
    time.sleep(3600)
"""


def test_a_port_in_use_is_told_in_the_status(quiet: Machine) -> None:
    """While another program has the port, `systemctl status` says so between the tries, which come
    ever more rarely where systemd can; when the port is free again, the service starts.
    """
    quiet.run("systemctl", "stop", "netsrvd.socket", SERVICE)
    run = ["systemd-run", "--quiet", "--unit=other", "--service-type=notify"]
    quiet.run(*run, "python3", "-c", HOLD)
    assert quiet.run("systemctl", "start", SERVICE, check=False).returncode != 0
    eventually(lambda: int(shown(quiet, "NRestarts")) >= 1, "it is tried again")
    told = re.compile(r'Status: "Not started: listener echo: tcp .*51423 is already in use')

    def status() -> str:
        return quiet.run("systemctl", "status", SERVICE, check=False).stdout

    eventually(lambda: told.search(status()), "the reason, until the next try begins")
    delay = shown(quiet, "RestartUSecNext")  # empty before systemd 254
    quiet.run("systemctl", "stop", "other.service")
    assert delay == "" if quiet.suite == "bookworm" else delay not in {"", "2s"}
    assert main_pid(quiet)
    assert shown(quiet, "StatusText").startswith("Serving 0 connections")
