"""`netsrvd status`: what people, scripts and monitoring get."""

import json
import os
import pty
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.clients import answer, ended, talking
from tests.support.foreign import foreign
from tests.support.peers import connect
from tests.support.run import COMMAND, ENVIRONMENT, LOOPBACK, Run, echo

CLOSED = {"allow": ["192.0.2.1"]}


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A path for a control socket."""
    return str(tmp_path_factory.mktemp("control") / "socket")


@pytest.fixture
def run(start: Start, path: str, port: int) -> Run:
    """A daemon with a control socket, a listener and another one that refuses everybody."""
    configuration = echo(port)
    configuration["listener"] |= {  # type: ignore[operator]
        "closed": {"host": LOOPBACK, "port": port + 1, **CLOSED}
    }
    return start(configuration, "--control", path)


def status(path: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Ask the daemon at a path."""
    return subprocess.run(
        [COMMAND, "status", "--control", path, *arguments],
        env=ENVIRONMENT | more,
        capture_output=True,
        text=True,
        check=False,
    )


def on_terminal(path: str, **environment: str) -> str:
    """Return what the command writes on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        done = subprocess.Popen(
            [COMMAND, "status", "--control", path],
            env=ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "80"} | environment,
            stdout=theirs,
        )
        os.close(theirs)
        text = b""
        try:
            while data := screen.read(65_536):
                text += data
        except OSError:  # EIO: the command has ended
            pass
        assert done.wait() == 0
    return text.decode()


def test_people_see_what_runs(run: Run, path: str) -> None:
    """Version, start, configuration, listeners with their origin, live clients, and refusals with
    reason and remedy.
    """
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(talking(run.port))
        answer(run.port)
        with connect(("127.0.0.1", run.port + 1)) as refused:
            assert ended(refused)
        said = status(path)
    assert (said.returncode, said.stderr) == (0, "")
    assert f"PID {run.pid}" in said.stdout
    assert f"Configuration: {run.config}, in force since " in said.stdout
    assert "2 of " in said.stdout
    assert "1 flows" in said.stdout
    assert re.search(rf"echo +echo +tcp 127\.0\.0\.1:{run.port}, .* own +2 +2 +0 ", said.stdout)
    assert "closed tcp: 1 connections refused, access: " in said.stdout
    assert re.search(r"127\.0\.0\.1 +closed tcp +access +1\n", said.stdout)
    assert re.search(r"127\.0\.0\.1 +echo tcp +2 ", said.stdout)
    assert "\x1b" not in said.stdout


def test_a_terminal_has_colours_unless_they_are_unwanted(run: Run, path: str) -> None:
    """NO_COLOR takes them away; no line is longer than the terminal is wide."""
    coloured = on_terminal(path)
    assert "\x1b[32m●\x1b[0m" in coloured
    assert "\x1b" not in on_terminal(path, NO_COLOR="1")
    assert "\x1b" not in on_terminal(path, TERM="dumb")
    table = coloured.partition("LISTENER")[2]
    plain = re.sub(r"\x1b\[[0-9]+m", "", table)
    assert max(map(len, plain.splitlines())) <= 80


@pytest.mark.parametrize("columns", ["1", "19", "-1", "x", "0"])
def test_any_width_of_a_terminal(run: Run, path: str, columns: str) -> None:
    """Tables are cut off at the width; a senseless one is that of the terminal, or 80."""
    plain = re.sub(r"\x1b\[[0-9]+m", "", on_terminal(path, COLUMNS=columns))
    table = plain.partition("\r\n\r\n")[2].splitlines()
    width = int(columns) if columns in ("1", "19") else 80
    assert max(map(len, table)) == width


def test_an_encoding_without_the_marks(run: Run, path: str) -> None:
    """Then they are ASCII characters, and no escapes."""
    assert status(path, PYTHONIOENCODING="latin-1").stdout.startswith("* netsrvd ")
    stopped = status("/none", PYTHONIOENCODING="ascii").stdout
    assert stopped == "- nothing runs at /none\n"


def test_a_reader_that_has_enough(run: Run, path: str) -> None:
    """`netsrvd status | head -1` ends without a word about it."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as output:
        done = subprocess.run(
            [COMMAND, "status", "--control", path],
            env=ENVIRONMENT,
            stdout=output,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (74, b"")


def test_json_has_all_that_the_daemon_says(run: Run, path: str) -> None:
    """One object, with the answer to Status and the sources."""
    with talking(run.port):
        said = status(path, "--json")
    [daemon] = json.loads(said.stdout)["daemons"]
    assert (daemon["name"], daemon["running"]) == (path, True)
    assert daemon["status"]["pid"] == run.pid
    assert daemon["status"]["totals"]["accepted"] == 1
    assert [each["live"] for each in daemon["status"]["sources"]] == [1]
    assert daemon["status"]["refused_sources"] == []


def test_connections_are_listed(run: Run, path: str) -> None:
    """One a line, those of a listener or of an address; as JSON one object a line."""
    with talking(run.port) as one, talking(run.port, "::1"):
        client = f"127.0.0.1:{one.getsockname()[1]} "
        heading, *lines = status(path, "connections").stdout.splitlines()
        assert heading.startswith("CLIENT ")
        assert len(lines) == 2
        assert any(line.startswith(client) for line in lines)
        [line] = status(path, "connections", "--address", "127.0.0.0/8").stdout.splitlines()[1:]
        assert line.startswith(client)
        said = status(path, "connections", "--listener", "closed", "--json")
        assert (said.stdout, said.returncode) == ("", 0)
        found = [
            json.loads(each) for each in status(path, "connections", "--json").stdout.splitlines()
        ]
        assert {each["peer_address"] for each in found} == {"127.0.0.1", "::1"}
        unknown = status(path, "connections", "--listener", "nothing")
        assert unknown.returncode == os.EX_USAGE
        assert "nothing: there is no such listener; `netsrvd status` shows them" in unknown.stderr
        wrong = status(path, "connections", "--address", "nothing")
        assert wrong.returncode == os.EX_USAGE
        assert "address: it takes an IP address or a network" in wrong.stderr


def test_nothing_that_runs_is_a_status(path: str) -> None:
    """3, as `systemctl is-active` has it, and a line that says so."""
    said = status(path)
    assert said.returncode == 3
    assert f"nothing runs at {path}" in said.stdout
    listed = status(path, "connections")
    assert (listed.returncode, listed.stdout) == (3, "")
    assert f"{path}: no daemon answers" in listed.stderr
    assert json.loads(status(path, "--json").stdout)["daemons"][0]["running"] is False


@pytest.mark.parametrize(
    ("arguments", "word", "expected"),
    [
        (("--warn", "connections=2"), "OK", 0),
        (("--warn", "connections=1"), "WARNING", 1),
        (("--warn", "connections=1", "--crit", "connections=1"), "CRITICAL", 2),
        (("--warn", "refused=5", "--crit", "lag=1e"), "", os.EX_USAGE),
        (("--warn", "nothing=5"), "", os.EX_USAGE),
        (("--warn", "lost=0", "--json"), "", os.EX_USAGE),
    ],
)
def test_monitoring_gets_its_line(
    run: Run, path: str, arguments: tuple[str, ...], word: str, expected: int
) -> None:
    """A word, a reason, performance data with the ranges, and the status of a plugin."""
    with talking(run.port), talking(run.port):
        said = status(path, *arguments)
    assert said.returncode == expected
    if word:
        assert re.fullmatch(
            rf"NETSRVD {word} - .*connections.* \| connections=2;\S+ refused=0 lost=0 lag=\S+s\n",
            said.stdout,
        )


def test_monitoring_of_a_daemon_that_does_not_run_is_critical(path: str) -> None:
    """2 is CRITICAL there, also for a socket that --control names."""
    said = status(path, "--crit", "connections=1")
    assert said.returncode == 2
    assert said.stdout.startswith(f"NETSRVD CRITICAL - {path}: no daemon answers")


def test_without_systemd_a_socket_is_to_be_named() -> None:
    """The error says by which option, unless systemd runs this host."""
    if Path("/run/systemd/system").is_dir():
        return
    done = subprocess.run(
        [COMMAND, "status"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == os.EX_USAGE
    assert "--control" in done.stderr


FOREIGN = {
    "no JSON": b"HTTP/1.1 400 Bad Request\r\n\0",
    "no text": b"\xff\xfe\0",
    "no object": b"[1]\0",
    "no parameters": b'{"parameters": [1]}\0',
    "deep": b"[" * 100_000 + b"\0",
    "nothing in it": b"{}\0",
    "endless": b"x" * (65 << 20),
    "wrong types": json.dumps(
        {
            "parameters": dict.fromkeys(
                ("version", "pid", "seconds", "run", "connections", "flows", "totals", "listeners")
            )
        }
    ).encode()
    + b"\0",
}


@pytest.mark.parametrize("answer", FOREIGN.values(), ids=FOREIGN)
def test_another_program_is_told_from_a_daemon(path: str, answer: bytes) -> None:
    """`--control` may name a socket of something else: one line says so, whatever that answers."""
    said = f"{path}: what answers there is not this version of netsrvd"
    with foreign(path, answer):
        asked = status(path)
        watched = status(path, "--warn", "lag=1")
    assert (asked.returncode, asked.stdout, asked.stderr) == (69, "", f"netsrvd: {said}\n")
    assert (watched.returncode, watched.stdout) == (3, f"NETSRVD UNKNOWN - {said}\n")


def test_a_path_that_is_too_long() -> None:
    """The reason is told, although the system has no number for it."""
    said = status("/" + "a" * 200)
    assert "no daemon answers: AF_UNIX path too long" in said.stderr
    assert said.returncode == 3
