"""netsrvd.commands.run: in which order things are prepared; tests/functional runs them"""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netsrvd import detach, handover, startup
from netsrvd.commands import inetd, run
from netsrvd.daemon import Start
from netsrvd.errors import ConfigError, NetsrvdError, SocketError, UsageError
from netsrvd.handover import Restored
from netsrvd.settings import Endpoint, ListenerSettings
from netsrvd.sockets import activation
from netsrvd.sockets.activation import ActivatedSocket
from netsrvd.sockets.bind import ListeningSocket
from tests.support.listening import FakeSocket

SOCK: Any = FakeSocket()
PASSED = [ActivatedSocket(SOCK, "echo")]
SOCKETS = {
    Endpoint("echo", "tcp"): [ListeningSocket(SOCK, "tcp", ListenerSettings("echo"), "systemd")]
}


class Scene:
    """All that `run` sets going, noted in its order."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.steps: list[str] = []
        self.start: Start
        self.fails: dict[str, NetsrvdError] = {}
        self.restored: Restored | None = None
        """What the daemon is given."""
        self.kept: list[object] = []
        """The connections that are kept open on the way."""
        self.stored: list[activation.Stored] = []
        self.config = folder / "netsrvd.toml"
        self.config.write_text('[log]\ntarget = "journal"')
        scene = self

        class Daemon:
            def __init__(
                self, start: Start, restored: Restored | None, on_ready: Callable[[], None]
            ) -> None:
                scene.start, scene.restored, self.on_ready = start, restored, on_ready

            def run(self) -> int:
                scene.steps.append("serve")
                self.on_ready()
                return 7

        patch.setattr(run, "Daemon", Daemon)
        patch.setattr(activation, "passed", lambda: self.step("adopt", (PASSED, self.stored)))
        patch.setattr(activation, "drain_and_close", lambda passed: self.step("turn away", passed))
        patch.setattr(startup, "open_sockets", lambda *_: self.step("open", (SOCKETS, [])))
        patch.setattr(startup, "choose_log", self.choose_log)
        patch.setattr(detach, "detached", self.detached)

    def step(self, name: str, result: object) -> Any:
        self.steps.append(name)
        if error := self.fails.get(name):
            raise error
        return result

    def choose_log(self, target: str, *, detached: bool) -> tuple[str, list[object]]:
        return self.step(f"log {target}{' detached' * detached}", (target, []))  # type: ignore[no-any-return]

    def detached(
        self,
        serve: Callable[..., int],
        sockets: list[object],
        pid_file: Path | None,
        owner: detach.User | None,
    ) -> int:
        assert sockets == [SOCK, *self.kept]
        self.steps.append(f"detach {pid_file}")
        self.owner = owner
        return serve(lambda: self.steps.append("ready"))

    def run(self, **given: object) -> int:
        usual = {"config": self.config, "detach": False, "pid_file": None, "log": None}
        usual |= {"control": None, "inetd": False, "listener": None, "user": None}
        return run.run(argparse.Namespace(began_at=1.5, **usual | given))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    return Scene(monkeypatch, tmp_path)


def test_all_that_can_fail_comes_before_serving(scene: Scene) -> None:
    """Sockets are adopted, the configuration is read, log and sockets are chosen; then it serves,
    and its exit status is that of the command.
    """
    assert scene.run() == 7
    assert scene.steps == ["adopt", "log journal", "open", "serve"]
    assert scene.start.sockets == SOCKETS
    assert (scene.start.log, scene.start.began_at) == ("journal", 1.5)


def test_what_the_process_before_left_is_restored(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes from the descriptor store is made connections of, by the new settings."""
    scene.run()
    assert scene.restored is None
    left = Restored([], [], 1, 2.5, [], {})
    scene.stored = [(9, "handover/state")]

    def restore(stored: object) -> Restored:
        assert stored == scene.stored
        return left

    monkeypatch.setattr(handover, "restore", restore)
    scene.run()
    assert scene.restored is left


def test_the_command_line_decides_about_the_log(scene: Scene) -> None:
    """`--log` counts before the configuration."""
    scene.run(log="stderr")
    assert scene.start.log == "stderr"


def test_it_leaves_the_terminal_last(scene: Scene) -> None:
    """With --detach everything that can fail has failed, or not, before the terminal is left."""
    assert scene.run(detach=True, pid_file=Path("p")) == 7
    assert scene.steps == ["adopt", "log journal detached", "open", "detach p", "serve", "ready"]


def test_what_was_restored_leaves_the_terminal_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections of the process before are kept open on the way, as the sockets are."""
    one, waiting, state = FakeSocket(), FakeSocket(), SimpleNamespace()
    left: Any = Restored([(one, state)], [("echo", waiting)], 0, 2.5, [], {})  # type: ignore[list-item]
    monkeypatch.setattr(handover, "restore", lambda _: left)
    scene.stored, scene.kept = [(9, "handover/state")], [one, waiting]
    assert scene.run(detach=True) == 7
    assert one.closed
    assert waiting.closed


def test_the_configuration_is_found_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload reads the same file, though a detached daemon works in another folder."""
    monkeypatch.chdir(scene.config.parent)
    scene.run(config=Path(scene.config.name))
    assert scene.start.configuration.path == scene.config
    monkeypatch.setattr(startup.files, "DEFAULT_FILE", scene.config)
    scene.run(config=None)
    assert scene.start.configuration.path is None


def test_a_failed_start_turns_away_who_waits(scene: Scene) -> None:
    """Otherwise systemd would start it again for the same connection, and again."""
    scene.fails["open"] = SocketError("in use")
    with pytest.raises(SocketError):
        scene.run()
    assert scene.steps[-1] == "turn away"
    scene.config.write_text("workers = -1")
    with pytest.raises(ConfigError):
        scene.run()
    assert scene.steps[-2:] == ["adopt", "turn away"]


def test_a_pid_file_is_for_the_classic_way(scene: Scene) -> None:
    """A service manager knows its process; a PID file beside it would only mislead."""
    with pytest.raises(UsageError, match="--pid-file goes with --detach"):
        scene.run(pid_file=Path("p"))
    assert "serve" not in scene.steps


def test_a_listener_is_for_inetd(scene: Scene) -> None:
    """A daemon serves all of them; the word alone would be taken for something else."""
    with pytest.raises(UsageError, match="--listener goes with --inetd"):
        scene.run(listener="echo")


def test_inetd_is_another_way(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is adopted or opened for it."""
    monkeypatch.setattr(inetd, "run", lambda arguments: 5 if arguments.inetd else 6)
    assert scene.run(inetd=True) == 5
    assert scene.steps == []
