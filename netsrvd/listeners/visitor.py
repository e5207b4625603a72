"""Comes to a listener of ours as a client would, so that the watchdog knows that it answers."""

import os
import socket
from collections.abc import Iterable

from netsrvd.addresses import host_and_port
from netsrvd.listeners.contracts import Client
from netsrvd.settings import ListenerSettings

PATIENCE_SECONDS = 2.0

TOKEN_BYTES = 16

SETTINGS = ListenerSettings("", idle_seconds=PATIENCE_SECONDS, write_seconds=PATIENCE_SECONDS)
"""Of the connections of visitors, which belong to no listener's limits, counts and records."""

WILDCARDS = {"0.0.0.0": ("127.0.0.1",), "::": ("127.0.0.1", "::1")}  # noqa: S104 - not bound


class Mirror:
    """The service of a visitor, whatever others are served: what comes in goes out."""

    __slots__ = ()
    finished = heedless = False

    def greeting(self) -> bytes:
        """Return nothing."""
        return b""

    def respond(self, data: bytes) -> bytes:
        """Return what came."""
        return data

    def more(self) -> bytes:
        """Return nothing."""
        return b""

    def memory(self) -> None:
        """Return nothing: it is not handed over."""

    def recall(self, memory: object) -> None:
        """Do nothing."""


def mirror(client: Client, at: float) -> Mirror:  # noqa: ARG001 - as for any service
    """Return the service of a visitor."""
    return Mirror()


class Visitor:
    """Owned by the main thread. `peers` is who it is at the moment; an acceptor looks there."""

    __slots__ = ("peers",)

    def __init__(self) -> None:
        self.peers: set[tuple[str, int]] = set()

    def is_answered(self, listening: Iterable[socket.socket]) -> bool | None:
        """Return whether one of these sockets answers; None if none can be visited."""
        tried = None
        for sock in listening:
            try:
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).strip(b"\0"):
                    continue  # what goes to an own address never comes by that interface
                address = sock.getsockname()
            except OSError:  # a reload has just closed it
                continue
            for host in WILDCARDS.get(address[0], (address[0],)):
                if self._visit(host, address):
                    return True
                tried = False
        return tried

    def _visit(self, host: str, address: tuple[str | int, ...]) -> bool:
        """Have some bytes come back from an address; from the same one, which a filter lets in."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        scope = address[2:] if family == socket.AF_INET6 else ()
        token, me = os.urandom(TOKEN_BYTES), ("", 0)
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(PATIENCE_SECONDS)
                sock.bind((host, 0, *scope))
                me = host_and_port(sock.getsockname())
                self.peers.add(me)
                sock.connect((host, address[1], *scope))
                sock.sendall(token)
                return sock.recv(TOKEN_BYTES, socket.MSG_WAITALL) == token
        except OSError:
            return False
        finally:
            self.peers.discard(me)
