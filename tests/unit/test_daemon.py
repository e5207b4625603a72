"""netsrvd.daemon: what it does with signals, on a house that is none"""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netsrvd import daemon
from netsrvd.assembly import prepare_services
from netsrvd.config import changes
from netsrvd.counters import Counters
from netsrvd.daemon import RELOAD, WAKE, Daemon, Start
from netsrvd.errors import SocketError
from netsrvd.events import Event
from netsrvd.events.life import Ready, Reloaded, ReloadFailed, Starting, Stopped, Stopping
from netsrvd.events.sockets import FamilyMissing
from netsrvd.services.base import Present
from netsrvd.settings import Settings
from tests.support.reports import Reports

TERM, INT = signal.SIGTERM, signal.SIGINT


class FakeHouse:
    """A house without threads."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.report = Reports()
        self.reporter = SimpleNamespace(lost=5)
        self.failures: list[str] = []
        self.workers = [object()]
        self.adopted: set[tuple[str, str]] = set()
        self.connections = self.flows = 0
        self.all_duties = [SimpleNamespace(pulse=0, ping=self.pinged)]
        self.pings: list[int] = []
        self.start_error: Exception | None = None

    @property
    def drained(self) -> bool:
        return not self.connections

    def pinged(self, number: int) -> None:
        self.pings.append(number)

    def counters(self) -> Counters:
        return Counters(accepted=9, refused=2, bytes_sent=3)

    def duties(self) -> list[Any]:
        return self.all_duties

    def failed(self, name: str, error: BaseException) -> None:
        self.failures.append(f"thread {name} failed: {error!r}\n")

    def start(self) -> None:
        self.steps.append("start")
        if self.start_error:
            raise self.start_error

    def apply(self, plan: changes.Plan, *_: object) -> None:
        self.steps.append(f"apply {','.join(plan.changed)}")

    def stop_listening(self) -> None:
        self.steps.append("stop listening")

    def stop_workers(self) -> int:
        self.steps.append("stop workers")
        return self.connections

    def stop_reporting(self) -> None:
        self.steps.append("stop reporting")


class FakeNotifier:
    """A service manager that notes what it is told."""

    watchdog_seconds = 0.0

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *text: self.steps.append(f"{name} {' '.join(map(str, text))}".strip()[:40])


class Stage:
    """A daemon that gets the signals that the test gives it, one a wait."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.steps: list[str] = []
        self.house, self.notifier = FakeHouse(self.steps), FakeNotifier(self.steps)
        self.signals: list[int | None] = []
        self.waits: list[float] = []
        self.config = folder / "netsrvd.toml"
        self.config.write_text("")
        patch.setattr(daemon, "House", lambda *_: self.house)
        patch.setattr(daemon, "Notifier", lambda: self.notifier)
        patch.setattr(daemon, "_wait", self.wait)
        notes: list[Event] = [FamilyMissing("a", "tcp", "IPv6")]
        services = prepare_services(Settings(), Present())
        start = Start(Settings(), self.config, {}, services, 9, notes, "x", 0.0)
        self.daemon = Daemon(start, lambda: self.steps.append("ready to detach"))

    def wait(self, seconds: float) -> int | None:
        self.waits.append(seconds)
        return self.signals.pop(0)

    def run(self, *signals: int | None) -> int:
        self.signals = list(signals)
        status = self.daemon.run()
        assert not self.signals
        return status

    @property
    def kinds(self) -> list[str]:
        return self.house.report.kinds

    def said(self, kind: type) -> Any:
        [event] = [event for event in self.house.report.events if isinstance(event, kind)]
        return event


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Stage(monkeypatch, tmp_path)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(("number", "name"), [(TERM, "SIGTERM"), (INT, "SIGINT")])
def test_from_start_to_stop(stage: Stage, number: int, name: str) -> None:
    """Records and notifications come in the order of the story, and a stop by signal succeeds."""
    assert stage.run(number) == os.EX_OK
    assert stage.kinds == ["Starting", "FamilyMissing", "Ready", "Stopping", "Stopped"]
    assert stage.said(Starting).pid == os.getpid()
    assert stage.said(Ready).workers == 1
    assert stage.said(Stopping).signal == name
    assert [step.split(" Serving")[0] for step in stage.steps] == [
        *("start", "ready", "ready to detach", f"stopping Stopping on {name} 30.0"),
        *("stop listening", "stop workers", "stop reporting", "close"),
    ]
    stopped = stage.said(Stopped)
    assert (stopped.accepted, stopped.refused, stopped.bytes_sent) == (9, 2, 3)
    assert (stopped.drained, stopped.cut, stopped.records_lost) == (0, 0, 5)


def test_the_watchdog_is_fed_while_all_threads_answer(stage: Stage) -> None:
    """Each tick asks all threads; the next one feeds the watchdog if all have answered."""
    [duty] = stage.house.all_duties

    def answer(number: int) -> None:
        duty.pulse = number

    duty.ping = answer
    stage.run(None, None, None, TERM)
    assert stage.steps.count("alive") == 3
    assert duty.pulse == 3


def test_the_watchdog_starves_when_one_thread_is_stuck(stage: Stage) -> None:
    """A thread that does not turn has systemd restart the daemon; it is asked on and on."""
    stage.run(None, None, None, TERM)
    assert stage.steps.count("alive") == 1
    assert stage.house.pings == [1, 1, 1]


