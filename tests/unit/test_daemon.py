"""netsrvd.daemon: what it does with signals; tests/functional has the running program"""

import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netsrvd import daemon, preload
from netsrvd.daemon import RELOAD, RESTART, WAKE, Daemon, Start
from netsrvd.errors import ResourceError
from netsrvd.events import DEBUG, Event
from netsrvd.events.handover import ConnectionsRestored
from netsrvd.events.lifecycle import CodeMissing, Reloaded, Starting, Stopped, Stopping
from netsrvd.events.sockets import FamilyMissing
from netsrvd.handover import CONNECTION, PENDING, STATE, Restored
from netsrvd.linux.mounts import Outside
from netsrvd.run_state import ReloadRequest
from netsrvd.services.base import ServerView
from netsrvd.settings import Settings
from netsrvd.startup import prepare_services
from tests.support.fake_notifier import FakeNotifier
from tests.support.planned import configuration
from tests.support.server import Reported
from tests.support.threads import flushed

TERM, INT = signal.SIGTERM, signal.SIGINT


class Stage:
    """A daemon without sockets that gets the signals that the test gives it, one a wait."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.reported = Reported(patch)
        self.notifier = FakeNotifier()
        self.answers: list[tuple[str, tuple[str, ...]]] = []
        self.signals: list[int | None] = []
        self.waits: list[float] = []
        self.wakes = 0
        self.config = folder / "netsrvd.toml"
        self.config.write_text("")
        patch.setattr(daemon, "Notifier", lambda: self.notifier)
        patch.setattr(daemon, "wake_main", self.wake)
        patch.setattr(daemon, "wait_signal", self.wait)
        patch.setattr(daemon, "stop_waits", lambda: False)
        notes: list[Event] = [FamilyMissing("a", "tcp", "IPv6")]
        services = prepare_services(Settings(), ServerView())
        start = Start(
            configuration(Settings())._replace(path=self.config),
            {},
            services,
            9,
            notes,
            "x",
            0.0,
        )
        self.daemon = Daemon(start, None, lambda: self.notifier.steps.append("ready to detach"))
        self.daemon._is_loaded = True
        self.server = self.daemon._server

    def answer(self, problem: str, warnings: Sequence[str]) -> None:
        self.answers.append((problem, tuple(warnings)))

    def ask(self) -> None:
        """Have a caller wait for a reload."""
        self.server.reload_requests.add(ReloadRequest(Outside(), self.answer))

    def wake(self) -> None:
        self.wakes += 1

    def wait(self, seconds: float) -> int | None:
        self.waits.append(seconds)
        self.settle()
        return self.signals.pop(0)

    def settle(self) -> None:
        """Return when all threads have answered what they were asked."""
        for thread in self.server.threads():
            assert flushed(thread)

    def run(self, *signals: int | None) -> int:
        self.signals = list(signals)
        status = self.daemon.run()
        assert not self.signals
        return status

    def restored(self, restored: Restored) -> None:
        """Have the process before left something."""
        self.daemon._restored = restored

    @property
    def steps(self) -> list[str]:
        return self.notifier.steps


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    made = Stage(monkeypatch, tmp_path)
    yield made
    made.server.close_connections()
    made.server.stop_log()
    made.notifier.empty()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize(("number", "name"), [(TERM, "SIGTERM"), (INT, "SIGINT")])
def test_from_start_to_stop(stage: Stage, number: int, name: str) -> None:
    """Records and notifications come in the order of the story, and a stop by signal succeeds."""
    assert stage.run(number) == os.EX_OK
    assert stage.reported.kinds == ["Starting", "FamilyMissing", "Ready", "Stopping", "Stopped"]
    assert stage.reported.only(Starting).pid == os.getpid()
    assert stage.reported.only(Stopping).signal == name
    assert [step.split(" Serving")[0] for step in stage.steps] == [
        "ready",
        "ready to detach",
        f"stopping 30 Stopping on {name}",
        "close",
    ]
    stopped = stage.reported.only(Stopped)
    assert (stopped.drained, stopped.cut, stopped.records_lost) == (0, 0, 0)
    assert stage.reported.log.closed
    assert not stage.answers


def test_the_watchdog_is_fed_while_all_threads_answer(stage: Stage) -> None:
    """Each tick asks all threads; the next one feeds the watchdog if all have answered."""
    stage.run(None, None, None, TERM)
    assert stage.steps.count("feed_watchdog") == 3
    assert [thread.heartbeat for thread in stage.server.threads()] == [3]


def test_a_thread_of_a_reload_is_asked_too(stage: Stage) -> None:
    """A thread that was started later has not been asked for the number yet; it does not starve
    the watchdog for longer than a tick.
    """
    stage.run(None, None, WAKE, TERM)
    stage.steps.clear()
    late = SimpleNamespace(heartbeat=0)
    late.ping = lambda number: setattr(late, "heartbeat", number)
    stage.server.threads = lambda: [late]  # type: ignore[method-assign, list-item, return-value]
    for _ in range(3):
        stage.daemon._tick()
    assert stage.steps.count("feed_watchdog") == 2


@pytest.mark.parametrize(("watchdog", "tick"), [(0.0, 5.0), (8.0, 2.0), (60.0, 5.0)])
def test_a_tick_fits_the_watchdog(stage: Stage, watchdog: float, tick: float) -> None:
    """Four ticks to each of the watchdog's terms, and one every five seconds at least."""
    stage.notifier.watchdog_seconds = watchdog
    stage.run(TERM)
    assert stage.waits == [pytest.approx(tick, abs=0.1)]


