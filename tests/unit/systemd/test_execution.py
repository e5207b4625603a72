"""The steps of a plan, and the way back, with a systemctl that only takes notes."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from netsrvd.errors import SystemdError
from netsrvd.systemd import execution, host, systemctl
from netsrvd.systemd.execution import Execution
from netsrvd.systemd.plan import Host, Plan, Steps, Target
from netsrvd.systemd.unit_files import MARK
from netsrvd.systemd.units import Unit

SERVICE, OLD, NEW = "netsrvd.service", "netsrvd-old.socket", "netsrvd-new.socket"


class Manager:
    """A systemd of one service, whose commands may fail or be interrupted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: list[tuple[str, ...]] = []
        self.state = "inactive"
        self.fails: dict[str, int] = {}
        """How many times each command fails."""
        self.kills: dict[str, int] = {}
        """How many times this process gets SIGTERM during each command."""
        self.files: list[set[str]] = []
        """The units that have files at each call."""

    def command(self, *argv: str) -> str:
        self.calls.append(argv)
        self.files.append({path.name for path in self.folder.iterdir()})
        if self.kills.get(argv[0], 0):
            self.kills[argv[0]] -= 1
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        if self.fails.get(argv[0], 0):
            self.fails[argv[0]] -= 1
            if argv[0] == "restart":
                self.state = "failed"
            raise SystemdError(f"{argv[0]} failed")
        return ""

    def show(self, units: Sequence[str], properties: Sequence[str]) -> list[systemctl.Properties]:
        states = [self.state if name == SERVICE else "active" for name in units]
        return [
            {"Id": [name], "ActiveState": [state], "MainPID": ["0"]}
            for name, state in zip(units, states, strict=True)
        ]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Handle signals as the command does."""
    with execution.signals_undo():
        yield


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    """Return a systemd that has its files in a folder of the test."""
    folder, runtime = tmp_path / "etc", tmp_path / "run"
    folder.mkdir()
    runtime.mkdir()
    found = Manager(folder)
    monkeypatch.setattr(execution, "FOLDER", folder)
    monkeypatch.setattr(host, "FOLDER", folder)
    monkeypatch.setattr(execution, "RUNTIME", runtime)
    monkeypatch.setattr(systemctl, "command", found.command)
    monkeypatch.setattr(systemctl, "show", found.show)
    monkeypatch.setattr(systemctl, "reasons", lambda *_: [])
    return found


def steps(*units: Unit, is_running: bool = False, **lists: tuple[str, ...]) -> Steps:
    """Return what is to be done for the service."""
    target = Target(SERVICE, is_running=is_running, units=units)
    return Steps(target, (), (), (), (), ())._replace(**lists)


def execute(each: Steps, write: dict[str, str] | None = None, remove: tuple[str, ...] = ()) -> None:
    made = Plan((), (each,), write or {}, remove, "", False, (), (), ())
    Execution(made, Host((each.target,), {})).run()


def test_a_removal_resets_no_unit_of_others(manager: Manager) -> None:
    """`systemctl reset-failed` without a name is for all units of the host."""
    (manager.folder / OLD).write_text(MARK)
    execute(steps(Unit(OLD, "loaded"), disable=(OLD,)), remove=(OLD,))
    assert not (manager.folder / OLD).exists()
    assert ("reset-failed",) not in manager.calls


def test_the_way_back_leaves_no_link_of_a_new_unit(manager: Manager) -> None:
    """systemd takes the links of a unit away only while there is a file of it."""
    manager.fails = {"daemon-reload": 1}
    with pytest.raises(SystemdError, match="as they were"):
        execute(steps(start=(NEW,), enable=(NEW,)), {NEW: MARK})
    place = manager.calls.index(("disable", "--no-reload", "--quiet", NEW))
    assert NEW in manager.files[place]
    assert not list(manager.folder.iterdir())


def test_the_way_back_leaves_no_link_of_a_changed_unit(manager: Manager) -> None:
    """What was enabled is so again by its old text alone."""
    old = b"# of before, \xe9\n"
    (manager.folder / OLD).write_bytes(old)
    manager.fails = {"daemon-reload": 1}
    unit = Unit(OLD, "loaded", "active", "enabled")
    with pytest.raises(SystemdError, match="as they were"):
        execute(steps(unit, stop=(OLD,), start=(OLD,), enable=(OLD,)), {OLD: MARK})
    enablings = [call for call in manager.calls if "enable" in call[0]]
    assert enablings == [("reenable", "--no-reload", "--quiet", OLD)] * 2
    assert (manager.folder / OLD).read_bytes() == old


def test_a_signal_does_not_end_the_way_back(manager: Manager) -> None:
    """Neither the first SIGTERM nor a second one leaves anything half-changed."""
    manager.kills = {"daemon-reload": 2}
    with pytest.raises(SystemdError, match="interrupted\nthe socket units are as they were"):
        execute(steps(start=(NEW,), enable=(NEW,)), {NEW: MARK})
    assert not list(manager.folder.iterdir())


def test_an_ignored_signal_stays_ignored() -> None:
    """A shell without job control has what runs in the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with execution.signals_undo():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_service_that_ran_runs_again(manager: Manager) -> None:
    """Its restart with the new sockets has failed, so it is restarted with the old ones."""
    manager.state = "active"
    manager.fails = {"restart": 1}
    with pytest.raises(SystemdError, match="as they were"):
        execute(steps(is_running=True, start=(NEW,), enable=(NEW,), sockets=(NEW,)), {NEW: MARK})
    assert manager.calls.count(("restart", SERVICE)) == 2


def test_a_full_disk_leaves_no_file(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the one that was to be renamed."""

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SystemdError, match="No space left"):
        execute(steps(start=(NEW,), enable=(NEW,)), {NEW: MARK})
    assert not list(manager.folder.iterdir())