def test_a_thread_of_a_reload_is_asked_too(stage: Stage) -> None:
    """A thread that was started later has not heard the number yet, and may not starve it."""
    pulses: list[SimpleNamespace] = stage.house.all_duties

    def add_one() -> None:
        duty = SimpleNamespace(pulse=0)
        duty.ping = lambda number: setattr(duty, "pulse", number)
        pulses.append(duty)

    pulses.clear()
    add_one()
    stage.run(None, None, WAKE, TERM)
    add_one()
    stage.steps.clear()
    for _ in range(3):
        stage.daemon._tick()
    assert stage.steps.count("alive") == 2


@pytest.mark.parametrize(("watchdog", "tick"), [(0.0, 5.0), (8.0, 2.0), (60.0, 5.0)])
def test_a_tick_fits_the_watchdog(stage: Stage, watchdog: float, tick: float) -> None:
    """Four ticks to each of the watchdog's terms, and one every five seconds at least."""
    stage.notifier.watchdog_seconds = watchdog
    stage.run(TERM)
    assert stage.waits == [tick]


def test_the_status_line_has_live_figures(stage: Stage) -> None:
    """`systemctl status` shows who is served, and what was."""
    stage.house.connections, stage.house.flows = 1, 2
    assert stage.daemon._status() == (
        "Serving 1 connections and 2 flows; 9 connections accepted, 2 refused, 0 datagrams, "
        "5 records lost"
    )


def test_a_reload_puts_new_settings_into_force(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP reads the file again; systemd hears when it begins and when it is done."""
    notes = [FamilyMissing("b", "udp", "IPv4")]
    monkeypatch.setattr(daemon, "bind_all", lambda _: ({}, notes))
    stage.config.write_text('workers = 2\n[log]\nlevel = "debug"')
    assert stage.run(RELOAD, RELOAD, TERM) == os.EX_OK
    assert stage.kinds[3:7] == ["FamilyMissing", "Reloaded", "FamilyMissing", "Reloaded"]
    first = stage.house.report.events[4]
    assert first == Reloaded("workers, log.level", "workers")
    assert stage.house.report.events[6] == Reloaded("", "")
    begin = stage.steps.index("reloading")
    assert stage.steps[begin + 1] == "apply workers,log.level"
    assert stage.steps[begin + 2].startswith("ready Serving")


def test_a_reload_that_fails_changes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fault in the files or a socket that cannot be opened, the old settings stay."""
    stage.config.write_text("workers = -1")

    def bind_all(_: object) -> None:
        raise SocketError("in use")

    monkeypatch.setattr(daemon, "bind_all", bind_all)
    assert stage.run(RELOAD, TERM) == os.EX_OK
    assert "workers = -1: expected a whole number" in stage.said(ReloadFailed).reason
    assert not [step for step in stage.steps if step.startswith("apply")]
    assert "ready Reload failed, the old configurati" in stage.steps
    stage.house.report.events.clear()
    stage.config.write_text("workers = 2")
    stage.daemon._reload()
    assert stage.said(ReloadFailed).reason == "in use"


def test_a_drain_ends_with_the_last_connection(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop waits for live connections; each that ends wakes it; who drained is counted."""
    stage.house.connections = 2
    look = stage.wait

    def wait(seconds: float) -> int | None:
        stage.house.connections -= len(stage.waits) > 0
        return look(seconds)

    monkeypatch.setattr(daemon, "_wait", wait)
    assert stage.run(TERM, WAKE, RELOAD) == os.EX_OK
    assert (stage.said(Stopping).connections, stage.said(Stopping).drain_seconds) == (2, 10.0)
    assert (stage.said(Stopped).drained, stage.said(Stopped).cut) == (2, 0)


def test_a_second_signal_ends_the_drain(stage: Stage) -> None:
    """Who does not want to wait asks again; what is left is cut off and counted."""
    stage.house.connections = 2
    assert stage.run(TERM, INT) == os.EX_OK
    assert (stage.said(Stopped).drained, stage.said(Stopped).cut) == (0, 2)
    assert 9 < stage.waits[1] <= 10


def test_a_drain_ends_with_its_time(stage: Stage) -> None:
    """Connections that do not end by themselves are cut off when the time is up."""
    stage.house.connections = 1
    stage.daemon._drain(deadline=0.0)
    assert stage.waits == []


def test_a_failed_thread_ends_the_daemon(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure wakes the main thread: no drain, a failure status, the traceback on stderr."""
    stage.house.connections = 1
    stage.house.failures.append("thread worker 1 failed: a bug\n")
    assert stage.run(WAKE) == os.EX_SOFTWARE
    assert stage.said(Stopping).signal == "failure"
    assert len(stage.waits) == 1
    assert capsys.readouterr().err == "thread worker 1 failed: a bug\n"


def test_a_failure_of_the_main_thread_is_one_like_any_other(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong in the main thread ends in order, too."""
    stage.house.start_error = ZeroDivisionError("a bug")
    assert stage.run() == os.EX_SOFTWARE
    assert "thread main failed: ZeroDivisionError('a bug')" in capsys.readouterr().err
    assert stage.steps[-2:] == ["stop reporting", "close"]


def test_signals_wait_until_they_are_asked_for(stage: Stage) -> None:
    """They are blocked before any thread starts, and all descriptors allowed are used."""
    stage.run(TERM)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {TERM, INT, RELOAD, WAKE}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard


def test_waking_is_a_signal_to_ourselves() -> None:
    """Any thread can make the main thread look around; none within the time is None."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, daemon.SIGNALS)
    try:
        assert daemon._wait(0) is None
        daemon.wake_main()
        assert daemon._wait(10) == WAKE
        assert daemon._wait(-1) is None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
