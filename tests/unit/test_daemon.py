"""netsrvd.daemon: what it does with signals, on a house that is none"""

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netsrvd import daemon, handover, preload
from netsrvd.assembly import prepare_services
from netsrvd.daemon import FOLLOWED, RELOAD, WAKE, Daemon, Start
from netsrvd.errors import SocketError
from netsrvd.events import Event
from netsrvd.events.handover import TookOver
from netsrvd.events.life import (
    CodeMissing,
    NotHandedOver,
    Ready,
    Reloaded,
    ReloadFailed,
    Starting,
    Stopped,
    Stopping,
)
from netsrvd.events.sockets import FamilyMissing
from netsrvd.listeners.inherited import Inherited
from netsrvd.services.base import Present
from netsrvd.settings import Settings
from tests.support.fake_house import FakeHouse, FakeNotifier
from tests.support.planned import configuration

TERM, INT = signal.SIGTERM, signal.SIGINT


class Stage:
    """A daemon that gets the signals that the test gives it, one a wait."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.steps: list[str] = []
        self.house, self.notifier = FakeHouse(self.steps), FakeNotifier(self.steps)
        self.askers: Any = SimpleNamespace(waiting=lambda: ["asker"], close=lambda: None)
        self.answers: list[tuple[Any, str]] = []
        self.signals: list[int | None] = []
        self.waits: list[float] = []
        self.config = folder / "netsrvd.toml"
        self.config.write_text("")
        patch.setattr(daemon, "House", lambda *_: self.house)
        patch.setattr(daemon, "Notifier", lambda: self.notifier)
        patch.setattr(daemon, "Askers", lambda: self.askers)
        patch.setattr(daemon, "answer", self.answer)
        patch.setattr(daemon, "told_outside", lambda asker: None)
        patch.setattr(daemon, "wait_signal", self.wait)
        notes: list[Event] = [FamilyMissing("a", "tcp", "IPv6")]
        services = prepare_services(Settings(), Present())
        start = Start(
            configuration(Settings())._replace(path=self.config),
            {},
            services,
            9,
            notes,
            "x",
            None,
            0.0,
        )
        self.daemon = Daemon(start, lambda: self.steps.append("ready to detach"))
        self.daemon._is_loaded = True

    def answer(self, askers: Any, problem: str, warnings: Any = ()) -> None:
        self.answers.append((askers, problem))

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
        *(
            "start",
            "resume",
            "settle",
            "ready",
            "ready to detach",
            f"stopping Stopping on {name} 30.0",
        ),
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
    assert stage.waits == [pytest.approx(tick, abs=0.1)]


def test_signals_do_not_keep_it_from_ticking(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often somebody sends one, the watchdog is fed when it is due."""
    now = 1000.0

    def wait(seconds: float) -> int:
        nonlocal now
        assert seconds <= daemon.TICK_SECONDS
        now += 0.5
        return WAKE if now < 1020 else TERM

    monkeypatch.setattr(daemon, "wait_signal", wait)
    monkeypatch.setattr(daemon, "monotonic", lambda: now)
    stage.daemon.run()
    assert len(stage.house.pings) == 3


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
    monkeypatch.setattr(daemon, "bind_again", lambda *_, **__: ({}, [*notes]))
    stage.config.write_text('workers = 2\n[log]\nlevel = "debug"')
    assert stage.run(RELOAD, RELOAD, TERM) == os.EX_OK
    assert stage.kinds[3:7] == ["FamilyMissing", "Reloaded", "FamilyMissing", "Reloaded"]
    first = stage.house.report.events[4]
    assert first == Reloaded("workers, log.level", "workers")
    assert stage.house.report.events[6] == Reloaded("", "")
    begin = stage.steps.index("reloading")
    assert stage.steps[begin + 1] == "apply workers,log.level"
    assert stage.steps[begin + 2].startswith("ready Serving")
    assert stage.answers == [(["asker"], "")] * 2


