"""Leaves the terminal, the classic way: fork, new session, PID file (daemon(7), PEP 3143)."""

import fcntl
import os
import signal
import socket
import stat
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from netsrvd.errors import (
    DetachError,
    NetsrvdError,
    ResourceError,
    UsageError,
    failing_import,
    shortage,
)
from netsrvd.tracebacks import described

UMASK = 0o027
READY = b"ready"

Serve = Callable[[Callable[[], None]], int]
"""Serves until the end and returns the exit status; calls its argument when it is ready."""


class User(NamedTuple):
    """The user that a daemon becomes if root has started it."""

    name: str
    uid: int
    gid: int

    def become(self) -> None:
        """Give up root for good: groups first, as only root may set them (credentials(7))."""
        os.initgroups(self.name, self.gid)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)


def user(name: str) -> User:
    """Return the user of this name. Raises UsageError if there is none, or if not root calls."""
    import pwd  # noqa: PLC0415 - only needed with --user

    if os.geteuid() != 0:
        raise UsageError("--user takes root, which would be given up; leave it out")
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise UsageError(f"there is no user {name}; `adduser --system {name}` adds one") from error
    return User(name, entry.pw_uid, entry.pw_gid)


def detached(
    serve: Serve, sockets: list[socket.socket], pid_file: Path | None, owner: User | None = None
) -> int:
    """Run `serve` off the terminal; return 0 in the caller when it is ready.

    The sockets stay open in the daemon, which becomes its owner before it serves. Raises
    DetachError, in the caller, if the PID file is held by another daemon or the daemon ended before
    it was ready.
    """
    lock = PidFile(pid_file) if pid_file else None
    _import_daemon()
    reader, writer = os.pipe()
    try:
        is_caller = bool(os.fork())
    except OSError as error:  # EAGAIN: TasksMax= or `ulimit -u`
        raise ResourceError(
            f"no process can be had: {error.strerror}; raise `ulimit -u`"
        ) from error
    if is_caller:
        os.close(writer)
        # The daemon alone takes signals as work; the caller, which only waits, ends by them.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return _await_ready(reader)
    os.close(reader)
    status = os.EX_SOFTWARE
    caller = FileIO(writer, "w")
    try:
        status = _become_daemon(serve, sockets, lock, caller, owner)
    except Exception as error:  # noqa: BLE001 - the caller raises it
        if not caller.closed:
            known = error if isinstance(error, NetsrvdError) else shortage(error)
            caller.write((str(known) if known else described(error)).encode())
    finally:
        os._exit(status)


def _import_daemon() -> None:
    """Import python-daemon (24 ms, up to 80 MB if it is old); report a lack of it."""
    try:
        import daemon  # noqa: F401, PLC0415 - only needed with --detach
    except Exception as error:
        raise failing_import(error) from error


def _become_daemon(
    serve: Serve,
    sockets: list[socket.socket],
    lock: "PidFile | None",
    caller: FileIO,
    owner: User | None,
) -> int:
    from daemon import DaemonContext  # noqa: PLC0415 - see _import_daemon

    keep = [caller, *sockets, *([lock.descriptor] if lock else [])]
    # detach_process is said outright: left to itself, python-daemon would not fork where the
    # parent is PID 1 or standard input a socket, and it would set the umask to 0.
    with DaemonContext(
        detach_process=True,
        files_preserve=keep,
        umask=UMASK,
        working_directory="/",
        signal_map={},
    ):
        if lock:
            lock.write()
        if owner:
            owner.become()

        def ready() -> None:
            caller.write(READY)
            caller.close()

        try:
            return serve(ready)
        finally:
            if lock:
                lock.remove()


def _await_ready(reader: int) -> int:
    """Wait until the daemon serves or has ended, which closes its end of the pipe."""
    os.wait()  # the child that forked the daemon and ended
    with open(reader, "rb") as pipe:
        told = pipe.read()
    if told == READY:
        return os.EX_OK
    reason = told.decode() or "its last records are in the log"
    raise DetachError(f"the daemon ended before it was ready: {reason}")


class PidFile:
    """A file with the daemon's PID, locked with flock(2) as long as the daemon lives.

    The kernel releases the lock of a dead owner, so a file that was left behind does no harm.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.descriptor = self._locked(path)
        while not self._is_there():  # its last owner removed it between the open and the lock
            os.close(self.descriptor)
            self.descriptor = self._locked(path)

    def write(self) -> None:
        """Write the PID of this process, which must be the daemon by now."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()}\n".encode(), 0)

    def remove(self) -> None:
        """Remove the file while it is still locked; empty it if its folder is another user's."""
        try:
            self._path.unlink(missing_ok=True)
        except PermissionError:
            os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)

    def _locked(self, path: Path) -> int:
        try:
            # O_NONBLOCK: a FIFO is not waited for.
            how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self._path, how, 0o644)
        except OSError as error:
            raise DetachError(f"PID file {path}: {error.strerror}; name another one") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DetachError(f"PID file {path} is no regular file; name another one")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise DetachError(
                f"PID file {path} is held by a running daemon, PID {holder or 'unknown'}; "
                "stop it or name another file"
            ) from error
        return descriptor

    def _is_there(self) -> bool:
        """Return whether the name still leads to the file that is locked."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self.descriptor))
        except FileNotFoundError:
            return False
