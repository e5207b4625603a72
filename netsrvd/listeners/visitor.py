"""Comes to a listener of ours as a client would, so that the watchdog knows that it answers."""

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Protocol

from netsrvd.addresses import host_and_port
from netsrvd.counters import Counters
from netsrvd.events.life import VisitImpossible
from netsrvd.listeners.accept_errors import DESCRIPTOR_ERRORS
from netsrvd.listeners.connection import Connection, Silent
from netsrvd.listeners.contracts import Client, Report
from netsrvd.settings import ListenerSettings

PATIENCE_SECONDS = 2.0

TOKEN_BYTES = 16

SETTINGS = ListenerSettings("", idle_seconds=PATIENCE_SECONDS, write_seconds=PATIENCE_SECONDS)
"""Of the connections of visitors, which belong to no listener's limits, counts and records."""

WILDCARDS = {"0.0.0.0": ("127.0.0.1",), "::": ("::1", "127.0.0.1")}  # noqa: S104 - not bound


class Mirror(Silent):
    """The service of a visitor, whatever others are served: what comes in goes out."""

    __slots__ = ()

    def respond(self, data: bytes) -> bytes:
        """Return what came."""
        return data


def mirror(client: Client, at: float) -> Mirror:  # noqa: ARG001 - as for any service
    """Return the service of a visitor."""
    return Mirror()


def welcomed(sock: socket.socket, peer: tuple[str, int]) -> Connection:
    """Return the connection of a visitor that was accepted, for a worker. It has no place."""
    sock.setblocking(False)
    local = host_and_port(sock.getsockname())
    return Connection(sock, "", peer, local, SETTINGS, mirror, lambda: None, monotonic())


class Visitor:
    """Owned by the main thread, but for `is_it`, which the acceptor asks."""

    __slots__ = ("_counters", "_peers")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        """Of the acceptor."""
        self._peers: set[tuple[str, int]] = set()
        """Who it is while it is on its way, and until it is taken, however late that is."""

    def is_it(self, peer: tuple[str, int]) -> bool:
        """Return whether the visitor has come, which it does once from each port."""
        if peer not in self._peers:
            return False
        self._peers.discard(peer)
        return True

    def is_answered(self, listening: Iterable[socket.socket]) -> bool | None:
        """Return whether one of these sockets answers; None if none can be visited now."""
        tried, until = None, monotonic() + PATIENCE_SECONDS
        for sock in listening:
            if tried is False and monotonic() >= until:  # the watchdog waits for this
                break
            try:
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).strip(b"\0"):
                    continue  # what goes to an own address never comes by that interface
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
                    continue  # another instance might answer, or not
                address = sock.getsockname()
            except OSError:  # a reload has just closed it
                continue
            for host in WILDCARDS.get(address[0], (address[0],)):
                if (answered := self._visit(host, address)) is not False:
                    return answered
                tried = False
        return tried

    def _visit(self, host: str, address: tuple[str | int, ...]) -> bool | None:
        """Visit an address; from the same one, which a filter lets in.

        None if there is no descriptor or port to do so, which says nothing about the address.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        scope = address[2:] if family == socket.AF_INET6 else ()
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(PATIENCE_SECONDS)
                sock.bind((host, 0, *scope))
                return self._call(sock, (host, address[1], *scope))
        except OSError as error:
            return None if error.errno in (*DESCRIPTOR_ERRORS, errno.EADDRINUSE) else False

    def _call(self, sock: socket.socket, address: tuple[str | int, ...]) -> bool | None:
        """Connect and be served. None if the kernel's queue had no room, as so many others come."""
        me, came, connected = host_and_port(sock.getsockname()), self._came(), False
        self._peers.add(me)
        try:
            sock.connect(address)
            connected = True
            return _is_served(sock)
        except OSError:
            waits = me in self._peers
            if not connected:
                self._peers.discard(me)  # it will never be taken
            return None if waits and self._came() != came else False

    def _came(self) -> int:
        return self._counters.accepted + self._counters.refused


def _is_served(sock: socket.socket) -> bool:
    """Return whether some bytes come back and then the end, after which nobody has it any more."""
    token = os.urandom(TOKEN_BYTES)
    sock.sendall(token)
    sock.shutdown(socket.SHUT_WR)
    return sock.recv(TOKEN_BYTES, socket.MSG_WAITALL) == token and sock.recv(1) == b""


class Visited(Protocol):
    """A listener that can be visited."""

    def is_answering(self) -> bool | None:
        """Return whether a client would be answered; None if that cannot be said now."""


class Rounds:
    """Visits one listener after the other. Owned by the main thread.

    One that has never answered may have a filter against it, which is no fault of the daemon: it
    is told once, and not visited again.
    """

    __slots__ = ("_answered", "_report", "_turn", "_unreachable")

    def __init__(self, report: Report) -> None:
        self._report = report
        self._turn = 0
        self._answered: set[str] = set()
        self._unreachable: set[str] = set()

    def is_answering(self, listeners: Sequence[tuple[str, Visited]]) -> bool:
        """Visit the next of these listeners; return False while one that answered before is mute.

        That one is visited again until it answers.
        """
        reachable = [each for each in listeners if each[0] not in self._unreachable]
        if not reachable:
            return True
        name, listener = reachable[self._turn % len(reachable)]
        answering = listener.is_answering()
        if answering is False and name in self._answered:
            return False
        self._turn += 1
        if answering:
            self._answered.add(name)
        elif answering is False:
            self._unreachable.add(name)
            self._report(VisitImpossible(name))
        return True
