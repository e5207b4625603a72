"""`netsrvd run --inetd`: serves the one connection that is standard input, and ends."""

import argparse
import os
import socket
import sys
from contextlib import suppress
from math import inf
from time import monotonic

from netsrvd import startup
from netsrvd.daemon import PRELOAD_SECONDS, block_signals, wait_signal, wake_main
from netsrvd.errors import DetachError, SocketError, UsageError
from netsrvd.events import Event
from netsrvd.events.lifecycle import CodeMissing
from netsrvd.events.sockets import OptionAdjusted
from netsrvd.log import journal
from netsrvd.log.stderr_to_log import StderrToLog
from netsrvd.preload import preload
from netsrvd.server import Server
from netsrvd.services.base import ServerView
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.shutdown import STOP_SIGNALS
from netsrvd.sockets import bind, inetd

LONGEST_WAIT_SECONDS = 3600.0

NOWHERE = "stderr"
"""The log where there is none: standard error is /dev/null by now."""


def run(arguments: argparse.Namespace) -> int:
    """Serve the connection by a listener's service, within its limits; return the exit status.

    Nothing listens, and nothing that systemd passed is taken. The log is never standard error if
    that is the client's.
    """
    if arguments.detach or arguments.pid_file or arguments.user:
        raise UsageError(
            "--inetd serves one connection; --detach, --pid-file and --user are for a daemon"
        )
    configuration = startup.read_configuration(arguments.config)
    settings = configuration.settings
    listener = _listener(settings, arguments.listener)
    only = Settings(log=settings.log, drain_seconds=settings.drain_seconds, listeners=(listener,))
    services = startup.prepare_services(only, ServerView(), configuration.sources)
    log, notes = _log(arguments.log or settings.log.target)
    sock = inetd.take()
    if sock is None:
        return os.EX_OK
    try:
        adjusted = bind.set_options(sock, "tcp", listener)
    except OSError as error:
        sock.close()
        raise SocketError(f"listener {listener.name}: an option cannot be set: {error}") from error
    notes += [OptionAdjusted(listener.name, "tcp", *each) for each in adjusted]
    return _serve(only, sock, services, log, notes)


def _listener(settings: Settings, name: str | None) -> ListenerSettings:
    listener = settings.listener(name) if name else settings.listeners[0]
    if "tcp" not in listener.protocols:
        raise UsageError(f"listener {listener.name} does not serve TCP; name another: --listener")
    return listener


def _log(target: str) -> tuple[str, list[Event]]:
    hidden = isinstance(sys.stderr, StderrToLog)
    if hidden and target == "auto" and journal.SOCKET.exists():
        target = "journal"
    try:
        return startup.choose_log(target, detached=hidden)
    except DetachError:  # there is neither syslog nor a journal
        return NOWHERE, []


def _serve(
    settings: Settings,
    sock: socket.socket,
    services: startup.Services,
    log: str,
    notes: list[Event],
) -> int:
    block_signals()
    server = Server(settings, {}, services, 1, log, wake_main)
    for note in notes:
        server.report(note)
    server.start()
    [listener] = settings.listeners
    ids, process = server.new_id, os.getpid()
    server.new_id = lambda: f"{ids()}-{process}"  # many processes start in the same millisecond
    server.serve_accepted(listener, sock)
    deadline, longest = inf, PRELOAD_SECONDS
    while not server.is_empty and not server.failures and monotonic() < deadline:
        received = wait_signal(min(deadline - monotonic(), longest))
        if received is None and longest == PRELOAD_SECONDS:
            # A connection that lasts may outlive the files of this version.
            longest = LONGEST_WAIT_SECONDS
            with suppress(OSError, MemoryError):  # short of descriptors or memory
                for problem in preload():
                    server.report(CodeMissing(*problem))
        if received in STOP_SIGNALS:
            deadline = min(deadline, monotonic() + settings.drain_seconds)
            server.stop_listening(settings.drain_seconds)
    server.close_connections()
    server.stop_log()
    return os.EX_SOFTWARE if server.failures else os.EX_OK
