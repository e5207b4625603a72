"""Sends the probes of one stream as datagrams, and takes the answers."""

import os
import socket
from collections import deque
from contextlib import suppress
from errno import EAGAIN, EMSGSIZE
from select import EPOLLERR, EPOLLIN
from time import monotonic_ns, time_ns

from netsrvd.addresses import host_and_port, shown
from netsrvd.errors import NetsrvdError
from netsrvd.probe import stamps
from netsrvd.probe.engine import Engine
from netsrvd.probe.exchange import Answer, Exchange
from netsrvd.probe.settings import Settings
from netsrvd.probe.sockets import make
from netsrvd.probe.trips import State, Stream, Trip

LARGEST_ANSWER = 65535

MOST_UNSTAMPED = 1000
"""Probes whose stamp of sending is waited for; it comes at once unless a device queues."""

DATAGRAMS_PER_TURN = 1000
"""Answers that one call takes from a socket."""


class _Socket:
    """A socket, and the probes whose stamp of sending has not come yet."""

    __slots__ = ("sent", "sock", "trip", "unstamped")

    def __init__(self, sock: socket.socket, trip: Trip | None = None) -> None:
        self.sock = sock
        self.trip = trip
        """The one probe that it is for, if replies have no sequence number."""
        self.sent = 0
        """Datagrams sent since stamps were turned on: the number of the next one."""
        self.unstamped: deque[tuple[int, Trip]] = deque(maxlen=MOST_UNSTAMPED)


