"""`netsrvd check`, its words, and the files of all kinds that it and a start are given."""

import json
import os
import signal
import socket
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.clients import serves
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, Run, echo, toml

Ended = subprocess.CompletedProcess[str]
Command = Callable[..., Ended]

HOSTILE = b"conf.d/\x1b]0;title\x07\n\xff\xe2\x80\xae.toml"
"""A file name that would name the window, end a line, is no UTF-8 and turns the direction."""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """Return the path of a configuration; the folder of its drop-ins is there."""
    (tmp_path / "conf.d").mkdir()
    file = tmp_path / "netsrvd.toml"
    file.touch()
    return file


@pytest.fixture
def command(main: Path) -> Command:
    """Run a command for this configuration to its end."""

    def run(*argv: str, environment: dict[str, str] | None = None, stdout: int = -1) -> Ended:
        return subprocess.run(
            [COMMAND, *argv, "-c", main],
            env=ENVIRONMENT | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )

    return run


# --- what is no file --------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def local_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


def waiting(path: Path) -> None:
    path.symlink_to("/proc/kmsg")


KINDS = {
    "a FIFO": fifo,
    "a socket": local_socket,
    "a device": endless,
    "a device, of a terminal": terminal,
}


@pytest.mark.parametrize("name", ["netsrvd.toml", "conf.d/x.toml"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_a_fault(
    command: Command, main: Path, kind: str, name: str
) -> None:
    """Neither `check` nor a start waits for it or reads it without end: it is named."""
    path = main.parent / name
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    for verb in ("check", "run"):
        done = command(verb)
        assert done.returncode == 78
        said = done.stderr.splitlines()[0]
        what = kind.partition(",")[0]
        assert said.startswith(f"netsrvd: {path}: cannot be read: it is {what}; only regular")


def test_a_file_that_waits_for_something_to_read_is_a_fault(command: Command, main: Path) -> None:
    """Some files of /proc are regular ones and wait like a FIFO, or read without end."""
    waiting(main.parent / "conf.d/x.toml")
    done = command("check")
    assert done.returncode == 78
    assert done.stderr.startswith(f"netsrvd: {main.parent}/conf.d/x.toml: ")


def test_a_reload_does_not_wait_for_a_fifo(start: Start) -> None:
    """The reload fails, and the daemon serves on by the old configuration."""
    run = start()
    (run.config.parent / "conf.d").mkdir()
    os.mkfifo(run.config.parent / "conf.d/x.toml")
    run.send(signal.SIGHUP)
    assert "conf.d/x.toml: cannot be read: it is a FIFO" in run.wait_line("reload failed")
    assert serves(run.port)


@pytest.mark.parametrize("folder", [False, True])
def test_quotes_are_not_read_from_a_fifo(command: Command, main: Path, *, folder: bool) -> None:
    """Nor are other files that a service reads: a FIFO is a fault, and among others left out."""
    quotes = main.parent / "quotes"
    if folder:
        quotes.mkdir()
        (quotes / "good").write_text("A quote.")
    os.mkfifo(quotes / "fifo" if folder else quotes)
    main.write_text(f'[listener.lab]\nservice = "qotd"\nport = 17\nquotes = "{quotes}"')
    done = command("check")
    assert done.returncode == (0 if folder else 78)
    assert folder or f"quotes: {quotes} is neither a file nor a folder" in done.stderr


# --- names and marks --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["idle_exit = 1", "idl_exit = 1", "= 1"])
def test_names_of_files_do_not_reach_the_terminal_raw(
    command: Command, main: Path, text: str
) -> None:
    """A name that is no UTF-8 or has control characters is shown by its escapes."""
    Path(os.fsdecode(bytes(main.parent) + b"/" + HOSTILE)).write_text(text)
    for argv in (["check"], ["check", "--json"], ["explain", "echo", "::1"]):
        done = command(*argv)
        lines = (done.stdout + done.stderr).splitlines()
        assert [line for line in lines if not line.isprintable()] == []
        assert "Traceback" not in done.stderr
    done = command("check")
    assert done.returncode == (0 if text == "idle_exit = 1" else 78)
    shown = r"conf.d/\x1b]0;title\x07\n\udcff\u202e.toml:1"
    assert shown in (done.stderr or done.stdout)


def test_a_word_of_the_command_line_does_not_reach_the_terminal_raw(command: Command) -> None:
    """What is complained of is shown by its escapes."""
    for argv in (["\x1b[2J"], ["check", "\x1b[2J"], ["explain", "\x1b[2J", "::1"]):
        done = command(*argv)
        assert done.returncode == 64
        assert "\\x1b[2J" in done.stderr
        assert "\x1b" not in done.stderr


def test_a_mark_of_an_editor_is_no_fault(command: Command, main: Path) -> None:
    """UTF-8 may begin with a byte order mark; UTF-16 is named."""
    main.write_bytes(b"\xef\xbb\xbfworkers = 1\n")
    assert f"workers = 1  # {main}:1\n" in command("check").stdout
    main.write_bytes("workers = 1".encode("utf-16"))
    done = command("check")
    assert f"netsrvd: {main}:1: not valid TOML: it is UTF-16; save it as UTF-8\n" in done.stderr


# --- what it says -----------------------------------------------------------------------------


def test_it_prints_what_differs_and_a_verdict(command: Command, main: Path) -> None:
    """Without `--all` only what is not the default; the last line sums it up; all of it is TOML."""
    main.write_text('idle_exit = 0\n\n[listener.lab]\nprotocols = "tcp"\nport = 7007\n')
    done = command("check")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f'listener.lab.protocols = ["tcp"]  # {main}:4',
        f"listener.lab.port = 7007          # {main}:5",
        (
            "# valid: 1 file, serves echo (echo, tcp and udp), lab (echo, tcp); all else is "
            "default, see --all"
        ),
    ]
    everything = command("check", "--all").stdout
    assert tomllib.loads(everything)["listener"]["echo"]["port"] == 51423
    assert everything.splitlines()[-1].endswith("lab (echo, tcp)")
    assert f"idle_exit = 0{' ' * 49}# {main}:1" in everything


def test_what_it_prints_means_the_same(command: Command, main: Path) -> None:
    """Fed back, what differs is valid and differs in the same."""
    main.write_text("listener.echo.enabled = false\n[listener.lab]\nidle_timeout = '90s'\n")
    first = command("check").stdout
    main.write_text(first)
    again = command("check")
    assert again.returncode == 0
    assert [line.partition("  #")[0] for line in again.stdout.splitlines()] == [
        line.partition("  #")[0] for line in first.splitlines()
    ]


def test_files_that_are_not_read_are_named(command: Command, main: Path) -> None:
    """Whoever edits a backup, or forgets the suffix, is told."""
    names = ("a.toml~", ".a.toml", "b.conf", "c.toml.dpkg-new")
    for name in (*names, "z.toml"):
        (main.parent / "conf.d" / name).touch()
    lines = command("check").stdout.splitlines()
    told = [line.split(": ")[2] for line in lines if line.startswith("# warning: not read: ")]
    assert sorted(told) == sorted(str(main.parent / "conf.d" / name) for name in names)
    assert lines[-1].startswith("# valid: 2 files")


def test_faults_end_with_a_count(command: Command, main: Path) -> None:
    """Each with its file and line, as editors find it, and the verdict last."""
    main.write_text('wrkers = 1\n[listener.echo]\nhost = """\n"""\nport = "5000"\n')
    done = command("check")
    assert (done.returncode, done.stdout) == (78, "")
    lines = done.stderr.splitlines()
    assert [line.removeprefix(f"netsrvd: {main}:")[:2] for line in lines[:-1]] == ["1:", "3:", "5:"]
    assert lines[2].endswith("expected a port from 1 to 65535: a number, without quotes")
    assert lines[-1] == "netsrvd: not valid: 3 faults"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('max_flows = "7"', "expected a whole number from 1 to 1000000: a number, without quotes"),
        ('idle_timeout = "30"', '"2h": a number, without quotes'),
        ('enabled = "false"', "expected true or false, without quotes"),
        ('options.SO_KEEPALIVE = "true"', "expected true or false, without quotes"),
        ('options.SO_PRIORITY = "6"', ": a number, without quotes"),
        ("service = echo", "Invalid value (column 11); a text stands in quotation marks"),
        ("host = 127.0.0.1", "a text stands in quotation marks"),
    ],
)
def test_quotes_too_many_or_too_few_are_named(
    command: Command, main: Path, text: str, words: str
) -> None:
    """What is wrong with nothing but its quotes is a frequent fault, so it is said."""
    main.write_text(f"[listener.echo]\n{text}\n")
    done = command("check")
    assert done.returncode == 78
    [line, _] = done.stderr.splitlines()
    assert line.startswith(f"netsrvd: {main}:2: ")
    assert line.endswith(words)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('service = "qotd"', 3, 'listener.lab.service = "qotd": service qotd: quotes must be'),
        ('service = "qotd"\nquotes = "/nowhere"', 4, 'quotes = "/nowhere": service qotd: quotes: '),
        ('service = "active"', 3, "active_listeners must name"),
        ('service = "python:nowhere:f"', 3, "importing nowhere failed: ModuleNotFoundError"),
    ],
)
def test_faults_of_services_name_their_place(
    command: Command, main: Path, text: str, line: int, words: str
) -> None:
    """What a service cannot use stands in a file, at a line: `check` and `run` say where."""
    main.write_text(f"[listener.lab]\nport = 17\n{text}\n")
    for verb in ("check", "run"):
        said = command(verb).stderr.splitlines()[0]
        assert said.startswith(f"netsrvd: {main}:{line}: listener.lab.")
        assert words in said


