"""The command line: its arguments, and the command that they belong to."""

import argparse
import gc
import importlib
import io
import os
import signal
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from errno import EPIPE
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn, TextIO

import netsrvd
from netsrvd.errors import NetsrvdError, failing_import, shortage
from netsrvd.escapes import escaped

BEGAN_AT = monotonic()
USUAL_COLUMNS = 80

MOST_USAGE_LINES = 6
"""Lines of a usage that are shown above an error; more would hide it."""

PID_DIGITS = 10

NAGIOS_UNKNOWN = 3
"""The status of a plugin of Nagios that cannot do its work."""

HANDLERS = "netsrvd.services.handler"
"""The module that imports the modules of handlers."""

COMMANDS = {
    "run": "serve until SIGTERM or Ctrl-C",
    "check": "check the configuration and print what it changes",
    "apply": "put the configuration into force under systemd",
    "explain": "say whether a client is admitted, and why",
    "reload": "make a daemon read its configuration again",
    "status": "show the state of each daemon, or its connections",
    "metrics": "print the metrics for Prometheus once",
    "top": "show the state of a daemon on a terminal, once a second",
    "probe": "measure the path to a host and back",
    "sockopts": "list the socket options of this system or of a listener",
}
"""What each command does, in the order of `netsrvd --help`."""


def main(argv: list[str] | None = None) -> int:
    """Run the command that `argv` (default: sys.argv[1:]) names; return the exit status.

    The statuses are those of sysexits.h; an error is one line or more on standard error.
    """
    try:
        _open_standard_streams()
        return _main(argv)
    except (ImportError, SyntaxError) as error:
        broken = failing_import(error)
        _complain(str(broken))
        _turn_away()
        return broken.exit_status


def _main(argv: list[str] | None) -> int:
    """Run a command with the streams that are open; return the exit status."""
    before, errors = sys.stdout, sys.stderr
    sys.stdout = Output(before, _raise)
    if isinstance(errors, io.TextIOWrapper):  # not `StderrToLog`, whose writing never fails
        sys.stderr = Output(errors, lambda _: _give_up(errors))
    try:
        status, command = _run(argv)
    except KeyboardInterrupt:  # before the daemon takes signals as work
        return 128 + signal.SIGINT
    except OutputError as error:
        _give_up(before)
        if error.errno != EPIPE:  # `netsrvd sockopts | head` is no fault
            _complain(str(error))
        return error.exit_status
    except (OSError, MemoryError) as error:
        if (short := shortage(error)) is None:
            raise
        _complain(str(short))
        return short.exit_status
    finally:
        sys.stdout, sys.stderr = before, errors
    if command != "run":
        _end_in_spite_of_threads(status)
    elif (handler := sys.modules.get(HANDLERS)) and handler.imported:
        _end_at_once(status)
    return status


def _run(argv: list[str] | None) -> tuple[int, str]:
    """Return the exit status of a command line, and which command it was."""
    try:
        words = sys.argv[1:] if argv is None else argv
        arguments = parser(words[0] if words else None).parse_args(words)
        arguments.began_at = BEGAN_AT
        command = importlib.import_module(f"netsrvd.commands.{arguments.command}")
        gc.freeze()  # what has been imported stays: no collection need look through it
        gc.enable()
        status = int(command.run(arguments))
    except OutputError:
        raise
    except NetsrvdError as error:
        _complain(str(error))
        status = error.exit_status
    except SystemExit as end:  # of argparse
        if end.code == os.EX_USAGE and words[:1] == ["probe"] and "--nagios" in words:
            end.code = NAGIOS_UNKNOWN
            print("PROBE UNKNOWN - wrong arguments; netsrvd probe --help lists them")
        sys.stdout.flush()
        raise
    sys.stdout.flush()
    return status, arguments.command


def _complain(text: str) -> None:
    """Print a text of one line or more on standard error."""
    for line in filter(None, text.split("\n")):
        print(f"netsrvd: {escaped(line)}", file=sys.stderr)


