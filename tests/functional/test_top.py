"""`netsrvd top` on a terminal of tmux."""

import ast
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netsrvd.commands.top_figures import FIGURES
from netsrvd.escapes import BLOCKS
from tests.functional.conftest import Start
from tests.support.clients import answer, ended
from tests.support.foreign import foreign
from tests.support.patience import wait_readable
from tests.support.peers import connect, exchange, read_exactly
from tests.support.run import COMMAND, ENVIRONMENT, Run, echo
from tests.support.tmux import Screen, screen

PACKAGE = Path(__file__).parents[2] / "netsrvd"
TERMINAL = {**ENVIRONMENT, "TERM": "screen-256color", "LANG": "C.UTF-8"}
SIZE = {"COLUMNS": "80", "LINES": "24"}
"""An exported size, which is no longer true after a resize."""

KEYS = "1 overview  2 connections  3 refused  4 sources"


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path for a control socket."""
    return tmp_path_factory.mktemp("control") / "socket"


@pytest.fixture
def run(start: Start, path: Path, port: int) -> Run:
    """A daemon with a control socket, which refuses one address."""
    configuration = echo(port, deny=["127.0.0.66"])
    return start(configuration, "--control", str(path))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Screen]:
    """A terminal."""
    with screen(tmp_path) as found:
        yield found


@pytest.fixture
def top(run: Run, terminal: Screen, path: Path) -> Screen:
    """The command on a terminal, when it has drawn."""
    terminal.start([COMMAND, "top", "--control", path], TERMINAL | SIZE)
    terminal.wait_text(f"PID {run.pid}")
    return terminal


def client(run: Run, address: str, size: int) -> socket.socket:
    """Return a connection from an address; `size` bytes of it were echoed."""
    sock = socket.socket()
    sock.bind((address, 0))
    sock.connect(("127.0.0.1", run.port))
    sock.sendall(bytes(size))
    assert read_exactly(sock, size) == bytes(size)
    return sock


def line(lines: list[str], title: str) -> str:
    """Return the line of a figure."""
    [found] = [each for each in lines if each.startswith(f"{title} ")]
    return found


def says(lines: list[str], text: str) -> bool:
    """Return whether lines have a text, which the end of a line may break anywhere."""
    return text.replace(" ", "") in "".join(lines).replace(" ", "")


def test_rates_with_their_history(run: Run, top: Screen) -> None:
    """The overview has each figure with its value and its history, and the listeners; a load is
    seen in them, and a figure that was above 0 has a block above the lowest one afterwards.
    """
    with client(run, "127.0.0.11", 100_000):
        lines = top.wait(lambda lines: " 1 " in line(lines, "connections"), "a connection")
        assert len(lines) == 24
        assert lines[1].startswith("1 of ")
        answer(run.port)
        top.wait(
            lambda lines: bool({*line(lines, "datagrams in/s")} & {*BLOCKS[1:]}),
            "a block for the datagram",
        )
    lines = top.wait(lambda lines: " 0 " in line(lines, "connections"), "no connection")
    for figure in FIGURES:
        assert {*line(lines, figure.title)} & {*BLOCKS}, figure.title
    for title in ("connections", "new connections/s", "received/s", "sent/s"):
        assert {*line(lines, title)} & {*BLOCKS[1:]}, title
    assert not {*line(lines, "records lost/s")} & {*BLOCKS[1:]}
    shown = re.compile(r"echo +echo +tcp +0 +1 +0 +97\.7 KiB +97\.7 KiB")
    assert any(shown.match(each) for each in lines)


def test_the_clock_has_its_zone(run: Run, terminal: Screen, path: Path) -> None:
    """The time is that of the caller's zone, with its distance from UTC, as in `netsrvd status`."""
    terminal.start([COMMAND, "top", "--control", path], TERMINAL | {"TZ": "Asia/Kolkata"})
    terminal.resize(200, 24)
    clock = re.compile(rf"PID {run.pid}  \d\d:\d\d:\d\d \+0530$")
    terminal.wait(lambda lines: bool(clock.search(lines[0])), "the clock")


def test_connections_by_bytes_age_and_source(run: Run, top: Screen) -> None:
    """The view of the connections has them in the order of the key that was pressed."""
    with ExitStack() as stack:
        for address, size in (("127.0.0.13", 20), ("127.0.0.11", 3000), ("127.0.0.12", 100)):
            stack.enter_context(client(run, address, size))
        top.press("2")
        top.wait_text("3 connections, by bytes")
        for key, title, wanted in (
            ("s", "source", ["11", "12", "13"]),
            ("a", "age", ["13", "11", "12"]),
            ("b", "bytes", ["11", "12", "13"]),
        ):
            top.press(key)
            top.wait(lambda lines: in_order(lines, title, wanted), title)  # noqa: B023
        top.wait(
            lambda lines: re.search(
                r"\n127\.0\.0\.11:\d+ +echo .* 2\.9 KiB +2\.9 KiB +0 B\n", "\n".join(lines)
            ),
            "its bytes",
        )


