"""netsrvd.commands.reload, on a daemon that is a thread; tests/functional has real ones"""

import argparse
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from netsrvd.commands import daemons, reload
from netsrvd.control.listening import bind_private
from netsrvd.errors import ConfigError, ControlError, NetsrvdError, SystemdError, UsageError
from netsrvd.systemd import systemctl
from tests.support.patience import SECONDS

ME = os.getpid()


class Daemon:
    """A private control socket of this process, and what its callers are sent."""

    def __init__(self) -> None:
        control = bind_private()
        assert control
        self._control = control
        self._callers: list[socket.socket] = []
        self.calls: list[dict[str, Any]] = []
        self.answer: bytes | None = b'{"parameters":{"warnings":[]}}\0'
        """None for a daemon that never answers."""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._answer_one(self._control.sock.accept()[0])

    def _answer_one(self, caller: socket.socket) -> None:
        caller.settimeout(SECONDS)
        received = b""
        while not received.endswith(b"\0") and (data := caller.recv(65_536)):
            received += data
        self._callers.append(caller)
        if not received:
            return
        self.calls.append(json.loads(received[:-1]))
        if self.answer is not None:
            with caller, suppress(OSError):
                caller.sendall(self.answer)

    def fails(self, *reasons: str, error: str = reload.NOT_RELOADED) -> None:
        """Have it answer with an error."""
        message = {"error": error, "parameters": {"reasons": reasons} if reasons else {}}
        self.answer = json.dumps(message).encode() + b"\0"

    def close(self) -> None:
        self._control.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
        for sock in (self._control.sock, *self._callers):
            sock.close()
        with suppress(OSError):
            os.close(self._control.inode)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


def asked(pid: int | None = ME) -> int:
    return reload.run(argparse.Namespace(pid=pid))


def test_a_reload_that_went_well_is_a_success(daemon: Daemon) -> None:
    """The daemon is asked once, and told what is seen here."""
    assert asked() == os.EX_OK
    [call] = daemon.calls
    assert call["method"] == "io.netsrvd.Reload"
    assert call["parameters"]["directory"] == "/etc/netsrvd"
    assert call["parameters"]["system"]