def _give_up(stream: TextIO) -> None:
    """Discard what is left for a stream: Python would write it again at the exit, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class OutputError(NetsrvdError):
    """Standard output cannot be written to: the operator must look where it leads."""

    exit_status = os.EX_IOERR

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror}")
        self.errno = error.errno


def _raise(error: OSError) -> NoReturn:
    raise OutputError(error) from error


class Output(io.TextIOBase):
    """Standard output or standard error, whose errors of writing are told from all others."""

    def __init__(self, stream: TextIO, on_error: Callable[[OSError], None]) -> None:
        """Write to a stream; `on_error` is given what fails, and may raise another error."""
        self._stream = stream
        self._on_error = on_error

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._on_error(error)
            return len(text)

    def flush(self) -> None:
        """Write what has been kept back."""
        try:
            self._stream.flush()
        except OSError as error:
            self._on_error(error)

    @property
    def encoding(self) -> str:  # type: ignore[override] # it is never set
        """The encoding of its bytes."""
        return self._stream.encoding

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return self._stream.isatty()


def _end_at_once(status: int) -> None:
    """End the process, also if a module of a handler has left threads behind.

    Python would wait for its threads, for the tasks of its executors and for what it has registered
    with atexit: a stop would take until systemd kills the daemon, and a restart would not go on.
    All that is the daemon's own has been written and closed by now.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _end_in_spite_of_threads(status: int) -> None:
    """End the process if a module of a handler has started threads that Python would wait for."""
    threading = sys.modules.get("threading")
    if threading is None:
        return
    mine = threading.current_thread()
    left = [each.name for each in threading.enumerate() if not (each.daemon or each is mine)]
    if left:
        names = escaped(", ".join(left))
        print(
            f"netsrvd: threads that code of a handler started are cut off: {names}", file=sys.stderr
        )
        sys.stderr.flush()
        os._exit(status)


def _turn_away() -> None:
    """End the connections that wait in sockets of systemd's: no daemon will serve them."""
    with suppress(ImportError, SyntaxError):
        from netsrvd.sockets.activation import turn_away_unnamed  # noqa: PLC0415

        turn_away_unnamed()


def _open_standard_streams() -> None:
    """Open /dev/null for those of 0, 1 and 2 that the caller closed.

    A client's socket would be given that number, and be written to as standard error.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):  # an encoding may lack what is printable elsewhere
        sys.stdout.reconfigure(errors="backslashreplace")
    if stat.S_ISSOCK(os.fstat(1).st_mode) or stat.S_ISSOCK(os.fstat(2).st_mode):
        _hide_from_client()


def _hide_from_client() -> None:
    """Send errors to the log, not to a client: inetd makes its socket all three descriptors."""
    from netsrvd.sockets import inetd  # noqa: PLC0415 - only needed with sockets there

    if inetd.hide_from_client():
        from netsrvd.log.stderr_to_log import StderrToLog  # noqa: PLC0415

        sys.stderr = StderrToLog()


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line: for all commands, or just for this one.

    A start need not wait for the arguments of other commands.
    """
    top = Parser(
        prog="netsrvd", description="Serve small network services, such as TCP and UDP echo."
    )
    top.add_argument("--version", action="version", version=f"netsrvd {netsrvd.__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for name in (command,) if command in COMMANDS else COMMANDS:
        text = COMMANDS[name]
        one = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_shared(one, name)
        if name in OWN_ARGUMENTS:
            OWN_ARGUMENTS[name](one)
    return top


def _add_shared(parser: "Parser", name: str) -> None:
    """Add those options of a command that several have."""
    if name in ("run", "check", "explain", "sockopts"):
        parser.add_argument(
            *("-c", "--config"),
            type=Path,
            metavar="FILE",
            help="read FILE and conf.d/*.toml beside it (default: /etc/netsrvd/netsrvd.toml)",
        )
    if name in ("check", "apply", "explain", "status", "sockopts"):
        parser.add_argument(
            "--json",
            action="store_true",
            help="print JSON, also if there are faults" if name == "check" else "print JSON",
        )
    if name in ("status", "top", "metrics"):
        parser.add_argument(
            "--control",
            metavar="PATH",
            help="ask the daemon at this socket, not those that systemd runs",
        )


def _add_run(run: "Parser") -> None:
    """Add the arguments of `run` alone."""
    run.add_argument(
        "--detach", action="store_true", help="serve in the background, and log to syslog"
    )
    run.add_argument(
        *("--pid-file",),
        type=Path,
        metavar="FILE",
        help="with --detach: write the process ID into FILE and hold it locked",
    )
    run.add_argument(
        "--user", metavar="NAME", help="with --detach: become this user when the sockets are open"
    )
    run.add_argument(
        "--inetd", action="store_true", help="serve the connection on standard input, and exit"
    )
    run.add_argument(
        "--listener", metavar="NAME", help="with --inetd: serve as this listener, not the first"
    )
    run.add_argument(
        "--log",
        choices=("auto", "journal", "syslog", "stderr"),
        help="where records go, whatever the configuration says",
    )
    run.add_argument(
        "--control",
        metavar="PATH",
        help="answer `netsrvd status` at this socket, or at an abstract name: @NAME",
    )


def _add_check(check: "Parser") -> None:
    """Add the arguments of `check` alone."""
    check.add_argument(
        "--all", action="store_true", help="print all settings, also those with their defaults"
    )


def _add_apply(apply: "Parser") -> None:
    """Add the arguments of `apply` alone."""
    apply.add_argument(
        "--dry-run", action="store_true", help="show what would change, and change nothing"
    )
    apply.add_argument(
        "--rollback", action="store_true", help="restore and apply the last good configuration"
    )


def _add_explain(explain: "Parser") -> None:
    """Add the arguments of `explain` alone."""
    explain.add_argument(
        "--udp", action="store_true", help="judge a datagram instead of a connection"
    )
    explain.add_argument("listener", help="name of a listener")
    explain.add_argument("address", help="IP address, with or without a port: 192.0.2.1:40000")


def _add_reload(reload: "Parser") -> None:
    """Add the arguments of `reload`."""
    reload.add_argument(
        *("pid",),
        type=_pid,
        nargs="?",
        metavar="PID",
        help="process ID of the daemon (default: each that systemd runs)",
    )


def _add_status(status: "Parser") -> None:
    """Add the arguments of `status` alone."""
    status.add_argument(
        "what", nargs="?", choices=("connections",), help="list the live connections"
    )
    status.add_argument(
        "--listener", metavar="NAME", help="with connections: only those of this listener"
    )
    status.add_argument(
        "--address", metavar="NETWORK", help="with connections: only those of these clients"
    )
    for name, level in (("warn", "a warning"), ("crit", "critical")):
        status.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME=RANGE",
            help=f"work as a monitoring plugin: {level} if this figure is out of range",
        )