def test_signals_do_not_keep_it_from_ticking(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody sends one, the watchdog is fed when it is due."""
    now = 1000.0

    def wait(seconds: float) -> int:
        nonlocal now
        assert seconds <= daemon.TICK_SECONDS
        stage.settle()
        now += 0.5
        return WAKE if now < 1020 else TERM

    monkeypatch.setattr(daemon, "wait_signal", wait)
    monkeypatch.setattr(daemon, "monotonic", lambda: now)
    stage.daemon.run()
    assert stage.daemon._ping == 3


def test_a_reload_puts_new_settings_into_force(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP reads the file again; systemd hears when it begins and when it is done."""
    notes = [FamilyMissing("b", "udp", "IPv4")]
    monkeypatch.setattr(daemon, "bind_again", lambda *_, **__: ({}, [*notes]))
    stage.config.write_text('[log]\nlevel = "debug"\nqueue = 1000')
    stage.ask()
    assert stage.run(RELOAD, RELOAD, TERM) == os.EX_OK
    kinds = ["FamilyMissing", "Reloaded", "FamilyMissing", "Reloaded"]
    assert stage.reported.kinds[3:7] == kinds
    first, second = stage.reported.all(Reloaded)
    assert first == Reloaded("log.level, log.queue", "log.queue")
    assert second == Reloaded("", "")
    assert stage.server.log_writer.level == DEBUG
    begin = stage.steps.index("reloading")
    assert stage.steps[begin + 1].startswith("ready Serving")
    assert stage.answers == [("", ())]


def test_a_caller_has_the_daemon_reload(stage: Stage) -> None:
    """It wakes the main thread, which answers it when systemd has heard of the result; one that
    comes when the daemon stops is told so.
    """
    stage.config.write_text("nonsense = 1")
    stage.ask()
    stage.ask()
    assert stage.wakes == 2
    assert stage.run(WAKE, WAKE, TERM) == os.EX_OK
    assert stage.reported.kinds.count("ReloadFailed") == 1
    problems = [problem for problem, _ in stage.answers]
    assert len(problems) == 2
    assert all("nonsense = 1: unknown key" in problem for problem in problems)
    stage.ask()
    assert "the daemon is stopping" in stage.answers[-1][0]


def test_a_failed_thread_ends_the_daemon(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """A failure wakes the main thread: no drain, a failure status, the traceback on stderr."""
    stage.server.failures.append("thread tcp failed: a bug\n")
    assert stage.run(WAKE) == os.EX_SOFTWARE
    stopping = stage.reported.only(Stopping)
    assert (stopping.signal, stopping.drain_seconds) == ("failure", 0.0)
    assert len(stage.waits) == 1
    assert capsys.readouterr().err == "thread tcp failed: a bug\n"


def test_a_failure_of_the_main_thread_is_one_like_any_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever goes wrong in the main thread ends in order, too."""

    def fail(_: Daemon) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(daemon, "wake_main", lambda: None)
    stage.server._wake = lambda: None
    monkeypatch.setattr(Daemon, "_watch", fail)
    assert stage.run() == os.EX_SOFTWARE
    assert "thread main failed: ZeroDivisionError('a bug')" in capsys.readouterr().err
    assert stage.reported.kinds[-1] == "Stopped"
    assert stage.steps[-1] == "close"


def test_a_start_without_a_thread_ends_in_order(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the error; what was started has ended."""

    def fail(**_: bool) -> None:
        raise ResourceError("no thread")

    monkeypatch.setattr(stage.server, "start", fail)
    with pytest.raises(ResourceError, match="no thread"):
        stage.run()
    assert stage.reported.only(Stopping).signal == "failure"
    assert stage.steps[-1] == "close"


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
        assert daemon.wait_signal(0) is None
        daemon.wake_main()
        assert daemon.wait_signal(10) == WAKE
        assert daemon.wait_signal(-1) is None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_the_switch_interval_is_short_while_the_main_thread_works() -> None:
    """And the usual one while it waits, for the threads that compute."""
    usual = sys.getswitchinterval()
    try:
        daemon.wait_signal(0)
        assert sys.getswitchinterval() == pytest.approx(daemon.QUICK_SWITCH_SECONDS)
    finally:
        sys.setswitchinterval(usual)


def test_what_the_process_before_left_goes_on(stage: Stage) -> None:
    """It is restored before READY, and the store forgets it: it is ours alone from then on. What
    is of no use is closed.
    """
    near, far = socket.socketpair()
    note = FamilyMissing("b", "tcp", "IPv6")
    stage.restored(Restored([], [("gone", near)], 1, 0.5, [note], {}))
    with far:
        assert stage.run(TERM) == os.EX_OK
        assert far.recv(1) == b""
    forgotten = [f"forget {name}" for name in (STATE, CONNECTION, f"{PENDING}gone")]
    assert stage.steps[:3] == forgotten
    assert stage.steps[3].startswith("ready")
    kinds = ["Starting", "FamilyMissing", "FamilyMissing", "ConnectionsRestored", "Ready"]
    assert stage.reported.kinds[:5] == kinds
    took_over = stage.reported.only(ConnectionsRestored)
    assert (took_over.connections, took_over.lost) == (0, 1)


def test_a_store_that_tells_nothing_is_emptied(stage: Stage) -> None:
    """Where what was handed over cannot be understood only that is told, and not for how long no
    client was served.
    """
    stage.restored(Restored([], [], 0, 0.0, [FamilyMissing("b", "tcp", "IPv6")], {}))
    stage.run(TERM)
    assert stage.steps[:2] == [f"forget {STATE}", f"forget {CONNECTION}"]
    assert stage.reported.kinds[:4] == ["Starting", "FamilyMissing", "FamilyMissing", "Ready"]


@pytest.mark.parametrize("signals", [(RESTART, TERM), (TERM,)])
def test_only_an_announced_restart_hands_over(stage: Stage, signals: tuple[int, ...]) -> None:
    """A stop that was announced to be a restart gives the connections away; any other drains."""
    stage.run(*signals)
    purpose = "restart" if RESTART in signals else "stop"
    assert stage.reported.only(Stopping).purpose == purpose


def test_a_reload_that_is_asked_for_hides_no_announcement(stage: Stage) -> None:
    """The signal that announces a restart comes while a caller waits: both are done."""
    stage.ask()
    stage.run(RESTART, TERM)
    [(problem, _)] = stage.answers  # with a warning where the host uses the port
    assert problem == ""
    assert stage.reported.only(Stopping).purpose == "restart"


def test_nothing_is_handed_to_a_faulty_configuration(stage: Stage) -> None:
    """The next process would not start, so connections are drained."""
    stage.config.write_text("nonsense = 1")
    stage.run(RESTART, TERM)
    assert stage.reported.only(Stopping).purpose == "stop"


def test_an_announcement_grows_old(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that comes much later is not the one that was announced."""
    monkeypatch.setattr(daemon, "RESTART_SECONDS", -1.0)
    stage.run(RESTART, TERM)
    assert stage.reported.only(Stopping).purpose == "stop"


def test_what_a_start_does_not_need_is_imported_soon_after(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first tick, a second after READY, and once; what cannot be imported is told."""
    monkeypatch.setattr(preload, "preload", lambda: [("netsrvd.handover", "SyntaxError()")])
    stage.daemon._is_loaded = False
    stage.run(None, None, TERM)
    assert stage.waits == [pytest.approx(1.0, abs=0.1), *[pytest.approx(5.0, abs=0.1)] * 2]
    assert stage.reported.only(CodeMissing) == CodeMissing("netsrvd.handover", "SyntaxError()")


def test_imports_that_find_no_descriptor_are_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients may have all of them for a while; it is no failure."""
    outcomes: list[Any] = [OSError(errno.EMFILE, "Too many open files"), []]

    def load() -> list[tuple[str, str]]:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return []

    monkeypatch.setattr(preload, "preload", load)
    stage.daemon._is_loaded = False
    assert stage.run(None, None, TERM) == os.EX_OK
    assert outcomes == []