def test_warnings_are_shown(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """A line each; it is a success all the same. What is not printable is shown as its escape."""
    warnings = ["one", "a\x1b[2Jb"]
    daemon.answer = json.dumps({"parameters": {"warnings": warnings}}).encode() + b"\0"
    assert asked() == os.EX_OK
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["netsrvd: warning: one", r"netsrvd: warning: a\x1b[2Jb"]


@pytest.mark.parametrize(
    ("reasons", "problems"),
    [
        (["one"], ["one"]),
        (["a.toml: one", "a.toml: two"], ["a.toml: one", "a.toml: two"]),
        (["a\x1b[2Jb", "ö"], [r"a\x1b[2Jb", "ö"]),
    ],
)
def test_a_reload_that_failed_says_why(
    daemon: Daemon, reasons: list[str], problems: list[str]
) -> None:
    """A line for each fault, and the status of a wrong configuration. It may come from any process:
    what is not printable is shown as its escape.
    """
    daemon.fails(*reasons)
    with pytest.raises(ConfigError) as caught:
        asked()
    assert caught.value.problems == problems


def test_the_journal_has_the_reasons_already(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ExecReload= the command says nothing twice; the status remains."""
    monkeypatch.setattr(reload, "is_journal", lambda _: True)
    daemon.fails("one")
    with pytest.raises(ConfigError) as caught:
        asked()
    assert (caught.value.problems, caught.value.exit_status) == ([], os.EX_CONFIG)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "it has ended the connection; see its log"),
        (b'{"parameters":', "it has ended the connection; see its log"),
        (b"no json\0", "what answers there is not this version of netsrvd"),
        (b"[]\0", "what answers there is not this version of netsrvd"),
        (b'{"parameters":[1]}\0', "what answers there is not this version of netsrvd"),
        (b"x" * 2000, "what answers there is not this version of netsrvd"),
    ],
)
def test_an_answer_that_is_none_is_told(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str
) -> None:
    """The daemon may end before it has answered, and it may be another program; what is kept of
    what that sends has a limit.
    """
    monkeypatch.setattr(daemons, "LONGEST_ANSWER", 1000)
    daemon.answer = answer
    with pytest.raises(ControlError, match=f"process {ME}: {words}"):
        asked()


def test_a_daemon_that_is_silent_is_not_waited_for_without_end(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be stuck; its log is where to look."""
    monkeypatch.setattr(reload, "PATIENCE_SECONDS", 0.01)
    daemon.answer = None
    with pytest.raises(ControlError, match="no answer came in time; see its log"):
        asked()


def test_a_socket_that_may_not_be_opened_is_told(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As to root without CAP_DAC_OVERRIDE."""

    def denied(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket.socket, "connect", denied)
    with pytest.raises(ControlError, match="only root and its own user may ask it") as caught:
        asked()
    assert caught.value.exit_status == os.EX_NOPERM


def test_another_error_is_told(daemon: Daemon) -> None:
    """In words, as of any call."""
    daemon.fails(error="org.varlink.service.PermissionDenied")
    with pytest.raises(ControlError, match="only root and its own user may ask it"):
        asked()


def test_a_crowd_of_callers_is_told() -> None:
    """Where more wait than the kernel takes, no one else is kept waiting."""
    control = bind_private()
    assert control
    control.sock.listen(0)
    with control.sock, socket.socket(socket.AF_UNIX) as first:
        first.connect(daemons.private_path(ME))
        with pytest.raises(ControlError, match="too many wait for its answers"):
            asked()
    os.close(control.inode)


def test_a_process_that_is_no_daemon_is_told() -> None:
    """It has no socket to ask at."""
    with pytest.raises(UsageError, match=f"process {ME} is no netsrvd that answers: it has no"):
        asked()


def test_a_process_for_which_another_one_answers_is_told(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says which process listens."""
    ours = daemons.private_path(ME)
    monkeypatch.setattr(daemons, "private_path", lambda _: ours)
    daemon.answer = None
    with pytest.raises(UsageError, match=f"process {ME} answers for 1; name that one"):
        asked(1)


def test_a_process_that_is_not_there_is_told() -> None:
    """As it is, by its number."""
    gone = os.fork() or os._exit(0)
    os.waitpid(gone, 0)
    with pytest.raises(UsageError, match=f"there is no process {gone}"):
        asked(gone)


@pytest.mark.parametrize(("user", "words"), [(1000, "; ask as root"), (0, "lacks CAP_SYS_PTRACE")])
def test_a_process_that_must_not_be_looked_at_is_told(
    monkeypatch: pytest.MonkeyPatch, user: int, words: str
) -> None:
    """Root may lack a capability, in a container; the remedy is another one then."""

    def denied(_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(daemons.Path, "iterdir", denied)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(UsageError, match=f"process {ME} is another user's.*{words}"):
        asked()


def units(monkeypatch: pytest.MonkeyPatch, **pids: int) -> None:
    """Have systemd run these units with these PIDs."""
    shown = [{"Id": f"netsrvd{name}.service", "MainPID": str(pid)} for name, pid in pids.items()]
    monkeypatch.setattr(systemctl, "texts", lambda *_: shown)


def test_without_a_pid_systemd_is_asked(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each unit that runs is reloaded, those that do not run are left alone."""
    units(monkeypatch, main=0, one=ME, two=ME)
    assert asked(None) == os.EX_OK
    assert len(daemon.calls) == 2


def test_of_several_each_failure_names_its_unit(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are reloaded all the same; the status is that of the first failure."""
    units(monkeypatch, a=ME, b=2**22 + 1, c=ME)
    daemon.fails("one", "two")
    with pytest.raises(NetsrvdError) as caught:
        asked(None)
    assert caught.value.exit_status == os.EX_CONFIG
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        *("netsrvda.service", "netsrvda.service", "netsrvdb.service"),
        *("netsrvdc.service", "netsrvdc.service"),
    ]
    assert "there is no process" in lines[2]


def test_where_nothing_runs_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the status of a service that is not there; without systemd a PID is needed."""
    units(monkeypatch, main=0)
    with pytest.raises(
        ControlError, match=r"^systemd runs neither netsrvd\.service nor an instance"
    ):
        asked(None)

    def fail(*_: object) -> None:
        raise SystemdError("systemd does not manage this host")

    monkeypatch.setattr(systemctl, "texts", fail)
    with pytest.raises(UsageError, match=r"^name the process ID of the daemon: systemd does not"):
        asked(None)
