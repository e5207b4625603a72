"""netsrvd.commands.reload, on a daemon that is a thread; tests/functional has real ones"""

import argparse
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netsrvd import reload_socket
from netsrvd.commands import reload
from netsrvd.errors import ConfigError, NetsrvdError, ReloadError, SystemdError, UsageError
from netsrvd.reload_socket import LONGEST_ANSWER, MOST_WAITING, ReloadSocket, answer, path
from netsrvd.systemd import systemctl

ME = os.getpid()


class Scene:
    """A daemon with our PID, and what happens when it gets a signal."""

    def __init__(self) -> None:
        self.reload_socket = ReloadSocket()
        self.signals: list[tuple[int, int]] = []
        self.on_signal: Callable[[], object] = list

    def send(self, process: int, number: int) -> None:
        info = Path(f"/proc/self/fdinfo/{process}").read_text()
        self.signals.append((int(info.partition("Pid:")[2].split()[0]), number))
        self.on_signal()

    def answers(self, problem: str) -> None:
        """Have it answer a signal."""
        self.on_signal = lambda: answer(self.reload_socket.waiting(), problem)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene()
    monkeypatch.setattr(signal, "pidfd_send_signal", made.send)
    yield made
    made.reload_socket.close()


def asked(pid: int = ME) -> int:
    return reload.run(argparse.Namespace(pid=pid))


def test_a_reload_that_went_well_is_a_success(scene: Scene) -> None:
    """SIGHUP goes to the daemon, once, when its answer can no longer be missed."""
    scene.answers("")
    assert asked() == os.EX_OK
    assert scene.signals == [(ME, signal.SIGHUP)]


@pytest.mark.parametrize("problems", [["one"], ["a.toml: one", "a.toml: two"]])
def test_a_reload_that_failed_says_why(scene: Scene, problems: list[str]) -> None:
    """A line for each fault, and the status of a wrong configuration."""
    scene.answers("\n".join(problems))
    with pytest.raises(ConfigError) as caught:
        asked()
    assert caught.value.problems == problems


def test_the_longest_answer_is_taken_whole(scene: Scene) -> None:
    """As it is sent, so it is told."""
    scene.answers("x" * (2 * LONGEST_ANSWER))
    with pytest.raises(ConfigError) as caught:
        asked()
    assert caught.value.problems == ["x" * LONGEST_ANSWER]


def test_a_daemon_that_ends_has_not_answered(scene: Scene) -> None:
    """Whether it had begun with the reload or not."""

    def ends_at_once() -> None:
        scene.reload_socket.close()

    def ends_in_between() -> None:
        for each in scene.reload_socket.waiting():
            each.close()

    for end in (ends_in_between, ends_at_once):
        scene.on_signal = end
        with pytest.raises(ReloadError, match="see its log"):
            asked()


def test_a_daemon_that_has_just_ended_is_told(scene: Scene) -> None:
    """Its PID may be nobody's when the signal is sent."""

    def gone() -> None:
        raise ProcessLookupError

    scene.on_signal = gone
    with pytest.raises(ReloadError, match="just ended"):
        asked()


def test_a_daemon_that_is_silent_is_not_waited_for_without_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be stuck; its log is where to look."""
    monkeypatch.setattr(reload, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(ReloadError, match="has not answered: timed out; see its log"):
        asked()


def test_a_crowd_of_askers_is_told(scene: Scene) -> None:
    """Anybody may ask and leave it at that; the remedy is named, and no signal is sent."""
    crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(MOST_WAITING)]
    for each in crowd:
        each.connect(path(ME))
    with pytest.raises(ReloadError, match=f"`kill -HUP {ME}` reloads without an answer"):
        asked()
    assert scene.signals == []
    for each in crowd:
        each.close()


def test_a_process_that_is_no_daemon_gets_no_signal(scene: Scene) -> None:
    """SIGHUP would end it."""
    scene.reload_socket.close()
    with pytest.raises(UsageError, match=f"process {ME} is no netsrvd that answers: it has no"):
        asked()
    assert scene.signals == []


def test_a_process_for_which_another_one_answers_gets_no_signal(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says which process listens."""
    ours = path(ME)
    monkeypatch.setattr(reload_socket, "path", lambda _: ours)
    with pytest.raises(UsageError, match=f"process {ME} answers for 1, which gets no signal"):
        asked(1)
    assert scene.signals == []


