"""Lets in one connection that somebody else has accepted."""

import socket
from collections.abc import Callable
from time import monotonic

from netsrvd.addresses import host_and_port
from netsrvd.counters import Counters
from netsrvd.listeners.connection import Connection, Take
from netsrvd.listeners.contracts import ConnectionGate, Refusal, Report, StreamFactory
from netsrvd.listeners.proxies.lobby import Lobby
from netsrvd.listeners.refusals import Peer, Refusals
from netsrvd.settings import ListenerSettings


def admit(
    sock: socket.socket,
    identity: str,
    settings: ListenerSettings,
    gate: ConnectionGate,
    service: StreamFactory,
    take: Take,
    report: Report,
    is_over: Callable[[], bool],
) -> None:
    """Hand a connection over to who serves it, or refuse and close it. Either has its records.

    One of a proxy is waited for until its header has come, at most for the listener's
    `proxy_seconds`, or until it is over, which nobody is told.
    """

    def enter(sock: socket.socket, peer: Peer, proxy: Peer | None, now: float) -> None:
        if refusal := gate.refusal(peer[0], now):
            dismiss(sock, peer, refusal, now, proxy)
            return
        connection = Connection(
            *(sock, identity, peer, host_and_port(sock.getsockname()), settings, service),
            departed=lambda: None,
            now=now,
            proxy=proxy,
        )
        connection.is_logged = not gate.is_unlogged(peer[0])
        if connection.is_logged:
            report(connection.accepted())
        take(connection)

    def dismiss(
        sock: socket.socket, peer: Peer, refusal: Refusal | None, now: float, proxy: Peer | None
    ) -> None:
        local = host_and_port(sock.getsockname())
        sock.close()
        if refusal:
            Refusals(report, settings, "tcp").add(refusal, peer, local, now, proxy)

    try:
        peer = host_and_port(sock.getpeername())
    except OSError:  # ENOTCONN: its client has gone
        sock.close()
        return
    if gate.is_proxy(peer[0]):
        lobby = Lobby(settings, Counters(), enter, dismiss)
        lobby.admit(sock, peer, monotonic())
        lobby.empty(is_over)
    else:
        enter(sock, peer, None, monotonic())
