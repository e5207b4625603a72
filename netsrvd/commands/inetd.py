"""`netsrvd run --inetd`: serves the one connection that is standard input, and ends."""

import argparse
import os
import socket
import sys
from contextlib import suppress
from math import inf
from time import monotonic

from netsrvd import assembly
from netsrvd.admission.connections import ConnectionGate
from netsrvd.daemon import PRELOAD_SECONDS, block_signals, stop_waits, wait_signal, wake_main
from netsrvd.ending import STOPS
from netsrvd.errors import DetachError, SocketError, UsageError
from netsrvd.events import Event
from netsrvd.events.life import CodeMissing
from netsrvd.events.sockets import OptionAdjusted
from netsrvd.house import House
from netsrvd.listeners import passed
from netsrvd.preload import preload
from netsrvd.reporting import journal
from netsrvd.reporting.stand_in import StandIn
from netsrvd.services.base import Present
from netsrvd.settings import ListenerSettings, Settings
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
    configuration = assembly.read_configuration(arguments.config)
    settings = configuration.settings
    listener = _listener(settings, arguments.listener)
    only = Settings(log=settings.log, drain_seconds=settings.drain_seconds, listeners=(listener,))
    services = assembly.prepare_services(only, Present(), configuration.sources)
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
    hidden = isinstance(sys.stderr, StandIn)
    if hidden and target == "auto" and journal.SOCKET.exists():
        target = "journal"
    try:
        return assembly.choose_log(target, detached=hidden)
    except DetachError:  # there is neither syslog nor a journal
        return NOWHERE, []


def _serve(
    settings: Settings,
    sock: socket.socket,
    services: assembly.Services,
    log: str,
    notes: list[Event],
) -> int:
    block_signals()
    house = House(settings, {}, services, 1, log, wake_main)
    for note in notes:
        house.report(note)
    house.start()
    [listener] = settings.listeners
    service, gate = services.by_name[listener.name], ConnectionGate(listener)
    take = assembly.taker(service, house.staff.handle) or house.staff.workers[0].take
    identity = f"{house.identify()}-{os.getpid()}"  # many processes start in the same millisecond
    known = sock, identity, listener, gate, service.stream, take, house.report
    passed.admit(*known, is_over=stop_waits)
    house.stop_listening(inf)  # so that the end of this connection is told
    deadline, longest = inf, PRELOAD_SECONDS
    while not house.drained and not house.failures and monotonic() < deadline:
        received = wait_signal(min(deadline - monotonic(), longest))
        if received is None and longest == PRELOAD_SECONDS:
            # A connection that lasts may outlive the files of this version.
            longest = LONGEST_WAIT_SECONDS
            with suppress(OSError, MemoryError):  # short of descriptors or memory
                for problem in preload():
                    house.report(CodeMissing(*problem))
        if received in STOPS:
            deadline = min(deadline, monotonic() + settings.drain_seconds)
            house.stop_listening(settings.drain_seconds)
    house.stop_workers()
    house.stop_reporting()
    return os.EX_SOFTWARE if house.failures else os.EX_OK