class UDPProber:
    """Probes of one stream. Its sockets are not connected, so that an answer from another address
    than was asked is seen, too.
    """

    def __init__(
        self, stream: Stream, exchange: Exchange, settings: Settings, engine: Engine, port: int
    ) -> None:
        """Open the socket. Raises what `sockets.make` raises."""
        self.stream = stream
        self._exchange = exchange
        self._settings = settings
        self._engine = engine
        self._port = port
        self._buffer = bytearray(LARGEST_ANSWER)
        self._sockets: dict[int, _Socket] = {}
        self._shared: _Socket | None = None
        if exchange.has_sequence:
            self._shared = self._open(None)
            stream.source_port = self._shared.sock.getsockname()[1]

    def _open(self, trip: Trip | None) -> _Socket:
        sock = make(self.stream.target, socket.SOCK_DGRAM, self._settings, self._port)
        stamps.enable_control(sock)
        if self._settings.kernel_stamps:
            stamps.enable(sock)
        made = _Socket(sock, trip)
        self._sockets[sock.fileno()] = made
        self._engine.watch(sock.fileno(), self)
        return made

    def close(self) -> None:
        """Close all sockets."""
        for each in [*self._sockets.values()]:
            self._close(each)

    def _close(self, used: _Socket) -> None:
        number = used.sock.fileno()
        self._engine.forget(number)
        self._sockets.pop(number, None)
        used.sock.close()

    # --- sending ----------------------------------------------------------------------------

    def send(self) -> None:
        """Send the next probe."""
        at_ns = time_ns()
        trip = self.stream.begin(monotonic_ns(), at_ns)
        try:
            used = self._shared or self._open(trip)
        except NetsrvdError as problem:  # such as a lack of descriptors, which may pass
            self.stream.fail(trip, str(problem))
            self._engine.settled(self.stream, trip)
            return
        payload = self._exchange.request(trip.number, at_ns)
        error = self._transmit(used, trip, payload)
        if error:
            self.stream.fail(trip, error)
            self._engine.settled(self.stream, trip)
            if used.trip:
                self._close(used)
        else:
            self._engine.expect(self, trip)
            self._take_errors(used, stamps_alone=True)

    def _transmit(self, used: _Socket, trip: Trip, payload: bytes) -> str:
        """Send a datagram; return what has failed, or an empty text."""
        try:
            self._send(used, trip, payload)
        except OSError:
            # It may be the error of an earlier datagram, which this call returns in place of
            # sending. To take it from the error queue clears it.
            self._take_errors(used)
            self._restart_stamps(used)
            try:
                self._send(used, trip, payload)
            except OSError as error:
                self._restart_stamps(used)
                if error.errno == EMSGSIZE:
                    return f"{len(payload)} bytes are too long for the MTU of the interface"
                return os.strerror(error.errno or 0).lower()
        return ""

    def _send(self, used: _Socket, trip: Trip, payload: bytes) -> None:
        address = self.stream.target.address
        trip.sent_at_ns = time_ns()
        trip.sent_ns = monotonic_ns()
        used.sock.sendto(payload, address)
        used.unstamped.append((used.sent, trip))
        used.sent += 1

    def _restart_stamps(self, used: _Socket) -> None:
        """Restart the kernel's numbering at 0: a datagram that was not sent may have a number.

        The option OPT_ID begins to count when it is turned on.
        """
        if self._settings.kernel_stamps:
            with suppress(OSError):
                used.sock.setsockopt(socket.SOL_SOCKET, stamps.SO_TIMESTAMPING, 0)
            stamps.enable(used.sock)
        used.sent = 0
        used.unstamped.clear()

    # --- receiving --------------------------------------------------------------------------

    def on_ready(self, descriptor: int, events: int) -> None:
        """Take stamps, errors and answers."""
        used = self._sockets[descriptor]
        if events & EPOLLERR:
            self._take_errors(used)
        if events & EPOLLIN:
            for _ in range(DATAGRAMS_PER_TURN):
                if not self._receive(used):
                    return

    def _receive(self, used: _Socket) -> bool:
        """Take one datagram; return whether there may be more."""
        try:
            length, ancillary, _, source = used.sock.recvmsg_into(
                [self._buffer], stamps.CONTROL_BYTES
            )
        except OSError as error:
            if error.errno != EAGAIN:  # an error of ICMP, which the error queue explains
                self._take_errors(used)
            return False
        now_ns, at_ns = monotonic_ns(), time_ns()
        control = stamps.control(ancillary)
        self.stream.dropped = max(self.stream.dropped, control.dropped)
        answer = self._exchange.read(bytes(self._buffer[:length]))
        trip = used.trip
        if answer and answer.sequence is not None:
            trip = self.stream.find(answer.sequence)
        if answer is None or trip is None:
            self.stream.unsolicited += 1
            self._engine.notice(self.stream, f"a datagram of {length} bytes that answers no probe")
            return True
        if trip.state is State.PENDING:
            if not trip.kernel_sent_ns:
                self._take_errors(used)
            trip.received_ns, trip.received_at_ns = now_ns, at_ns
            self._fill(trip, answer, control, source)
            trip.length = length
        elif trip.state is State.RECEIVED and answer.reflector_count != trip.reflector_count:
            self.stream.answered_again += 1
        elif trip.state is State.LOST and trip.reflector_count is None:
            trip.reflector_count = answer.reflector_count  # so it is lost on neither way
        self._record(trip, used)
        return used.trip is None

    def _fill(
        self,
        trip: Trip,
        answer: Answer,
        control: stamps.Control,
        source: tuple[str, int] | tuple[str, int, int, int],
    ) -> None:
        trip.kernel_received_ns = control.stamp_ns
        trip.ttl = control.ttl
        trip.dscp = None if control.tos is None else control.tos >> 2
        trip.truncated, trip.damaged = answer.truncated, answer.damaged
        trip.reflector_received_ns, trip.reflector_sent_ns = answer.received_ns, answer.sent_ns
        trip.reflector_count, trip.reflector_ttl = answer.reflector_count, answer.ttl
        trip.reflector_dscp = answer.dscp
        trip.reflector_synchronised = answer.synchronised
        trip.reflector_error_ns = answer.error_ns
        trip.remote_clock = answer.clock
        if source[:2] != self.stream.target.address[:2]:
            trip.other_address = shown(*host_and_port(source))

    def _record(self, trip: Trip, used: _Socket) -> None:
        if not self._engine.receive(self.stream, trip):
            again = trip.state is State.RECEIVED
            how = "once more" if again else "too late"
            self._engine.notice(self.stream, f"seq {trip.sequence} was answered {how}")
        if used.trip:
            self._close(used)

    def _take_errors(self, used: _Socket, *, stamps_alone: bool = False) -> None:
        """Take what is on the error queue: stamps of sending, and errors of hosts.

        With `stamps_alone` stop when no stamp is missing. It saves a system call for each probe;
        epoll(7) tells of what is left.
        """
        for item in stamps.take_errors(used.sock):
            if isinstance(item, stamps.Sent):
                while used.unstamped and used.unstamped[0][0] <= item.number:
                    number, trip = used.unstamped.popleft()
                    if number == item.number:
                        trip.kernel_sent_ns = item.stamp_ns
                if stamps_alone and not used.unstamped:
                    return
            else:
                self._fail(used, item)

    def _fail(self, used: _Socket, item: stamps.Reported) -> None:
        """Record an error that a host has reported of a probe.

        A router may quote too little to tell which; then it is the oldest one without an answer
        of the last `MOST_UNSTAMPED`.
        """
        sequence = self._exchange.quoted(item.quoted)
        trip = used.trip
        if sequence is not None:
            trip = self.stream.find(sequence)
        elif trip is None:
            last = self.stream.trips[-MOST_UNSTAMPED:]
            trip = next((each for each in last if each.state is State.PENDING), None)
        if trip and trip.state is State.PENDING:
            self.stream.fail(trip, item.text)
            self._engine.settled(self.stream, trip)
            if used.trip:
                self._close(used)

    def expire(self, trip: Trip) -> None:
        """Close the socket of a probe that is lost, if it has one of its own."""
        for each in [*self._sockets.values()]:
            if each.trip is trip:
                self._close(each)

    def finish(self) -> bool:
        """Return False: there is nothing left to do."""
        return False
