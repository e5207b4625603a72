"""netsrvd.cli and netsrvd.__main__"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import netsrvd
from netsrvd import cli, errors
from netsrvd.arguments import parser
from netsrvd.commands import check, explain, reload, run, sockopts

COMMANDS = {
    "run": run,
    "check": check,
    "explain": explain,
    "reload": reload,
    "sockopts": sockopts,
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Return the arguments with which commands are run; they do nothing."""
    found: list[SimpleNamespace] = []

    def note(arguments: SimpleNamespace) -> int:
        found.append(arguments)
        return 0

    for command in COMMANDS.values():
        monkeypatch.setattr(command, "run", note)
    # Other tests imported handlers; `run` ends the process then: see tests/functional.
    monkeypatch.setattr(cli, "_end_at_once", lambda _: None)
    return found


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("run", {"config": None, "detach": False, "pid_file": None, "log": None}),
        ("run -c a.toml", {"config": Path("a.toml")}),
        ("run --config a.toml --log syslog", {"config": Path("a.toml"), "log": "syslog"}),
        ("run --detach --pid-file p", {"detach": True, "pid_file": Path("p")}),
        ("run --inetd --listener lab", {"inetd": True, "listener": "lab"}),
        ("run", {"inetd": False, "listener": None}),
        ("check", {"config": None, "all": False, "json": False}),
        ("check --all --json", {"all": True, "json": True}),
        ("check -c a.toml", {"config": Path("a.toml")}),
        ("explain a ::1", {"listener": "a", "address": "::1", "udp": False, "json": False}),
        ("explain --udp a ::1", {"listener": "a", "address": "::1", "udp": True}),
        ("reload 4711", {"pid": 4711}),
        ("reload", {"pid": None}),
        ("reload 0004711", {"pid": 4711}),
        (f"reload {2**31 - 1}", {"pid": 2**31 - 1}),
        ("sockopts", {"config": None, "json": False, "listener": None}),
        ("sockopts --json --listener lab", {"json": True, "listener": "lab"}),
    ],
)
def test_each_command_gets_its_arguments(
    seen: list[SimpleNamespace], line: str, expected: dict[str, object]
) -> None:
    """The words of the line arrive at the command that they name, with the time of the start."""
    assert cli.main(line.split()) == 0
    [arguments] = seen
    assert arguments.command == line.split(maxsplit=1)[0]
    assert {name: getattr(arguments, name) for name in expected} == expected
    assert arguments.began_at == cli.BEGAN_AT


def test_the_arguments_without_options_are_those_of_the_parser(seen: list[SimpleNamespace]) -> None:
    """`netsrvd run` does without the parser, and gets what that would have given."""
    cli.main(["run"])
    [found] = seen
    assert vars(found) == vars(parser().parse_args(["run"])) | {"began_at": cli.BEGAN_AT}


@pytest.mark.parametrize("line", ["", "serve", "run --log nowhere", "check --yaml", "run extra"])
def test_a_wrong_line_is_a_usage_error(capsys: pytest.CaptureFixture[str], line: str) -> None:
    """Whatever cannot be understood ends with EX_USAGE, the usage and the reason."""
    with pytest.raises(SystemExit) as caught:
        cli.main(line.split())
    assert caught.value.code == os.EX_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: netsrvd")


@pytest.mark.parametrize(
    "pid",
    ["0", "-1", "+1", "1.0", "x", "1_0", str(1 << 31), "9" * 5000, "0" * 11 + "9" * 5000, "\u0661"],
)
def test_a_process_id_is_a_positive_number(capsys: pytest.CaptureFixture[str], pid: str) -> None:
    """0 and negative ones would be signals to groups of processes (kill(2))."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["reload", pid])
    assert caught.value.code == os.EX_USAGE
    assert capsys.readouterr().err.startswith("usage: netsrvd reload")


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`netsrvd --version` is the version of the package."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"netsrvd {netsrvd.__version__}\n"


def fail_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Have the command `check` raise an error."""

    def fail(_: object) -> int:
        raise error

    monkeypatch.setattr(check, "run", fail)


@pytest.mark.parametrize(
    "error",
    [
        errors.UsageError("one"),
        errors.ConfigError(["one", "two"]),
        errors.SocketError("one"),
        errors.PrivilegeError("one"),
        errors.DetachError("one"),
    ],
)
def test_an_error_is_for_people(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: errors.NetsrvdError,
) -> None:
    """An error is its lines on standard error, no traceback, and its own exit status."""
    fail_with(monkeypatch, error)
    assert cli.main(["check"]) == error.exit_status
    said = capsys.readouterr()
    assert said.err == "".join(f"netsrvd: {line}\n" for line in str(error).splitlines())
    assert said.out == ""


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no error of ours has its traceback."""
    fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["check"])


def test_a_reader_may_go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """`netsrvd sockopts | head` ends without a word: what is left to write leads nowhere."""
    reader, writer = os.pipe()
    os.close(reader)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    monkeypatch.setattr(check, "run", lambda _: print("a line") or 0)
    with os.fdopen(writer, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(os, "open", lambda *_: nowhere)
        assert cli.main(["check"]) == os.EX_IOERR
    os.close(nowhere)


def test_streams_that_the_caller_closed_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a client's socket could become standard error, and be written to."""
    opened: list[tuple[int, str]] = []

    def fdopen(number: int, mode: str, *, closefd: bool) -> str:
        opened.append((number, mode))
        return f"stream {number}"

    monkeypatch.setattr(os, "open", lambda *_: 2)
    monkeypatch.setattr(os, "fdopen", fdopen)
    monkeypatch.setattr(sys, "stderr", None)
    cli._open_standard_streams()
    assert opened == [(2, "w")]
    assert sys.stderr == "stream 2"  # type: ignore[comparison-overlap]


def test_the_module_is_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m netsrvd` does what `netsrvd` does."""
    monkeypatch.setattr(sys, "argv", ["netsrvd", "--version"])
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("netsrvd", run_name="__main__")
    signal.signal(signal.SIGINT, handler)
    assert caught.value.code == 0
    assert netsrvd.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_a_module_with_run(name: str) -> None:
    """A command is found by its name."""
    runs: Callable[..., int] = COMMANDS[name].run
    assert callable(runs)
    assert COMMANDS[name].__doc__.startswith(f"`netsrvd {name}`")  # type: ignore[union-attr]
