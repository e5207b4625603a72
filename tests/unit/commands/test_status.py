"""netsrvd.commands.status"""

import argparse
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from netsrvd import counters
from netsrvd.commands import status, thresholds
from netsrvd.commands.daemons import Found, SocketUnit
from netsrvd.commands.status import REMEDIES, Page, amount
from netsrvd.errors import ControlError

UNIT = Found(
    "netsrvd.service", "/run/netsrvd-control.sock", is_running=True, state="active (running)"
)


def report(**changed: Any) -> dict[str, Any]:
    """Return what a daemon says that serves nothing."""
    run = {"start_time": 0.0, "reload_success_time": 0.0, "connections_limit": 10}
    run |= {"log_records_lost": 0, "connections_lost": 0}
    listener = {"name": "echo", "service": "echo", "protocol": "tcp"}
    listener["addresses"] = [{"host": "::", "port": 7, "origin": "systemd", "problem": ""}]
    listener["gauges"] = {"connections": 2}
    listener["counters"] = vars(counters.Counters())
    return {
        "version": "1.2",
        "pid": 7,
        "seconds": 90_000.0,
        "configuration": "/etc/netsrvd/netsrvd.toml",
        "fault": "",
        "problems": [],
        "run": run,
        "connections": 2,
        "flows": 0,
        "rates": [],
        "listeners": [listener],
        "sources": [],
        "refused_sources": [],
        **changed,
    }


def text(found: Found, said: dict[str, Any] | None, *, coloured: bool = False) -> str:
    """Return the page about one daemon."""
    return "\n".join(Page(coloured=coloured).lines(found, said))


def test_each_reason_has_a_remedy() -> None:
    """What is refused stands there with what to do about it."""
    assert {*counters.REFUSED_REASONS, *counters.UNANSWERED_REASONS} == {*REMEDIES}


def test_a_daemon_that_is_fine() -> None:
    """What runs since when, its configuration and its listeners; nothing is in trouble."""
    said = text(UNIT, report())
    assert "netsrvd.service 1.2 runs since " in said
    assert "(1 d 1 h), PID 7" in said
    assert "Now: 2 of 10 connections, 0 flows" in said
    assert "echo      echo     tcp [::]:7  systemd     2" in said
    assert "Since the start" not in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("zone", "began", "read"),
    [
        ("UTC", "1970-01-01 00:00:00 +0000", "1970-07-01 00:00:00 +0000"),
        ("Asia/Kolkata", "1970-01-01 05:30:00 +0530", "1970-07-01 05:30:00 +0530"),
        ("America/New_York", "1969-12-31 19:00:00 -0500", "1970-06-30 20:00:00 -0400"),
    ],
)
def test_times_say_their_zone(
    monkeypatch: pytest.MonkeyPatch, zone: str, began: str, read: str
) -> None:
    """That of whom looks, as it was at that time of the year."""
    with monkeypatch.context() as here:
        here.setenv("TZ", zone)
        time.tzset()
        run = {**report()["run"], "reload_success_time": 181 * 86_400.0}
        said = text(UNIT, report(run=run))
    time.tzset()
    assert f"runs since {began} (1 d 1 h), PID 7" in said
    assert f"in force since {read}\n" in said


def test_faults_of_the_configuration() -> None:
    """A reload that failed, and what passed sockets do not put into force, with the remedies."""
    said = text(UNIT, report(fault="a.toml:1: bad\x1b", problems=["echo: port 7"]))
    assert "Reload failed, the old configuration is in force: a.toml:1: bad\\x1b" in said
    assert "run `netsrvd check`" in said
    assert "Not in force: echo: port 7" in said
    assert "Run `netsrvd apply`." in said


def test_what_is_refused_and_lost_has_its_remedy() -> None:
    """By listener and reason, with the number since the start."""
    said = report()
    said["listeners"][0]["counters"]["refused"] = {"access": 3, "rate": 0}
    said["run"]["log_records_lost"] = 5
    said = text(UNIT, said)
    assert f"echo tcp: 3 connections refused, access: {REMEDIES['access']}" in said
    assert "5 log records lost: " in said
    assert "rate" not in said


def test_nothing_runs() -> None:
    """With the state of the sockets: whether a client would start it."""
    stopped = UNIT._replace(is_running=False, state="inactive (dead)", since="today")
    sockets = SocketUnit("netsrvd.socket", "active"), SocketUnit("netsrvd-x.socket", "failed")
    said = text(stopped._replace(sockets=sockets), None)
    assert "netsrvd.service does not run: inactive (dead) since today" in said
    assert "listen, and start it when a client comes: netsrvd.socket" in said
    assert "do not listen: netsrvd-x.socket (failed)" in said
    none = stopped._replace(sockets=sockets[1:])
    assert "Nothing would start it: systemctl start netsrvd.service" in text(none, None)
    assert "as root shows the state of its sockets" in text(stopped, None)


