"""Answers datagrams whose service asks when and how they came: each by itself, with its own time.

A service that measures (`settings.TIMED_SERVICES`) gets the kernel's time of arrival, the TTL and
the type of service of each datagram, and tells the time of sending, the latest that is known.
"""

import socket
from collections.abc import Sequence
from struct import Struct
from time import time_ns
from typing import Protocol

from netsrvd.errnos import format_errno
from netsrvd.flow import Flow
from netsrvd.linux.mmsg import (
    LAYOUTS,
    SO_TIMESTAMPING,
    SO_TIMESTAMPNS,
    Arrival,
    Batch,
    Message,
    packet_info,
    parse,
)
from netsrvd.services.base import Client

CONTROL_BYTES = 256
"""Room for the control messages of a datagram. A mapped peer with both kinds of timestamps has the
most: CMSG_SPACE() of its messages is 216 bytes."""

SO_TIMESTAMP = 29

# <linux/net_tstamp.h>. Unlike SO_TIMESTAMPNS, this gives no time to a datagram that came before it
# was set, instead of the time at which that was read.
SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE = 1 << 3, 1 << 4

# <linux/in.h>: names that Python 3.13 does not have.
IP_RECVTTL, IP_RECVTOS = 12, 13

REPLY_TTL = 255
"""TTL of answers, which tells the peer how many routers they have passed (RFC 8762, 4.3)."""

_INT = Struct("@i")


class Reply(Protocol):
    """An answer that is complete but for the time at which it is sent."""

    sent_ns: int
    """When the kernel had taken it, in nanoseconds since 1970; 0 until then."""

    @property
    def tos(self) -> int | None:
        """Return the type of service to send it with, None for that of the socket."""

    def finish(self, now_ns: int) -> bytes:
        """Return the answer, which is sent now."""


class TimedService(Protocol):
    """The service of a listener's datagrams that are timed."""

    @property
    def reply_floor_bytes(self) -> int:
        """How long an answer to a shorter datagram may be."""

    def reply(
        self, payload: bytes, client: Client, arrival: Arrival, now: float
    ) -> Reply | str | None:
        """Return the answer to one datagram, None for none, or why it is no packet to be answered.

        `now` is in seconds of the monotonic clock. May raise any exception.
        """


class Result:
    """What became of the datagrams of a batch."""

    __slots__ = ("failed", "invalid", "sent", "sent_bytes", "unsent")

    def __init__(self) -> None:
        self.sent = self.sent_bytes = self.unsent = 0
        self.failed: list[tuple[Flow, Exception]] = []
        self.invalid: list[tuple[Flow, str]] = []
        """Datagrams that are no packets of the service, and why."""


class TimedDatagrams:
    """The arrivals of one socket's last batch, and their answers. Owned by the udp event loop."""

    __slots__ = ("_arrivals", "_batch", "_sock")

    def __init__(self, sock: socket.socket, batch: Batch) -> None:
        self._sock = sock
        self._batch = batch
        self._arrivals: list[Arrival] = []

    def read(self, count: int) -> list[bytes]:
        """Read the control messages of a batch; return what `Batch.headers` would without them.

        Equal keys mean the same peer asking the same address through the same interface.
        """
        batch = self._batch
        at = LAYOUTS[self._sock.family].control_at
        self._arrivals, keys = [], []
        lengths = batch.control_lengths(count)
        for header, length in zip(batch.headers(count), lengths, strict=True):
            arrival = parse(header, at, at + length)
            self._arrivals.append(arrival)
            keys.append(header[:at] + arrival.packet_info)
        return keys

    def answer(
        self,
        service: TimedService,
        floor_bytes: int,
        flows: Sequence[Flow | None],
        unanswered: Sequence[int],
        now: float,
    ) -> Result:
        """Answer all datagrams but those that are `unanswered`; return what became of them.

        The bytes that are not sent back are counted in the flows.
        """
        result, without = Result(), set(unanswered)
        for index, flow in enumerate(flows):
            if flow is None:
                continue
            payload = bytes(self._batch.payload(index))
            reply = None
            if index not in without:
                reply = self._reply(service, payload, flow, index, now, result)
            sent = 0
            if reply is not None:
                sent = self._send(reply, index, flow, floor_bytes, result)
                flow.source.debit(sent - len(payload))
            flow.bytes_unanswered += len(payload) - sent
        return result

    def _reply(
        self,
        service: TimedService,
        payload: bytes,
        flow: Flow,
        index: int,
        now: float,
        result: Result,
    ) -> Reply | None:
        try:
            found = service.reply(payload, flow, self._arrivals[index], now)
        except Exception as error:  # noqa: BLE001 - ends this datagram alone
            result.failed.append((flow, error))
            return None
        if isinstance(found, str):
            result.invalid.append((flow, found))
            return None
        if found is None:
            flow.unanswered += 1
        return found

    def _send(self, reply: Reply, index: int, flow: Flow, floor_bytes: int, result: Result) -> int:
        """Send one answer; return how many bytes it had, 0 if it could not be sent."""
        batch = self._batch
        if not flow.reply_control:
            flow.reply_control = self._control(flow, self._arrivals[index])
        control = flow.reply_control
        if reply.tos is not None:
            control += _traffic_class(self._arrivals[index], reply.tos)
        batch.set_control(index, control)
        sent = batch.reply(index, reply.finish(time_ns()), floor_bytes)
        try:
            batch.send(self._sock.fileno(), index, index + 1)
        except OSError as error:
            flow.unsent += 1
            flow.error = format_errno(error)
            result.unsent += 1
            return 0
        reply.sent_ns = time_ns()
        result.sent += 1
        result.sent_bytes += sent
        return sent

    def _control(self, flow: Flow, arrival: Arrival) -> bytes:
        """Return the control messages that all answers to a flow have: their source, their TTL."""
        source = packet_info(arrival, keep_interface=flow.is_link_local)
        level, kind = socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT
        if arrival.is_ipv4:
            level, kind = socket.IPPROTO_IP, socket.IP_TTL
        return source.packed() + Message(level, kind, _INT.pack(REPLY_TTL)).packed()


def _traffic_class(arrival: Arrival, tos: int) -> bytes:
    level, kind = socket.IPPROTO_IPV6, socket.IPV6_TCLASS
    if arrival.is_ipv4:
        level, kind = socket.IPPROTO_IP, socket.IP_TOS
    return Message(level, kind, _INT.pack(tos)).packed()


def ask(sock: socket.socket, *, wanted: bool) -> None:
    """Have the kernel tell the time, TTL and type of service of each datagram, or no more.

    A socket unit with Timestamping= has set a time of its own. It is left to a service that uses
    it: datagrams that were waiting when the daemon started have no other one.
    """
    flags = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags if wanted else 0)
    for number in (IP_RECVTTL, IP_RECVTOS):
        sock.setsockopt(socket.IPPROTO_IP, number, wanted)
    if sock.family == socket.AF_INET6:
        for number in (socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVTCLASS):
            sock.setsockopt(socket.IPPROTO_IPV6, number, wanted)


def forget_times(sock: socket.socket) -> None:
    """Take a time off each datagram that a socket unit has asked for by Timestamping=."""
    for number in (SO_TIMESTAMP, SO_TIMESTAMPNS):
        sock.setsockopt(socket.SOL_SOCKET, number, 0)
