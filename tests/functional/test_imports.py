"""What a start imports: the first client waits for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from netsrvd.settings import DEFAULT_PORT
from tests.functional.conftest import Start
from tests.support.clients import serves
from tests.support.run import Run

PACKAGED = Path(__file__).parents[2] / "packaging/netsrvd.toml"

PLANTED = """
from netsrvd import daemon
from netsrvd.shutdown import Shutdown
daemon.PRELOAD_SECONDS = daemon.TICK_SECONDS
def end(self, *more, end=Shutdown.run, **named):
    print("IMPORTED", *sys.modules, file=sys.stderr)
    return end(self, *more, **named)
Shutdown.run = end
"""

NO_FILE = """
from pathlib import Path
from netsrvd.config import files
files.DEFAULT_FILE = Path("/nonexistent")
"""

COMPILED = """
import typing
def told(self, text, *more, init=typing.ForwardRef.__init__, **named):
    print("COMPILED", text, file=sys.stderr)
    init(self, text, *more, **named)
typing.ForwardRef.__init__ = told
"""

PUBLIC = {
    *("argparse", "collections", "contextlib", "copyreg", "ctypes", "datetime", "enum", "errno"),
    *("fnmatch", "functools", "gettext", "glob", "importlib", "ipaddress", "itertools"),
    *("keyword", "locale", "mmap", "netsrvd", "ntpath", "operator", "pathlib", "re", "reprlib"),
    *("resource", "select", "selectors", "signal", "socket", "string", "struct", "threading"),
    *("tomllib", "types", "typing", "urllib", "warnings", "weakref"),
}
"""Of Python's own modules, those that a daemon which serves TCP and UDP echo has imported."""

OURS = {
    *("__main__", "access", "addresses", "arguments", "cli", "commands", "config", "connection"),
    *("contracts", "control", "counters", "daemon", "errnos", "errors", "escapes", "event_loop"),
    *("events", "flow", "linux", "log", "loop_thread", "proxy_datagrams", "proxy_pending"),
    *("proxy_protocol", "run_state", "server", "services", "settings", "shutdown", "sockets"),
    *("startup", "systemd", "tcp", "tracebacks", "udp", "units", "upgrade"),
}
"""Its packages and modules; no hand-over, and of services and events only what is used."""

NOT_OURS = {
    *("netsrvd.services.chargen", "netsrvd.services.discard", "netsrvd.events.handover"),
    *("netsrvd.handover", "netsrvd.linux.memfd", "netsrvd.linux.reply"),
    *("netsrvd.detach", "fcntl"),
    *("netsrvd.handlers", "netsrvd.services.handler", "netsrvd.events.handlers"),
    *("netsrvd.services.shown",),
    *("netsrvd.commands.inetd", "netsrvd.sockets.inetd", "netsrvd.log.stderr_to_log"),
    *("netsrvd.commands.check", "netsrvd.commands.sockopts"),
    *("netsrvd.timed", "netsrvd.services.timed", "netsrvd.services.stamp"),
    *("netsrvd.services.echoplus", "netsrvd.packets"),
}


def bare() -> set[str]:
    """Return what Python imports by itself, with the paths of this installation."""
    program = "import sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return {name.partition(".")[0] for name in found.stdout.decode().split()}


def imported(run: Run) -> set[str]:
    """End a daemon with `PLANTED`; return the modules that it had imported until then."""
    run.allow("IMPORTED ")
    run.end()
    [line] = run.lines_with("IMPORTED ")
    return {*line.split()[1:]}


def test_nothing_is_imported_before_it_is_needed(start: Start) -> None:
    """A daemon that has served both protocols knows these modules and no others."""
    run = start(planted=PLANTED)
    assert serves(run.port)
    found = imported(run) - {*sys.builtin_module_names}
    everything = {name.partition(".")[0] for name in found if not name.startswith("_")}
    assert everything - bare() - PUBLIC == set()
    own = {name.split(".")[1] for name in found if name.startswith("netsrvd.")}
    assert own == OURS
    assert not found & NOT_OURS


@pytest.mark.usefixtures("alone")
def test_what_reads_toml_is_imported_for_settings_alone(start: Start) -> None:
    """The file of a new installation has nothing but comments, and waits for no module."""
    run = start(PACKAGED.read_text(), planted=PLANTED)
    assert serves(DEFAULT_PORT)
    assert not imported(run) & {"datetime", "string", "tomllib"}


@pytest.mark.usefixtures("alone")
def test_a_start_by_systemd_waits_for_no_parser(start: Start) -> None:
    """`netsrvd run`, which the unit starts, has no options: argparse is not imported for it."""
    run = start("", planted=f"sys.argv[1:] = ['run']{NO_FILE}{PLANTED}")
    assert serves(DEFAULT_PORT)
    assert not imported(run) & {"argparse", "gettext", "netsrvd.arguments"}


@pytest.mark.usefixtures("alone")
def test_no_annotation_is_a_text(start: Start) -> None:
    """A field of a NamedTuple that has one costs 0.7 ms of a start, unless tomllib, which has some,
    is needed: typing compiles the text, and the first use of `compile` makes all types of `ast`.
    """
    run = start(PACKAGED.read_text(), planted=COMPILED)
    run.allow("COMPILED ")
    assert serves(DEFAULT_PORT)
    assert run.lines_with("COMPILED ") == []


def test_a_control_socket_alone_imports_no_answers(start: Start, tmp_path: Path) -> None:
    """A daemon with a control socket knows how to accept a caller, and no more, until it has served
    for a second or the first one comes: neither its code nor json is there.
    """
    path = str(tmp_path / "control")
    run = start(None, "--control", path, planted=PLANTED)
    assert serves(run.port)
    found = imported(run)
    control = {name for name in found if name.startswith("netsrvd.control")}
    assert control == {"netsrvd.control", "netsrvd.control.listening"}
    assert not found & {"json", "netsrvd.snapshot"}