def _add_metrics(metrics: "Parser") -> None:
    """Add the arguments of `metrics` alone."""
    metrics.add_argument(
        "--openmetrics", action="store_true", help="print OpenMetrics, not Prometheus' text format"
    )


def _add_probe(probe: "Parser") -> None:
    """Add the arguments of `probe`."""
    from netsrvd.probe.arguments import add  # noqa: PLC0415 - for this command alone

    add(probe)


def _add_sockopts(sockopts: "Parser") -> None:
    """Add the arguments of `sockopts` alone."""
    sockopts.add_argument(
        "--listener", metavar="NAME", help="show what the configuration of this listener sets"
    )


OWN_ARGUMENTS: dict[str, Callable[["Parser"], None]] = {
    "run": _add_run,
    "check": _add_check,
    "apply": _add_apply,
    "explain": _add_explain,
    "reload": _add_reload,
    "status": _add_status,
    "metrics": _add_metrics,
    "probe": _add_probe,
    "sockopts": _add_sockopts,
}


def _pid(text: str) -> int:
    known = text.isascii() and text.isdecimal() and len(text) <= PID_DIGITS
    if not (known and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"expected a process ID, not {text!r}")
    return int(text)


class Help(argparse.HelpFormatter):
    """A help text as wide as the terminal. argparse itself, which makes one for each argument,
    would import shutil and all compressors for this.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (ValueError, OSError):  # no number, no terminal
            columns = 0
        super().__init__(prog, width=(columns or USUAL_COLUMNS) - 2)


class Parser(argparse.ArgumentParser):
    """A parser whose help names its manual page, and whose errors end with EX_USAGE."""

    def __init__(self, prog: str, **settings: Any) -> None:
        page = prog.replace(" ", "-")
        super().__init__(prog, epilog=f"See {page}(1).", formatter_class=Help, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the usage, if it is short, and the error, and exit."""
        usage, more = self.format_usage(), ""
        if usage.count("\n") > MOST_USAGE_LINES:
            usage, more = "", f"; {self.prog} --help lists the arguments"
        self.exit(os.EX_USAGE, f"{usage}{self.prog}: {escaped(message)}{more}\n")
