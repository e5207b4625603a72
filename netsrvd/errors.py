"""Errors that end a command; each type says who must act and with which exit status.

The exit statuses are those of sysexits(3). The text of each of these errors is shown on the
terminal as it is, so it names the place and the remedy.
"""

import errno
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple


class NetsrvdError(Exception):
    """The root of all errors that are shown without a traceback; `str()` may have several lines."""

    exit_status = os.EX_SOFTWARE


class UsageError(NetsrvdError):
    """The command line asks for something that cannot be: the operator must act."""

    exit_status = os.EX_USAGE


class HostError(NetsrvdError):
    """A host has no address: the operator must correct its name or look at the resolver."""

    exit_status = os.EX_NOHOST


class Fault(NamedTuple):
    """One fault of the configuration. `str()` is its line, with `FILE:LINE: ` at its beginning."""

    text: str
    """The key with its value, and what is wrong."""
    file: str = ""
    """The file's name with escapes for what is not printable; empty where no file is at fault."""
    line: int = 0
    """Counted from 1; 0 where no line is at fault."""
    key: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return what is shown to the operator."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.text}" if place else self.text


class ConfigError(NetsrvdError):
    """The configuration is wrong: the operator must act. `problems` holds a line for each fault."""

    exit_status = os.EX_CONFIG

    def __init__(self, faults: Sequence[str | Fault]) -> None:
        self.faults = [each if isinstance(each, Fault) else Fault(each) for each in faults]
        self.problems = [str(each) for each in self.faults]
        super().__init__("\n".join(self.problems))


class ControlError(NetsrvdError):
    """A daemon did not answer on its control socket: the operator must look at the daemon."""

    exit_status = os.EX_UNAVAILABLE


class SocketError(NetsrvdError):
    """A socket could not be made as configured: the host's network or its owner must change."""

    exit_status = os.EX_UNAVAILABLE


class PrivilegeError(SocketError):
    """The kernel refused for want of a privilege: the operator must grant it or ask for less."""

    exit_status = os.EX_NOPERM


class ResourceError(NetsrvdError):
    """The system gave no thread, memory or descriptor: the operator must raise a limit."""

    exit_status = os.EX_OSERR


class ActivationError(NetsrvdError):
    """A socket that systemd passed does not fit: the socket unit must be changed."""

    exit_status = os.EX_CONFIG


class SystemdError(NetsrvdError):
    """systemd refused something, or a unit of it failed: the operator must look at that unit."""

    exit_status = os.EX_UNAVAILABLE


class DetachError(NetsrvdError):
    """The daemon could not leave the terminal: PID file, log or working directory."""

    exit_status = os.EX_CANTCREAT


class FileError(NetsrvdError):
    """A file that was asked for cannot be written."""

    exit_status = os.EX_IOERR


class DependencyError(NetsrvdError):
    """A module cannot be imported: the operator must repair what is installed."""


_LIMITS = {
    errno.EMFILE: "raise LimitNOFILE= or `ulimit -n`",
    errno.ENFILE: "raise fs.file-max, a limit of the whole system",
    errno.ENOMEM: "raise MemoryMax= or free memory",
    errno.ENOBUFS: "raise MemoryMax= or free memory",
    errno.ENOSPC: "raise fs.epoll.max_user_watches",
}
"""What to raise after an error of a call that makes sockets, threads or their descriptors."""


def shortage(error: BaseException) -> ResourceError | None:
    """Return the error to show in place of one that reports a lack of memory or descriptors.

    Return None for every other error.
    """
    if isinstance(error, MemoryError):
        return ResourceError(f"there is no memory left: {_LIMITS[errno.ENOMEM]}")
    if not isinstance(error, OSError):
        return None
    remedy = _LIMITS.get(error.errno or 0)
    return ResourceError(f"{os.strerror(error.errno or 0)}: {remedy}") if remedy else None


def failing_import(error: BaseException) -> DependencyError:
    """Return the error to show, in one line, in place of one that an import has raised."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    return DependencyError(
        f"{_file_of(error)}: an import fails: {kind}: {text}; if another package has put that file "
        "there, remove it; otherwise install netsrvd and the packages that it needs again"
    )


def _file_of(error: BaseException) -> str:
    """Return the file that a failing import has found, or else the one that wanted it."""
    name: str = getattr(error, "name", None) or ""
    package = sys.modules.get(name.partition(".")[0])
    named = getattr(error, "path", None) or getattr(error, "filename", None)
    if named := named or getattr(package, "__file__", None):
        return str(named)
    trace, file = error.__traceback__, "netsrvd"
    while trace:
        code, trace = trace.tb_frame.f_code, trace.tb_next
        file = file if code.co_filename.startswith("<") else code.co_filename
    return file