def test_a_port_that_is_wanted_twice_is_one_fault(command: Command, main: Path) -> None:
    """Not one for each protocol and family."""
    main.write_text("[listener.lab]\n")
    done = command("check")
    assert len(done.stderr.splitlines()) == 2
    assert "port 51423 (tcp 0.0.0.0, tcp ::, udp 0.0.0.0, udp ::) is also wanted" in done.stderr


def test_a_port_of_another_program_is_a_warning(
    command: Command, main: Path, start: Start, port: int
) -> None:
    """The program is named, if its descriptors can be seen; another netsrvd, which may be the one
    that serves this file now, is none.
    """
    main.write_text(f'[listener.echo]\nhost = "127.0.0.1"\nport = {port}\n')
    with socket.create_server(("", port)):
        [warning] = json.loads(command("check", "--json").stdout)["warnings"]
    assert f"listener echo: tcp 127.0.0.1:{port} is in use by " in warning
    assert f" ({os.getpid()}), tcp 0.0.0.0:{port}: stop that, or give the listener" in warning
    start(echo(port))
    assert "warning" not in command("check").stdout


def test_programs_can_read_it(command: Command, main: Path) -> None:
    """`--json` has faults and settings with their places, and the same exit status."""
    main.write_text("[listener.echo]\nport = 7007\n")
    done = command("check", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["valid"], found["faults"]) == (0, "", True, [])
    assert found["files"] == [str(main)]
    by_key = {each.pop("key"): each for each in found["settings"]}
    assert by_key["listener.echo.port"] == {
        "value": 7007,
        "default": False,
        "file": str(main),
        "line": 2,
    }
    assert by_key["idle_exit"] == {"value": 0, "default": True, "file": None, "line": None}
    main.write_text("[listener.echo]\nport = 0\n")
    done = command("check", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["valid"]) == (78, "", False)
    assert found["faults"] == [
        {
            "file": str(main),
            "line": 2,
            "key": "listener.echo.port",
            "text": "listener.echo.port = 0: expected a port from 1 to 65535",
        }
    ]