def test_a_reload_that_fails_changes_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fault in the files or a socket that cannot be opened, the old settings stay."""
    stage.config.write_text("workers = -1")

    def bind_again(*_: object, **__: object) -> None:
        raise SocketError("in use")

    monkeypatch.setattr(daemon, "bind_again", bind_again)
    assert stage.run(RELOAD, TERM) == os.EX_OK
    assert "workers = -1: expected a whole number" in stage.said(ReloadFailed).reason
    assert not [step for step in stage.steps if step.startswith("apply")]
    assert "ready Reload failed, the old configurati" in stage.steps
    stage.house.report.events.clear()
    stage.config.write_text("workers = 2")
    stage.daemon._reload()
    assert stage.said(ReloadFailed).reason == "in use"
    assert stage.answers[-1] == (["asker"], "in use")


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
        assert daemon.wait_signal(0) is None
        daemon.wake_main()
        assert daemon.wait_signal(10) == WAKE
        assert daemon.wait_signal(-1) is None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def test_what_the_process_before_left_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections are adopted before anybody new is taken, and are ours alone from then on; by
    the new rules some may have to end.
    """
    monkeypatch.setattr(handover, "take_back", lambda _: stage.steps.append("take back"))
    stage.house.staff.update = lambda _: stage.steps.append("judge")
    left: Any = Inherited([object(), object()], [], 1, 0.5, [FamilyMissing("b", "tcp", "IPv6")])
    stage.daemon._start = stage.daemon._start._replace(inherited=left)
    assert stage.run(TERM, INT) == os.EX_OK
    assert stage.steps[:6] == ["start", "adopt 2", "take back", "resume", "settle", "judge"]
    assert stage.kinds[:5] == ["Starting", "FamilyMissing", "FamilyMissing", "TookOver", "Ready"]
    assert (stage.said(TookOver).connections, stage.said(TookOver).lost) == (2, 1)