def in_order(lines: list[str], title: str, ends: list[str]) -> bool:
    """Return whether the connections of 127.0.0.x stand there by this title and in this order."""
    text = "\n".join(lines)
    shown = re.findall(r"(?m)^127\.0\.0\.(\d+):\d+ +echo ", text)
    return f"{len(ends)} connections, by {title}" in text and shown == ends


def test_more_connections_than_lines(run: Run, top: Screen) -> None:
    """Of more connections than there are lines the first ones are shown, and the number of the
    others.
    """
    with ExitStack() as stack:
        for number in range(40):
            stack.enter_context(client(run, "127.0.0.11", 100 + number))
        top.press("2")
        lines = top.wait_text("40 connections, by bytes")
        assert sum(each.startswith("127.0.0.11:") for each in lines) == 16
        assert "and 24 more" in lines
        assert len(lines) == 24
        assert lines[-1].startswith(KEYS)


def test_refused_sources(run: Run, top: Screen) -> None:
    """The view of the refused sources has them with reason and number, that of all sources those
    with live connections.
    """
    for _ in range(3):
        with socket.socket() as sock:
            sock.bind(("127.0.0.66", 0))
            sock.connect(("127.0.0.1", run.port))
            assert ended(sock)
    top.press("3")
    refused = re.compile(r"127\.0\.0\.66 +echo tcp +access +3")
    top.wait(lambda lines: any(map(refused.fullmatch, lines)), "three refusals")
    with client(run, "127.0.0.12", 1000):
        top.press("4")
        live = re.compile(r"127\.0\.0\.12 +echo tcp +1 +1000 B")
        top.wait(lambda lines: any(map(live.match, lines)), "its connection and bytes")


def test_it_follows_the_size_of_the_terminal(top: Screen, path: Path) -> None:
    """A larger terminal is used as a whole, and on a smaller one nothing is out of place: the name
    is in the first line, and the keys are in the last one.
    """
    for columns, lines in ((120, 40), (80, 24), (60, 16), (40, 10), (80, 24)):
        top.resize(columns, lines)

        def is_drawn(seen: list[str], columns: int = columns, lines: int = lines) -> bool:
            is_whole = len(seen) == lines and seen[0].startswith(str(path)[: columns - 1])
            return is_whole and seen[-1].startswith(KEYS[: columns - 1].rstrip())

        seen = top.wait(is_drawn, f"{columns} x {lines}")
        assert sum(each.startswith("1 overview") for each in seen) == 1
        assert max(map(len, seen)) <= columns


def assert_as_before(top: Screen) -> None:
    """Assert that the terminal is as it was before the command."""
    assert top.do("display-message", "-p", "#{alternate_on} #{cursor_flag}").split() == ["0", "1"]
    top.type("stty -a")
    text = "\n".join(top.wait_text(" echoke"))
    assert "overview" not in text
    assert re.search(r"(?<!-)icanon", text)
    assert re.search(r" (?<!-)echo ", text)


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_keys_that_quit(top: Screen, key: str) -> None:
    """`q` and Ctrl-C end it with status 0, and the terminal is as it was."""
    top.press(key)
    top.wait_text("status=0 >")
    assert_as_before(top)


def test_ctrl_c_while_a_daemon_hangs(run: Run, terminal: Screen, path: Path) -> None:
    """It ends the command also while that waits for an answer."""
    patient = (
        "from netsrvd.commands import daemons\ndaemons.asking.__wrapped__.__defaults__ = (600.0,)"
    )
    terminal.start(planted(patient, path), TERMINAL | SIZE)
    terminal.wait_text("q quit")

    changed_at: dict[str, float] = {}

    def stands_still(lines: list[str]) -> bool:
        return time.monotonic() - changed_at.setdefault(lines[0], time.monotonic()) > 3

    os.kill(run.pid, signal.SIGSTOP)
    try:
        terminal.wait(stands_still, "a time of running that stands still")
        terminal.press("C-c")
        terminal.wait_text("status=0 >")
    finally:
        os.kill(run.pid, signal.SIGCONT)


def test_a_stop_of_the_job(run: Run, top: Screen) -> None:
    """Ctrl-Z gives the shell its terminal as it was; `fg` has it draw again."""
    top.press("C-z")
    top.wait_text("Stopped")
    assert_as_before(top)
    top.type("fg")
    top.wait_text(f"PID {run.pid}")
    top.press("2")
    top.wait_text("0 connections, by bytes")
    top.press("q")
    top.wait_text("status=0 >")
    assert_as_before(top)


def test_a_terminal_that_goes_away(top: Screen) -> None:
    """When its terminal is gone it ends; nothing is left that would run on."""
    pid = int(top.do("display-message", "-p", "#{pane_pid}"))
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ended = os.pidfd_open(int(child))
    top.do("kill-server")
    wait_readable(ended, "its end")
    os.close(ended)