def test_an_upgrade_is_told() -> None:
    """With what systemd was told last."""
    said = text(UNIT._replace(status="Serving 3"), {"problem": "restart it"})
    assert "runs; restart it" in said
    assert "Serving 3" in said


def test_colours_are_for_terminals() -> None:
    """On a terminal the state is green."""
    assert text(UNIT, report(), coloured=True).startswith("\x1b[32m●\x1b[0m")


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_amounts(count: int, shown: str) -> None:
    """Bytes in units of 1024."""
    assert amount(count) == shown


def test_a_daemon_does_not_wait_for_a_pager(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All connections are received before the first one is printed."""
    connection = {"listener": "echo", "id": "1-1", "proxy": "", "seconds": 1, "idle_seconds": 1}
    connection |= {"peer_address": "::1", "peer_port": 9, "local_address": "::1", "local_port": 7}
    connection |= {"bytes_received": 0, "bytes_sent": 0, "send_buffer_bytes": 0}
    printed: list[str] = []

    class Daemon:
        def replies(self, _method: str, **_chosen: object) -> Iterator[dict[str, Any]]:
            for _ in range(3):
                printed.append(capsys.readouterr().out)
                yield {"connection": connection}

    monkeypatch.setattr(status, "find", lambda _: [UNIT])
    monkeypatch.setattr(status, "asking", lambda _: nullcontext(Daemon()))
    arguments = argparse.Namespace(
        what="connections", listener=None, address=None, json=False, control=None, warn=[], crit=[]
    )
    assert status.run(arguments) == 0
    assert printed == ["", "", ""]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_name_that_begins_with_a_digit_is_no_number() -> None:
    """Columns of numbers are aligned to the right whatever the cells say, and no others."""
    row = {"source": "192.0.2.1", "listener": "7up", "protocol": "tcp", "live": 1}
    row |= {"bytes_received": 0, "bytes_sent": 0}
    other = {**row, "listener": "a-longer-name"}
    said = text(UNIT, report(sources=[row, other]))
    assert "\n192.0.2.1      7up tcp               1 " in said


def test_what_a_daemon_says_commands_no_terminal() -> None:
    """The socket that --control names may be that of anybody."""
    raw = "\x1b]0;title\x07"
    said = report(version=raw, configuration=raw, fault=raw, problems=[raw])
    [listener] = said["listeners"]
    listener |= {"name": raw, "service": raw}
    listener["counters"]["refused"] = {raw: 1}
    shown = text(UNIT, said) + text(UNIT, {"problem": raw})
    assert "\x1b" not in shown
    assert "\x07" not in shown


OTHER = UNIT._replace(name="netsrvd@2.service")


@pytest.fixture
def instances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two daemons, of which the second one does not answer."""

    class Daemon:
        def call(self, method: str, **_more: object) -> dict[str, Any]:
            if method != "Status":
                return {"sources": []}
            return report(run={"tcp_lag": 0, "udp_lag": 0, **report()["run"]}, totals=TOTALS)

    def asking(found: Found) -> Any:
        if found == OTHER:
            raise ControlError(f"{found.name}: no answer came in time; see its log")
        return nullcontext(Daemon())

    for module in (status, thresholds):
        monkeypatch.setattr(module, "find", lambda _: [UNIT, OTHER])
        monkeypatch.setattr(module, "asking", asking)


TOTALS: dict[str, Any] = {"refused": {}, "datagrams_refused": {}}


def ask(*, crit: list[str]) -> int:
    """Run the command."""
    arguments = {"what": None, "listener": None, "address": None, "json": False, "control": None}
    return status.run(argparse.Namespace(**arguments, warn=[], crit=crit))


@pytest.mark.usefixtures("instances")
def test_an_instance_that_does_not_answer_hides_no_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The status of the others is printed, and why it has none."""
    assert ask(crit=[]) == 0
    printed = capsys.readouterr().out
    assert "netsrvd.service 1.2 runs since " in printed
    assert "netsrvd@2.service runs; netsrvd@2.service: no answer came in time" in printed


@pytest.mark.usefixtures("instances")
@pytest.mark.parametrize(("crit", "expected"), [("connections=5", 3), ("connections=1", 2)])
def test_critical_is_worse_than_unknown(
    capsys: pytest.CaptureFixture[str], crit: str, expected: int
) -> None:
    """An instance that does not answer hides no alert of another one."""
    assert ask(crit=[crit]) == expected
    assert "no answer came in time" in capsys.readouterr().out