def test_a_store_that_tells_nothing_is_emptied(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what was handed over cannot be understood, only that is told, and how long nobody was
    served is not.
    """
    monkeypatch.setattr(handover, "take_back", lambda _: stage.steps.append("take back"))
    stage.house.staff.update = lambda _: None
    left: Any = Inherited([], [], 0, 0.0, [FamilyMissing("b", "tcp", "IPv6")])
    stage.daemon._start = stage.daemon._start._replace(inherited=left)
    stage.run(TERM)
    assert stage.steps[:3] == ["start", "adopt 0", "take back"]
    assert stage.kinds[:4] == ["Starting", "FamilyMissing", "FamilyMissing", "Ready"]


@pytest.mark.parametrize("signals", [(FOLLOWED, TERM), (TERM,)])
def test_only_who_is_followed_hands_over(stage: Stage, signals: tuple[int, ...]) -> None:
    """A stop that was announced to be a restart gives the connections away; any other drains."""
    stage.notifier.store_room = 2
    stage.run(*signals)
    assert stage.said(Stopping).purpose == ("restart" if FOLLOWED in signals else "stop")


def test_nobody_follows_with_a_faulty_configuration(stage: Stage) -> None:
    """The next process would not start, so the connections are drained, and the reason is told."""
    stage.config.write_text("nonsense = 1")
    stage.house.connections = 1
    stage.run(FOLLOWED, TERM, TERM)
    assert stage.said(Stopping).purpose == "stop"
    assert "nonsense = 1: unknown key" in stage.said(NotHandedOver).reason


def test_an_announcement_grows_old(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop that comes much later is not the one that was announced."""
    monkeypatch.setattr(daemon, "FOLLOWED_SECONDS", -1.0)
    stage.run(FOLLOWED, TERM)
    assert stage.said(Stopping).purpose == "stop"


class Clock:
    """Seconds that pass when the daemon waits for a signal."""

    def __init__(self, stage: Stage) -> None:
        self.now = 1000.0
        look = stage.wait

        def wait(seconds: float) -> int | None:
            self.now += seconds
            return look(seconds)

        self.wait = wait


@pytest.fixture
def clock(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(stage)
    monkeypatch.setattr(daemon, "monotonic", lambda: made.now)
    monkeypatch.setattr(daemon, "wait_signal", made.wait)
    stage.daemon._settings = Settings(idle_exit_seconds=8.0)
    stage.daemon._busy_at = made.now
    return made


def test_who_is_idle_for_long_ends(stage: Stage, clock: Clock) -> None:
    """After so long without a client it looks once more, and ends with success."""
    assert stage.run(*[None] * 4) == os.EX_OK
    assert stage.said(Stopping).signal == "idle"
    assert stage.steps.count("pause") == 1
    assert stage.steps.count("resume") == 1  # of the start
    assert stage.waits == [2.0] * 4


def test_who_has_bound_a_socket_never_does(stage: Stage, clock: Clock) -> None:
    """Nobody would start it again."""
    stage.house.is_adopted = False
    stage.run(*[None] * 20, TERM)
    assert stage.said(Stopping).signal == "SIGTERM"
    assert "pause" not in stage.steps


@pytest.mark.parametrize("field", ["connections", "flows", "guests"])
def test_who_serves_is_not_idle(stage: Stage, clock: Clock, field: str) -> None:
    """A live connection or flow counts however silent it is, and so does who was not named yet."""
    setattr(stage.house, field, 1)
    stage.run(*[None] * 20, TERM, *[INT] * stage.house.connections)
    assert "pause" not in stage.steps


@pytest.mark.parametrize("field", ["came", "guests"])
def test_who_comes_at_the_last_moment_is_served(
    stage: Stage, clock: Clock, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Whoever was taken before the pause has the daemon go on, and count from then; so has who was
    not named yet.
    """

    def pause() -> None:
        stage.steps.append("pause")
        if stage.steps.count("pause") == 1:
            setattr(stage.house, field, 1)

    def resume() -> None:
        stage.steps.append("resume")
        stage.house.came += stage.house.guests  # its proxy has named it
        stage.house.guests = 0

    monkeypatch.setattr(stage.house, "resume", resume)
    monkeypatch.setattr(stage.house, "pause", pause)
    stage.run(*[None] * 9)
    assert stage.steps.count("pause") == 2
    assert stage.steps.count("resume") == 2  # with that of the start


def test_a_visit_that_fails_starves_the_watchdog(stage: Stage) -> None:
    """It is fed again when a visit has succeeded; between two of them there are other ticks."""
    stage.notifier.watchdog_seconds = 8.0
    duty = stage.house.all_duties[0]
    duty.ping = lambda number: setattr(duty, "pulse", number)
    stage.house.visits = [True, False, False, True]
    stage.run(*[None] * 8, TERM)
    seen = [step for step in stage.steps if step in ("visit", "alive")]
    assert seen == [
        *("visit", "alive", "alive", "alive"),
        *("visit", "visit", "visit", "alive", "alive", "alive"),
    ]


def test_without_a_watchdog_nobody_visits(stage: Stage) -> None:
    """A daemon that nobody watches has no need of it."""
    stage.run(*[None] * 8, TERM)
    assert "visit" not in stage.steps


def test_what_a_start_does_not_need_is_imported_soon_after(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first tick, a second after READY, and once; what cannot be imported is told."""
    monkeypatch.setattr(preload, "preload", lambda: [("netsrvd.handover", "SyntaxError()")])
    stage.daemon._is_loaded = False
    stage.run(None, None, TERM)
    assert stage.waits == [pytest.approx(1.0, abs=0.1), *[pytest.approx(5.0, abs=0.1)] * 2]
    assert stage.said(CodeMissing) == CodeMissing("netsrvd.handover", "SyntaxError()")
