"""`netsrvd reload`: has a daemon read its configuration again, and says how that went."""

import argparse
import os
import signal
import socket
from contextlib import suppress

from netsrvd.config.files import DEFAULT_FILE
from netsrvd.errors import ConfigError, ReloadError, UsageError
from netsrvd.reporting.askers import LONGEST_ANSWER, address, credentials, look_outside

PATIENCE_SECONDS = 60.0


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon with this PID, and wait for its answer.

    Raises ConfigError with its reasons where the old configuration is still in force.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        _connect(sock, arguments.pid)
        with suppress(OSError):  # a daemon that has just ended says so below
            sock.send(look_outside(str(DEFAULT_FILE.parent)).message())
        try:
            os.kill(arguments.pid, signal.SIGHUP)
        except PermissionError as error:
            raise UsageError(f"process {arguments.pid} is another user's; ask as root") from error
        except ProcessLookupError as error:
            raise ReloadError("the daemon has just ended; see its log") from error
        try:
            answer = sock.recv(LONGEST_ANSWER + 1).decode(errors="replace")
        except OSError as error:
            raise ReloadError(f"the daemon has not answered: {error}; see its log") from error
    if not answer:
        raise ReloadError("the daemon ended without an answer; see its log")
    if problems := answer.strip().splitlines():
        raise ConfigError(problems)
    return os.EX_OK


def _connect(sock: socket.socket, pid: int) -> None:
    """Connect to the daemon itself: SIGHUP would end a process of another kind."""
    try:
        sock.connect(address(pid))
        answering, _ = credentials(sock)
    except BlockingIOError as error:
        raise ReloadError(f"too many wait; `kill -HUP {pid}` reloads without an answer") from error
    except OSError as error:
        raise UsageError(f"process {pid} is no netsrvd that answers: {error.strerror}") from error
    if answering != pid:
        raise UsageError(f"another process answers for {pid}; `kill -HUP {pid}` reloads it, too")
