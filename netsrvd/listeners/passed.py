"""Lets in one connection that somebody else has accepted."""

import socket
from time import monotonic

from netsrvd.addresses import host_and_port
from netsrvd.listeners.connection import Connection, Take
from netsrvd.listeners.contracts import ConnectionGate, Report, StreamFactory
from netsrvd.listeners.refusals import Refusals
from netsrvd.settings import ListenerSettings

NO_HEADERS = "proxy", "it is one of the proxies, but headers are read by a listening daemon only"


def admit(
    sock: socket.socket,
    identity: str,
    settings: ListenerSettings,
    gate: ConnectionGate,
    service: StreamFactory,
    take: Take,
    report: Report,
) -> None:
    """Hand a connection over to who serves it, or refuse and close it. Either has its records."""
    peer, local = host_and_port(sock.getpeername()), host_and_port(sock.getsockname())
    now = monotonic()
    refusal = gate.refusal(peer[0], now)
    if gate.is_proxy(peer[0]):
        refusal = NO_HEADERS
    if refusal:
        sock.close()
        Refusals(report, settings, "tcp").add(refusal, peer, local, now)
        return
    connection = Connection(
        *(sock, identity, peer, local, settings, service), departed=lambda: None, now=now
    )
    report(connection.accepted())
    take(connection)