def test_programs_can_read_why(command: Command, main: Path) -> None:
    """`explain --json` has the verdict, the rule and the settings behind it."""
    main.write_text('[listener.echo]\ndeny = "192.0.2.0/24"\n')
    done = command("explain", "echo", "192.0.2.7:40000", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["allowed"], found["reason"], found["address"], found["port"]) == (
        *(False, "access", "192.0.2.7"),
        40000,
    )
    assert found["rule"] == 'deny has "192.0.2.0/24"'
    assert {each["key"]: each["line"] for each in found["settings"]}["listener.echo.deny"] == 2
    done = command("explain", "echo", "::1", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["allowed"], found["reason"]) == (0, True, None)


# --- how it ends ------------------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "argv", [["check"], ["check", "--help"], ["explain", "echo", "::1"], ["sockopts"]]
)
def test_a_full_disk_is_one_line(command: Command, argv: list[str], unbuffered: str) -> None:
    """Output that cannot be written ends with EX_IOERR and one line, without a traceback."""
    with Path("/dev/full").open("w") as full:
        done = command(*argv, stdout=full.fileno(), environment={"PYTHONUNBUFFERED": unbuffered})
    assert done.returncode == 74
    assert done.stderr == "netsrvd: standard output: No space left on device\n"


def test_errors_that_nobody_can_read_change_no_status(command: Command, main: Path) -> None:
    """A fault is a fault, although there is no room to tell it."""
    main.write_text("wrkers = 1")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [COMMAND, "check", "-c", main],
            env=ENVIRONMENT,
            stderr=full,
            timeout=PATIENCE,
            check=False,
        )
    assert done.returncode == 78