def test_a_process_that_is_not_there_is_told(scene: Scene) -> None:
    """As it is, by its number."""
    gone = os.fork() or os._exit(0)
    os.waitpid(gone, 0)
    with pytest.raises(UsageError, match=f"there is no process {gone}: No such process"):
        asked(gone)
    assert scene.signals == []


@pytest.mark.parametrize(("user", "words"), [(1000, "; ask as root"), (0, "lacks CAP_SYS_PTRACE")])
def test_a_process_that_must_not_be_looked_at_is_told(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, user: int, words: str
) -> None:
    """Root may lack a capability, in a container; the remedy is another one then."""

    def denied(_: int) -> str:
        raise PermissionError

    monkeypatch.setattr(reload_socket, "path", denied)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(UsageError, match=f"process {ME} is another user's.*{words}"):
        asked()
    assert scene.signals == []


def test_an_answer_commands_no_terminal(scene: Scene) -> None:
    """It may come from any process: what is not printable is shown as its escape."""
    scene.answers("a\x1b[2Jb\nö")
    with pytest.raises(ConfigError) as caught:
        asked()
    assert caught.value.problems == [r"a\x1b[2Jb", "ö"]


def test_another_users_daemon_is_left_alone(scene: Scene) -> None:
    """The kernel decides who may send it a signal."""

    def denied() -> None:
        raise PermissionError

    scene.on_signal = denied
    with pytest.raises(UsageError, match=f"process {ME} is another user's; ask as root"):
        asked()


def test_all_who_ask_at_once_are_answered(scene: Scene) -> None:
    """One reload answers whoever was there when it began."""
    everybody = threading.Barrier(3)
    statuses: list[int] = []

    def answers() -> None:
        if everybody.wait(10) == 0:
            answer(scene.reload_socket.waiting(), "")

    scene.on_signal = answers
    threads = [threading.Thread(target=lambda: statuses.append(asked())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert statuses == [os.EX_OK] * 3


def units(monkeypatch: pytest.MonkeyPatch, **pids: int) -> None:
    """Have systemd run these units with these PIDs."""
    shown = [{"Id": f"netsrvd{name}.service", "MainPID": str(pid)} for name, pid in pids.items()]
    monkeypatch.setattr(systemctl, "texts", lambda *_: shown)


def test_without_a_pid_systemd_is_asked(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each unit that runs is reloaded, those that do not run are left alone."""
    units(monkeypatch, main=0, one=ME, two=ME)
    scene.answers("")
    assert reload.run(argparse.Namespace(pid=None)) == os.EX_OK
    assert scene.signals == [(ME, signal.SIGHUP)] * 2


def test_of_several_each_failure_names_its_unit(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are reloaded all the same; the status is that of the first failure."""
    units(monkeypatch, a=ME, b=2**22 + 1, c=ME)
    scene.answers("one\ntwo")
    with pytest.raises(NetsrvdError) as caught:
        reload.run(argparse.Namespace(pid=None))
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
        ReloadError, match=r"^systemd runs neither netsrvd\.service nor an instance"
    ):
        reload.run(argparse.Namespace(pid=None))

    def fail(*_: object) -> None:
        raise SystemdError("systemd does not manage this host")

    monkeypatch.setattr(systemctl, "texts", fail)
    with pytest.raises(UsageError, match=r"^name the process ID of the daemon: systemd does not"):
        reload.run(argparse.Namespace(pid=None))
