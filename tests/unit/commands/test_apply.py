"""Parts of `netsrvd apply` that need no systemd."""

import argparse
import os
import signal
from pathlib import Path

import pytest

from netsrvd.commands import apply
from netsrvd.config import files
from netsrvd.errors import SystemdError, UsageError
from netsrvd.startup import VALIDATORS
from netsrvd.systemd import saved
from netsrvd.systemd.plan import Host, Plan, Target
from netsrvd.systemd.saved import Saved

ALONE = argparse.Namespace(dry_run=False)


def test_nobody_else_can_hold_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can open a file can lock it: it is for its owner alone, also one of before."""
    lock = tmp_path / "lock"
    lock.touch(mode=0o644)
    monkeypatch.setattr(apply, "LOCK", lock)
    with apply._alone(ALONE):
        assert lock.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UsageError, match="another"), apply._alone(ALONE):
            pass


def test_what_is_in_force_is_not_undone_as_it_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk after a rollback: the files stay those that the service has read."""
    kept = Saved(tmp_path, "netsrvd.toml", (), {}, "then")
    host = Host((Target("netsrvd.service"),), {})
    made = Plan((), (), {}, (), "", has_new_drop_in=False, serving=(), kept=(), sockets=())
    configuration = files.load(None, VALIDATORS)
    main = tmp_path / "netsrvd.toml"
    work = apply.Work(configuration, main, {str(main): b""}, host, made, (), {}, (), (), ())
    calls: list[str] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(apply, "look", lambda *_: host)
    monkeypatch.setattr(apply, "_work", lambda _: work)
    monkeypatch.setattr(saved, "read", lambda *_: kept)
    monkeypatch.setattr(saved, "files", lambda path: {str(path): b""})
    monkeypatch.setattr(saved, "put_back", lambda *_: calls.append("put back"))
    monkeypatch.setattr(saved, "put_back_undone", lambda *_: calls.append("undone"))
    monkeypatch.setattr(saved, "save", full)
    with pytest.raises(SystemdError, match=r"in force, but not kept .*: .*No space left"):
        apply._roll_back(argparse.Namespace(dry_run=False, json=False))
    assert calls == ["put back"]


def test_files_that_change_meanwhile_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were neither checked nor put into force: the next call must not find them in force."""
    main = tmp_path / "netsrvd.toml"
    main.write_text("idle_exit = 7")
    host = Host((Target("netsrvd.service", is_running=True),), {}, config=main)
    monkeypatch.setattr(apply.comparison, "obstacles", lambda *_: ())
    monkeypatch.setattr(apply.firewall, "hints", lambda _: [])
    monkeypatch.setattr(apply, "look", lambda *_: host)
    monkeypatch.setattr(saved, "STATE", tmp_path / "state")
    monkeypatch.setattr(apply.Execution, "run", lambda _: main.write_text("idle_exit = 8"))
    with pytest.raises(SystemdError, match="changed meanwhile; run `netsrvd apply` again"):
        apply._apply(argparse.Namespace(dry_run=False, json=False), host)
    assert saved.read() is None


def test_a_rollback_that_is_interrupted_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the first unit is changed: a terminal that goes away does not end it, SIGTERM
    puts the files back.
    """
    kept = Saved(tmp_path, "netsrvd.toml", (), {}, "then")
    calls: list[str] = []

    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        calls.append("goes on")
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("SIGTERM was ignored")

    monkeypatch.setattr(apply, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(apply, "look", lambda *_: Host((Target("netsrvd.service"),), {}))
    monkeypatch.setattr(apply, "_apply", interrupted)
    monkeypatch.setattr(saved, "read", lambda *_: kept)
    monkeypatch.setattr(saved, "files", lambda path: {str(path): b""})
    monkeypatch.setattr(saved, "put_back", lambda *_: calls.append("put back"))
    monkeypatch.setattr(saved, "put_back_undone", lambda *_: calls.append("undone"))
    before = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        apply.run(argparse.Namespace(dry_run=False, json=False, rollback=True))
    assert calls == ["put back", "goes on", "undone"]
    assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("state", "commands"),
    [("activating", ["reload", "restart"]), ("inactive", ["reload", "restart"])],
)
def test_a_service_that_waits_for_its_next_try_is_restarted(
    monkeypatch: pytest.MonkeyPatch, state: str, commands: list[str]
) -> None:
    """Its last start has failed: systemd cannot reload it, and the files may be right by now."""
    assert reloaded(monkeypatch, state) == commands


def test_a_reload_that_fails_is_no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service goes on with the old configuration, and its reasons are told."""
    with pytest.raises(SystemdError, match=r"(?s)still in force: reload failed.*a fault"):
        reloaded(monkeypatch, "active")


def reloaded(monkeypatch: pytest.MonkeyPatch, state: str) -> list[str]:
    """Reload a service in this state, which fails; return the commands for systemd."""
    commands: list[str] = []

    def command(verb: str, _service: str) -> None:
        commands.append(verb)
        if verb == "reload":
            raise SystemdError("reload failed")

    monkeypatch.setattr(apply.systemctl, "command", command)
    monkeypatch.setattr(apply.systemctl, "show", lambda *_: [{"ActiveState": [state]}])
    monkeypatch.setattr(apply.systemctl, "reasons", lambda *_: ["a fault"])
    apply._reload("netsrvd.service")
    return commands
