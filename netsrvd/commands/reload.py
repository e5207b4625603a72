"""`netsrvd reload`: has a daemon read its configuration again, and says how that went."""

import argparse
import os
import signal
import socket
import sys

from netsrvd.config.files import DEFAULT_FILE
from netsrvd.errors import ConfigError, ReloadError, UsageError
from netsrvd.reporting import askers

PATIENCE_SECONDS = 60.0


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon with this PID, and wait for its answer.

    Raises ConfigError with its reasons where the old configuration is still in force.
    """
    pid = arguments.pid
    try:
        process = os.pidfd_open(pid)  # from here on the signal reaches this process or none
    except OSError as error:
        raise UsageError(f"there is no process {pid}: {error.strerror}") from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(PATIENCE_SECONDS)
            _connect(sock, pid)
            answer = _ask(sock, pid, process, askers.look_outside(str(DEFAULT_FILE.parent)))
    finally:
        os.close(process)
    if not answer:
        raise ReloadError("the daemon ended without an answer; see its log")
    lines = [_printable(each) for each in answer.strip().splitlines()]
    if problems := [line for line in lines if not line.startswith(askers.WARNING)]:
        raise ConfigError(problems)
    for line in lines:
        print(f"netsrvd: {line}", file=sys.stderr)
    return os.EX_OK


def _connect(sock: socket.socket, pid: int) -> None:
    """Connect to the daemon itself: SIGHUP would end a process of another kind."""
    try:
        sock.connect(askers.path(pid))
        answering, _ = askers.credentials(sock)
    except BlockingIOError as error:
        raise ReloadError(f"too many wait; `kill -HUP {pid}` reloads without an answer") from error
    except PermissionError as error:
        raise UsageError(_DENIED[os.geteuid() == 0].format(pid)) from error
    except OSError as error:
        raise UsageError(f"process {pid} is no netsrvd that answers: {error.strerror}") from error
    if answering != pid:
        raise UsageError(f"process {answering} answers for {pid}, which gets no signal")


def _ask(sock: socket.socket, pid: int, process: int, seen: askers.Outside) -> str:
    """Tell the daemon what is `seen` here, send it SIGHUP, and return its answer.

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
        return sock.recv(askers.LONGEST_ANSWER + 1).decode(errors="replace")
    except OSError as error:
        raise ReloadError(f"the daemon has not answered: {error}; see its log") from error


def _printable(text: str) -> str:
    """Return `text` with escapes in place of what commands a terminal: any process may answer."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


_DENIED = {
    False: "process {0} is another user's; ask as root",
    True: "process {0} is another user's, and root lacks CAP_SYS_PTRACE; `kill -HUP {0}` reloads "
    "without an answer",
}
"""Why the daemon cannot be asked, by whether it is root who asks."""