SWALLOWED = """
import os, weakref
class Lock: ...
lock = Lock()
watched = weakref.ref(lock, lambda _: os.kill(os.getpid(), 2))
del lock
raise OSError("the interrupt was swallowed")
"""


@pytest.mark.parametrize("verb", ["check", "run", "sockopts"])
def test_an_interrupt_during_the_imports_is_quiet(
    command: Command, tmp_path: Path, verb: str
) -> None:
    """Ctrl-C in the first moments ends it without a traceback, also where Python would swallow it:
    in the callback of a weak reference, as those of import locks are. (A shell says 130.)
    """
    (tmp_path / "argparse.py").write_text(SWALLOWED)
    done = command(verb, environment={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


THREADED = """
import threading
threading.Thread(target=threading.Event().wait, name="forever\\x1b").start()
def serve(connection): ...
"""


@pytest.mark.parametrize(("port", "status"), [(17, 0), (0, 78)])
def test_it_ends_in_spite_of_threads(
    command: Command, main: Path, tmp_path: Path, port: int, status: int
) -> None:
    """A module that starts a thread when it is imported is told of; the status is that of all else,
    and nothing of the output is lost.
    """
    (tmp_path / "threaded.py").write_text(THREADED)
    main.write_text('[listener.lab]\nservice = "python:threaded:serve"\nport = 17\n')
    if not port:  # a second service that cannot be had
        main.write_text(main.read_text() + '[listener.q]\nservice = "qotd"\nport = 18\n')
    done = command("check", environment={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == status
    last = done.stderr.splitlines()[-1]
    assert last == "netsrvd: threads that code of a handler started are cut off: forever\\x1b"
    assert status or done.stdout.splitlines()[-1].startswith("# valid: ")


# --- packages of others -----------------------------------------------------------------------


@pytest.fixture
def malformed(tmp_path: Path) -> dict[str, str]:
    """Install a package with a malformed list of entry points, and a good one; return the way."""
    for name, entries in (("bad", "no sign"), ("good", "finger = fingers:serve")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[netsrvd.services]\n{entries}\n")
    (tmp_path / "fingers.py").write_text("def serve(connection): ...")
    return {"PYTHONPATH": str(tmp_path)}


def test_a_malformed_package_is_named(
    command: Command, main: Path, malformed: dict[str, str]
) -> None:
    """A service that is mistyped is a fault, which says whose list cannot be read."""
    main.write_text('[listener.echo]\nservice = "eco"\n')
    for verb in ("check", "run"):
        done = command(verb, environment=malformed)
        assert done.returncode == 78
        line = done.stderr.splitlines()[0]
        assert 'service = "eco": expected one of "echo"' in line
        assert "the entry points of the installed package bad cannot be read: TypeError: " in line
        assert f"repair or remove it in {main.parent}" in line


def test_a_malformed_package_hides_no_other(
    command: Command, main: Path, malformed: dict[str, str]
) -> None:
    """The handlers of other packages have their names all the same."""
    main.write_text('[listener.echo]\nservice = "finger"\n')
    assert command("check", environment=malformed).returncode == 0


def test_a_malformed_package_does_not_end_the_daemon(
    start: Start, malformed: dict[str, str]
) -> None:
    """At a reload it is a fault like others: the old configuration stays."""
    run: Run = start(environment=malformed)
    run.configure(toml(echo(run.port, service="eco")))
    run.send(signal.SIGHUP)
    assert "the entry points of the installed package bad cannot" in run.wait_line("reload failed")
    assert serves(run.port)


def test_the_status_line_has_no_raw_names(start: Start) -> None:
    """What systemctl shows on a terminal has the escapes as well, at a start and a reload."""
    run = start()
    (run.config.parent / "conf.d").mkdir()
    (run.config.parent / "conf.d/\x1b[2J.toml").write_text("= 1")
    run.send(signal.SIGHUP)
    status = run.wait_notice("STATUS", 1 + len(run.notices_with("STATUS")))["STATUS"]
    while "Reload failed" not in status:
        status = run.wait_notice("STATUS", 1 + len(run.notices_with("STATUS")))["STATUS"]
    assert "conf.d/\\x1b[2J.toml:1: " in status
    assert status.isprintable()


def test_a_setting_that_is_not_used_any_more_is_a_warning(command: Command, main: Path) -> None:
    """`check` names it and its line, and the configuration is valid."""
    main.write_text("workers = 3\n")
    done = command("check")
    assert done.returncode == 0
    assert f"# warning: ignored: {main}:1: workers = 3: it is not used any more" in done.stdout
    main.write_text("")
    assert "workers" not in command("check", "--all").stdout