@pytest.mark.usefixtures("run")
def test_a_terminal_that_is_not_its_own(path: Path) -> None:
    """It ends also with a terminal that sends no SIGHUP, as it is not its controlling terminal."""
    ours, theirs = pty.openpty()
    command = [COMMAND, "top", "--control", path]
    environment = TERMINAL | SIZE
    with subprocess.Popen(
        command, env=environment, stdin=theirs, stdout=theirs, start_new_session=True
    ) as drawing:
        os.close(theirs)
        ended = os.pidfd_open(drawing.pid)
        seen = b""
        while b"PID" not in seen:
            wait_readable(ours, "a frame")
            seen += os.read(ours, 4096)
        os.close(ours)
        wait_readable(ended, "its end")
        os.close(ended)


def test_a_daemon_that_ends_and_comes_back(
    run: Run, start: Start, top: Screen, path: Path, port: int
) -> None:
    """While no daemon answers, the screen says so; when there is one again it goes on, and the
    counts of the new process, which begin at 0, give no rates below 0.
    """
    with client(run, "127.0.0.11", 1000):
        top.wait(lambda lines: " 1 " in line(lines, "connections"), "a connection")
    run.send(signal.SIGTERM)
    run.wait_end()
    top.wait_text(f"{path}: no daemon answers")
    again = start(echo(port), "--control", str(path))
    lines = top.wait_text(f"PID {again.pid}")
    assert "no daemon answers" not in "\n".join(lines)
    assert not any(re.search(r"/s +-\d", each) for each in lines)


def planted(code: str, path: Path) -> list[str | Path]:
    """Return the command with some Python before it."""
    program = f"import sys\n{code}\nfrom netsrvd import cli\nsys.exit(cli.main())"
    return [sys.executable, "-c", program, "top", "--control", path]


def test_without_rich(run: Run, terminal: Screen, path: Path) -> None:
    """Without rich it says in one line what to install."""
    terminal.start(planted("sys.modules['rich'] = None", path), TERMINAL)
    lines = terminal.wait_text("status=70 >")
    assert lines[0].startswith("netsrvd: top: the Python module rich is missing: install python3-r")


def test_a_terminal_without_blocks(run: Run, terminal: Screen, path: Path) -> None:
    """Where the encoding of the terminal has no blocks, the history is of ASCII characters."""
    ascii_only = {**TERMINAL, "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}
    terminal.start([COMMAND, "top", "--control", path], ascii_only | {"PYTHONCOERCECLOCALE": "0"})
    lines = terminal.wait(lambda lines: "__" in "\n".join(lines), "a history")
    assert "\n".join(lines).isascii()


def test_without_a_terminal(path: Path) -> None:
    """Without a terminal it is an error of usage."""
    command = [COMMAND, "top", "--control", path]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr == "netsrvd: top: it needs a terminal; `netsrvd status` prints lines\n"


def test_a_terminal_that_cannot_draw(run: Run, terminal: Screen, path: Path) -> None:
    """On one with TERM=dumb, such as the shell of an editor, nothing would be seen."""
    terminal.start(["env", "TERM=dumb", COMMAND, "top", "--control", path], TERMINAL)
    lines = terminal.wait_text("status=64 >")
    assert "TERM=dumb cannot draw; see `netsrvd status`" in "".join(lines[:3])


def test_without_a_daemon(terminal: Screen, path: Path) -> None:
    """Where no daemon runs it says so, and its status is that of `netsrvd status`."""
    terminal.start([COMMAND, "top", "--control", path], TERMINAL)
    lines = terminal.wait_text("status=3 >")
    assert says(lines[:3], "no daemon answers")


def test_another_program_is_told_from_a_daemon(terminal: Screen, path: Path) -> None:
    """What answers in other types than a daemon does is one line and the status of no answer."""
    members = ("version", "pid", "seconds", "run", "connections", "flows", "totals", "listeners")
    answer = json.dumps({"parameters": dict.fromkeys(members)}).encode() + b"\0"
    with foreign(str(path), answer):
        terminal.start([COMMAND, "top", "--control", path], TERMINAL)
        lines = terminal.wait_text("status=69 >")
    assert says(lines[:3], "what answers there is not this version of netsrvd")


def test_rich_is_imported_by_two_modules_alone() -> None:
    """Only what draws on a terminal imports rich."""
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "rich"
    }
    assert users == {"commands/top_screen.py", "probe/live.py"}


def test_a_busy_daemon_is_asked_once_a_second(run: Run, top: Screen) -> None:
    """One look a second has one answer to Status: the history grows by one block each."""
    with connect(("127.0.0.1", run.port)) as sock:
        assert exchange(sock, [b"x"]) == b"x"
    lines = top.wait(lambda lines: len(history(lines)) >= 3, "three seconds")
    seconds = int(re.search(r"runs for (?:(\d+) min )?(\d+) s", lines[0])[2])  # type: ignore[index]
    assert len(history(lines)) <= seconds + 2


def history(lines: list[str]) -> str:
    """Return the history of the connections."""
    return line(lines, "connections").split()[-1]
