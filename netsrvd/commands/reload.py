"""`netsrvd reload`: has a daemon read its configuration again, and says how that went."""

import argparse
import os
import signal
import socket
import sys

from netsrvd import reload_socket
from netsrvd.config.files import DEFAULT_FILE
from netsrvd.errors import ConfigError, NetsrvdError, ReloadError, SystemdError, UsageError
from netsrvd.escapes import escaped
from netsrvd.log.stderr import is_journal

UNITS = ("netsrvd.service", "netsrvd@*.service")
"""What `reload` without a PID is for: instances share the configuration, so all of them."""

PATIENCE_SECONDS = 60.0


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon with this PID, or each that systemd runs, and wait for the answers.

    Raises ConfigError with its reasons where the old configuration is still in force.
    """
    if arguments.pid is not None:
        _reload(arguments.pid)
        return os.EX_OK
    failed: list[tuple[str, NetsrvdError]] = []
    for unit, pid in _running():
        try:
            _reload(pid)
        except NetsrvdError as error:
            failed.append((unit, error))
    if failed:
        lines = [f"{unit}: {line}" for unit, error in failed for line in str(error).split("\n")]
        summary = NetsrvdError("\n".join(lines))
        summary.exit_status = failed[0][1].exit_status
        raise summary
    return os.EX_OK


def _running() -> list[tuple[str, int]]:
    """Return each unit of netsrvd that runs with the PID of its daemon.

    Raises UsageError where there is no systemd, and ReloadError where it runs none.
    """
    from netsrvd.systemd import systemctl  # noqa: PLC0415 - a unit's ExecReload= names the PID

    try:
        units = systemctl.texts(UNITS, ["Id", "MainPID"])
    except SystemdError as error:
        raise UsageError(f"name the process ID of the daemon: {error}") from error
    running = [(unit["Id"], int(unit.get("MainPID", "0"))) for unit in units if unit.get("Id")]
    found = sorted((unit, pid) for unit, pid in running if pid)
    if not found:
        raise ReloadError(
            "systemd runs neither netsrvd.service nor an instance: a start reads the "
            "configuration; for another daemon, name its process ID"
        )
    return found


def _reload(pid: int) -> None:
    """Have one daemon reload. Raises ConfigError, ReloadError and UsageError."""
    try:
        process = os.pidfd_open(pid)  # from here on the signal reaches this process or none
    except OSError as error:
        raise UsageError(f"there is no process {pid}: {error.strerror}") from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(PATIENCE_SECONDS)
            _connect(sock, pid)
            answer = _ask(sock, pid, process, reload_socket.look_outside(str(DEFAULT_FILE.parent)))
    finally:
        os.close(process)
    if not answer:
        raise ReloadError("the daemon ended without an answer; see its log")
    lines = [escaped(each) for each in answer.strip().splitlines()]
    problems = [line for line in lines if not line.startswith(reload_socket.WARNING)]
    if is_journal(2):  # as ExecReload= of a unit: the daemon has just written the same there
        lines = []
    if problems:
        raise ConfigError([line for line in problems if line in lines])
    for line in lines:
        print(f"netsrvd: {line}", file=sys.stderr)


def _connect(sock: socket.socket, pid: int) -> None:
    """Connect to the daemon itself: SIGHUP would end a process of another kind."""
    try:
        sock.connect(reload_socket.path(pid))
        answering, _ = reload_socket.credentials(sock)
    except BlockingIOError as error:
        raise ReloadError(f"too many wait; `kill -HUP {pid}` reloads without an answer") from error
    except PermissionError as error:
        raise UsageError(_DENIED[os.geteuid() == 0].format(pid)) from error
    except OSError as error:
        raise UsageError(f"process {pid} is no netsrvd that answers: {error.strerror}") from error
    if answering != pid:
        raise UsageError(f"process {answering} answers for {pid}, which gets no signal")


def _ask(sock: socket.socket, pid: int, process: int, seen: reload_socket.Outside) -> str:
    """Send the daemon what is `seen` here, then SIGHUP, and return its answer.

    `process` is a pidfd. An empty answer means that the daemon ended before it answered.
    """
    try:
        sock.send(seen.message())
        signal.pidfd_send_signal(process, signal.SIGHUP)
    except PermissionError as error:
        raise UsageError(_DENIED[False].format(pid)) from error
    except (ProcessLookupError, ConnectionError) as error:
        raise ReloadError("the daemon has just ended; see its log") from error
    try:
        return sock.recv(reload_socket.LONGEST_ANSWER + 1).decode(errors="replace")
    except OSError as error:
        raise ReloadError(f"the daemon has not answered: {error}; see its log") from error


_DENIED = {
    False: "process {0} is another user's; ask as root",
    True: "process {0} is another user's, and root lacks CAP_SYS_PTRACE; `kill -HUP {0}` reloads "
    "without an answer",
}
"""Why the daemon cannot be reached, by whether the caller is root."""
