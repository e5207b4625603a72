"""The command line: runs the command that it names, and ends the process."""

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
from time import monotonic
from types import SimpleNamespace
from typing import Any, NoReturn, TextIO

from netsrvd.errors import NetsrvdError, failing_import, shortage
from netsrvd.escapes import escaped

BEGAN_AT = monotonic()
NAGIOS_UNKNOWN = 3
"""The status of a plugin of Nagios that cannot do its work."""

RUN: dict[str, object] = {
    "command": "run",
    "detach": False,
    "inetd": False,
    **dict.fromkeys(("config", "control", "listener", "log", "pid_file", "user")),
}
"""The arguments of `netsrvd run` without options."""

HANDLERS = "netsrvd.services.handler"
"""The module that imports the modules of handlers."""


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
        arguments = _arguments(words)
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


def _arguments(words: list[str]) -> Any:
    """Return the arguments of a command line.

    What systemd starts is `netsrvd run`, whose first client need not wait for argparse (4 ms).
    """
    if words == ["run"]:
        return SimpleNamespace(**RUN)
    from netsrvd.arguments import parser  # noqa: PLC0415 - see above

    return parser(words[0] if words else None).parse_args(words)


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
