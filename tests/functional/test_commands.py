"""Commands that end by themselves: what they print, and with which status they end."""

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import netsrvd
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, echo, toml

Ended = subprocess.CompletedProcess[str]
Command = Callable[..., Ended]

FAULTY = """
drain_tmeout = 3
[listener.echo]
port = 70000
"""
"""Two faults in one file."""


class Case(NamedTuple):
    """A command line, and what comes of it: exit status, and texts on both outputs."""

    argv: str
    status: int
    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    configuration: str = ""

    def __str__(self) -> str:
        return self.argv or "nothing"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run a command line to its end; `{FILE}` in it stands for the configuration."""

    def run(argv: str, configuration: str = "", under: tuple[str, ...] = ()) -> Ended:
        file = tmp_path / "netsrvd.toml"
        file.write_text(configuration)
        return subprocess.run(
            [*under, COMMAND, *argv.format(FILE=file).split()],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


CASES = [
    Case("--version", 0, (f"netsrvd {netsrvd.__version__}",)),
    Case("--help", 0, ("run", "check", "explain", "reload", "sockopts", "See netsrvd(1).")),
    Case("run --help", 0, ("--detach", "--pid-file", "--user", "--inetd", "--listener", "--log")),
    Case("", 64, stderr=("usage: netsrvd", "COMMAND")),
    Case("walk", 64, stderr=("'walk'", "'run'", "'check'", "'explain'", "'sockopts'")),
    Case("reload --help", 0, ("PID", "process ID of the daemon")),
    Case("reload 0", 64, stderr=("usage: netsrvd reload", "expected a process ID, not '0'")),
    Case("reload netsrvd", 64, stderr=("expected a process ID, not 'netsrvd'",)),
    Case("run --fast", 64, stderr=("usage: netsrvd", "--fast")),
    Case("run --log paper", 64, stderr=("'paper'", "auto", "stderr")),
    Case("run --inetd", 64, stderr=("standard input is no socket", "xinetd", "Accept=yes")),
    Case("run --listener echo", 64, stderr=("--listener goes with --inetd",)),
    Case("run --pid-file pid", 64, stderr=("--pid-file goes with --detach",)),
    Case(
        "check --all -c {FILE}",
        0,
        ("drain_timeout = ", "# default", 'listener.echo.service = "echo"', "# valid: "),
    ),
    Case("check --help", 0, ("--all", "--json", "--config")),
    Case(
        "check -c {FILE}",
        0,
        ("listener.echo.port = 7007", "netsrvd.toml", "listener.echo.options.SO_KEEPALIVE = true"),
        configuration="[listener.echo]\nport = 7007\noptions.SO_KEEPALIVE = true",
    ),
    *(
        Case(
            f"{verb} -c {{FILE}}",
            78,
            stderr=("drain_tmeout", 'did you mean "drain_timeout"', "port = 70000: expected"),
            configuration=FAULTY,
        )
        for verb in (
            *("run", "check", "run --detach", "sockopts --listener echo"),
            "explain echo ::1",
        )
    ),
    Case("check -c {FILE}.missing", 78, stderr=("netsrvd.toml.missing: there is no such file",)),
    Case(
        "explain echo 127.0.0.1 -c {FILE}",
        0,
        ('echo: tcp 127.0.0.1: let in: allow has "local"', 'allow = ["local"]', "# default"),
    ),
    Case(
        "explain echo 192.0.2.7 -c {FILE}",
        1,
        ("192.0.2.7: refused: access: no entry of allow contains it",),
    ),
    Case(
        "explain echo 192.0.2.7:40000 --udp -c {FILE}",
        1,
        ('192.0.2.7:40000: refused: access: deny has "192.0.2.0/24"', "netsrvd.toml"),
        configuration='listener.echo.allow = "any"\nlistener.echo.deny = "192.0.2.0/24"',
    ),
    *(
        Case("check -c {FILE}", 78, stderr=words, configuration=f"[listener.lab]\n{text}")
        for text, words in (
            (
                'port = 17\nservice = "qotd"',
                ("listener.lab.service", "service qotd: quotes must be"),
            ),
            ('port = 17\nservice = "qotd"\nquotes = "/nowhere"', ("/nowhere: No such file",)),
            ('port = 17\nquotes = "here"', ('lab.quotes = "here": expected an absolute path',)),
            ('port = 11\nservice = "active"', ("service active: active_listeners must name",)),
            ('port = 11\nactive_listeners = "x"', ('"x": there is no listener x',)),
            ('port = 13\ndaytime_format = "long"', ('expected one of "iso", "weekday", "smtp"',)),
            ('port = 13\nservice = "daytim"', ('"daytim": expected one of "echo", "discard"',)),
        )
    ),
    Case(
        "explain lab 127.0.0.1 --udp -c {FILE}",
        0,
        ('lab: udp 127.0.0.1: let in: allow has "loopback"',),
        configuration='[listener.lab]\nservice = "time"\nport = 37\nallow = "loopback"',
    ),
    Case("explain ech ::1 -c {FILE}", 64, stderr=("no listener ech; known: echo",)),
    Case("explain echo nowhere -c {FILE}", 64, stderr=("'nowhere' is no address; expected",)),
    Case("explain echo -c {FILE}", 64, stderr=("usage: netsrvd explain", "address")),
    Case("sockopts", 0, ("NAME", "SO_REUSEADDR", "TCP_NODELAY", "Send at once")),
    Case(
        "sockopts --listener echo -c {FILE}", 0, ("SO_REUSEADDR", "TCP_NODELAY", "127.0.0.1:7007")
    )._replace(configuration=toml(echo(7007))),
    Case("sockopts --listener ech -c {FILE}", 64, stderr=("no listener ech; known: echo",)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_command_line_has_one_outcome(command: Command, case: Case) -> None:
    """Each command line ends with its status and its words; success leaves stderr empty."""
    done = command(case.argv, case.configuration)
    assert done.returncode == case.status, done
    assert [text for text in case.stdout if text not in done.stdout] == []
    assert [text for text in case.stderr if text not in done.stderr] == []
    assert not done.stderr or case.stderr
    assert "Traceback" not in done.stderr


def test_socket_options_can_be_read_by_programs(command: Command) -> None:
    """`sockopts --json` is JSON with name, level, number, meaning and both values."""
    options = {each["name"]: each for each in json.loads(command("sockopts --json").stdout)}
    reuse = options["SO_REUSEADDR"]
    assert (reuse["level"], reuse["number"]) == ("SOL_SOCKET", socket.SO_REUSEADDR)
    assert (reuse["tcp"], reuse["udp"]) == (False, False)
    assert reuse["meaning"]


def test_what_check_prints_is_a_configuration(command: Command) -> None:
    """The effective configuration, fed back, is valid and means the same."""
    first = command("check --all -c {FILE}", toml(echo(7007, idle_timeout="90s"))).stdout
    second = command("check --all -c {FILE}", first)
    assert second.returncode == 0, second
    assert _without_origins(second.stdout) == _without_origins(first)


def _without_origins(text: str) -> list[str]:
    return [line.partition("#")[0].rstrip() for line in text.splitlines()]


def test_nothing_is_bound_by_a_faulty_configuration(command: Command, port: int) -> None:
    """With one good and one faulty listener nothing is bound: strace sees no bind(2)."""
    configuration = toml(echo(port)) + "\n[listener.other]\nport = 0"
    done = command(
        "run -c {FILE}", configuration, under=("strace", "-f", "-qq", "-e", "trace=socket,bind")
    )
    assert done.returncode == 78
    assert "bind(" not in done.stderr
    assert "AF_INET" not in done.stderr


class Obstacle(NamedTuple):
    """Why a socket cannot be had: keys of the listener, and what comes of it."""

    keys: dict[str, object]
    status: int
    words: str


OBSTACLES = {
    "in use": Obstacle({}, 69, "is already in use; `ss -anp` shows by whom"),
    "not ours": Obstacle({"host": "192.0.2.1"}, 69, "is not an address of this host"),
    "no interface": Obstacle({"interface": "nosuch0"}, 69, "no such interface"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES.values(), ids=list(OBSTACLES))
def test_a_socket_that_cannot_be_had_is_one_line(
    command: Command, port: int, obstacle: Obstacle
) -> None:
    """What hinders a socket is told in one line with its remedy."""
    with socket.create_server(("127.0.0.1", port)):
        done = command("run -c {FILE}", toml(echo(port, **obstacle.keys)))
    assert done.returncode == obstacle.status, done
    [line] = done.stderr.splitlines()
    assert line.startswith("netsrvd: listener echo: tcp ")
    assert obstacle.words in line


@pytest.mark.usefixtures("alone")
def test_a_low_port_needs_a_privilege(command: Command) -> None:
    """Who may not bind port 7 is told so, with the remedy; status 77."""
    done = command("run -c {FILE}", toml(echo(7)), under=("unshare", "--user"))
    assert done.returncode == 77, done
    [line] = done.stderr.splitlines()
    assert "port 7 needs a privilege: `netsrvd apply` has systemd bind it; or set a port" in line


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        ("walk", 64),
        ("check -c /none", 78),
        ("status --control /none", 3),
        ("status connections --control /none", 3),
        ("probe --fping -C 1 -q name.invalid", 2),
        ("probe --fping -C 1 -q -t 10 127.0.0.1:9", 1),
    ],
)
def test_errors_that_cannot_be_told_change_no_status(argv: str, status: int) -> None:
    """With standard error on a full disk, a command ends as it would otherwise."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [COMMAND, *argv.split()],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == status
