"""Sends the probes of one stream by TCP: as bytes of one connection, or as connections."""

import os
import socket
import struct
from collections import deque
from contextlib import suppress
from errno import EAGAIN, EINPROGRESS
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from time import monotonic_ns, time_ns

from netsrvd.errors import NetsrvdError
from netsrvd.probe import stamps
from netsrvd.probe.echo import Echo
from netsrvd.probe.engine import Engine
from netsrvd.probe.settings import Settings
from netsrvd.probe.sockets import make
from netsrvd.probe.trips import State, Stream, Trip

RECEIVE_BYTES = 1 << 16

MOST_UNANSWERED = 65536
MOST_UNANSWERED_BYTES = 32 << 20
"""Probes of a connection that may have no answer, however many are lost, and their bytes. Further
ones are not sent: a host that answers nothing would let the memory grow.
"""

COMPLETE = "complete"
NO_END = "no end within the time-out"

MICROSECOND_NS = 1000

# struct tcp_info (linux/tcp.h): 8 bytes, then 32-bit numbers, of which tcpi_rtt, in microseconds,
# is the sixteenth and tcpi_total_retrans the twenty-fourth
_TCP_INFO = struct.Struct("@24I")
_TCP_INFO_START = 8
_RTT, _RETRANSMITTED = 15, 23


class TCPProber:
    """Probes that are bytes of one connection, which the host sends back (RFC 862).

    A connection that fails is made anew for the next probe. After the last probe the sending side
    is shut down, and the host should close after the last byte.
    """

    def __init__(
        self, stream: Stream, exchange: Echo, settings: Settings, engine: Engine, port: int
    ) -> None:
        self.stream = stream
        self._exchange = exchange
        self._settings = settings
        self._engine = engine
        self._port = port
        self._sock: socket.socket | None = None
        self._reset_connection()

    def _reset_connection(self) -> None:
        self._connected = False
        self._began_ns = 0
        self._connect_ns = 0
        self._waiting: list[Trip] = []
        """Probes that wait for the connection."""
        self._out = bytearray()
        self._written = 0
        """Bytes that the kernel took, for the stamps, which it numbers by bytes."""
        self._unstamped: deque[tuple[int, Trip]] = deque(maxlen=MOST_UNANSWERED)
        self._expected: deque[tuple[Trip, bytes]] = deque()
        self._matched = 0
        """Bytes of the first expected answer that have come."""

    def close(self) -> None:
        """Close the connection."""
        if self._sock:
            self._engine.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None
        self._reset_connection()

    # --- sending ----------------------------------------------------------------------------

    def send(self) -> None:
        """Send the next probe, by a new connection where there is none."""
        trip = self.stream.begin(monotonic_ns(), time_ns())
        try:
            if self._sock is None:
                self._connect()
        except NetsrvdError as error:
            self._fail(trip, str(error))
            return
        except OSError as error:
            self.close()
            self._fail(trip, os.strerror(error.errno or 0).lower())
            return
        unanswered, size = len(self._expected), self._settings.size_bytes
        if unanswered >= min(MOST_UNANSWERED, MOST_UNANSWERED_BYTES // size):
            self._fail(trip, f"not sent, as {unanswered} probes have no answer")
            return
        self._engine.expect(self, trip)
        if self._connected:
            self._write(trip)
        else:
            self._waiting.append(trip)

    def _connect(self) -> None:
        self._sock = make(self.stream.target, socket.SOCK_STREAM, self._settings, self._port)
        self._began_ns = monotonic_ns()
        number = self._sock.connect_ex(self.stream.target.address)
        if number not in (0, EINPROGRESS):
            raise OSError(number, os.strerror(number))
        self.stream.source_port = self._sock.getsockname()[1]
        self._engine.watch(self._sock.fileno(), self, EPOLLOUT)

    def _write(self, trip: Trip) -> None:
        payload = self._exchange.request(trip.number)
        self._expected.append((trip, payload))
        trip.sent_at_ns, trip.sent_ns = time_ns(), monotonic_ns()
        self._out += payload
        self._unstamped.append((self._written + len(self._out) - 1, trip))
        self._flush()

    def _flush(self) -> None:
        """Give the kernel what it takes of the bytes to be sent."""
        assert self._sock
        try:
            while self._out:
                count = self._sock.send(self._out)
                del self._out[:count]
                self._written += count
        except OSError as error:
            if error.errno != EAGAIN:
                self._break(os.strerror(error.errno or 0).lower())
                return
        self._engine.modify(self._sock.fileno(), EPOLLIN | (EPOLLOUT if self._out else 0))

    # --- receiving --------------------------------------------------------------------------

    def on_ready(self, _descriptor: int, events: int) -> None:
        """Take the connection, stamps and bytes."""
        if self._sock is None:
            return
        if not self._connected:
            self._take_connection()
            return
        if events & EPOLLERR:
            self._take_stamps()
        if events & (EPOLLIN | EPOLLHUP | EPOLLERR):
            self._receive()
        if self._sock and events & EPOLLOUT:
            self._flush()

    def _take_connection(self) -> None:
        assert self._sock
        number = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._break(os.strerror(number).lower())
            return
        self._connected = True
        self._connect_ns = connect_ns(self._sock, monotonic_ns() - self._began_ns)
        if self._settings.kernel_stamps:
            stamps.enable(self._sock)
        self._engine.modify(self._sock.fileno(), EPOLLIN)
        waiting, self._waiting = self._waiting, []
        for trip in waiting:
            if trip.state is State.PENDING and self._sock:
                trip.connect_ns, self._connect_ns = self._connect_ns, 0
                self._write(trip)

    def _receive(self) -> None:
        assert self._sock
        try:
            data, ancillary, _, _ = self._sock.recvmsg(RECEIVE_BYTES, stamps.CONTROL_BYTES)
        except OSError as error:
            if error.errno != EAGAIN:
                self._end(os.strerror(error.errno or 0).lower())
            return
        now_ns, at_ns = monotonic_ns(), time_ns()
        if not data:
            self._end("")
            return
        stamp_ns = stamps.control(ancillary).stamp_ns
        while data and self._expected:
            trip, payload = self._expected[0]
            wanted = payload[self._matched : self._matched + len(data)]
            if not data.startswith(wanted):
                trip.damaged = True
                self._break("other bytes came back than were sent")
                return
            self._matched += len(wanted)
            data = data[len(wanted) :]
            if self._matched == len(payload):
                self._expected.popleft()
                self._matched = 0
                self._settle(trip, now_ns, at_ns, stamp_ns)
        if data:
            self.stream.unsolicited += 1
            self._engine.notice(self.stream, f"{len(data)} bytes more came back than were sent")

    def _settle(self, trip: Trip, now_ns: int, at_ns: int, stamp_ns: int) -> None:
        if not trip.kernel_sent_ns:
            self._take_stamps()
        if trip.state is State.PENDING:
            trip.received_ns, trip.received_at_ns = now_ns, at_ns
            trip.kernel_received_ns = stamp_ns
            trip.length = self._settings.size_bytes
        if not self._engine.receive(self.stream, trip):
            self._engine.notice(self.stream, f"seq {trip.sequence} was answered too late")

    def _take_stamps(self) -> None:
        assert self._sock
        for item in stamps.take_errors(self._sock):
            if isinstance(item, stamps.Sent):
                while self._unstamped and self._unstamped[0][0] <= item.number:
                    number, trip = self._unstamped.popleft()
                    if number == item.number:
                        trip.kernel_sent_ns = item.stamp_ns

    # --- the end of a connection ------------------------------------------------------------

    def _fail(self, trip: Trip, error: str) -> None:
        if trip.state is State.PENDING:
            self.stream.fail(trip, error)
            self._engine.settled(self.stream, trip)

    def _break(self, error: str) -> None:
        """Give up the connection, with all probes that have no answer."""
        trips = [*self._waiting, *(trip for trip, _ in self._expected)]
        self.close()
        for trip in trips:
            self._fail(trip, error)

    def _end(self, error: str) -> None:
        """Act on the end of what the host sends: an error, or its close if that is empty."""
        if not self.stream.half_close:
            self._break(error or "the host has closed the connection")
            return
        missing = sum(len(payload) for _, payload in self._expected) - self._matched
        if error:
            self.stream.half_close = error
        else:
            self.stream.half_close = f"{missing} bytes are missing" if missing else COMPLETE
        self._break("the host has closed the connection")
        self._engine.finished(self)

    def expire(self, trip: Trip) -> None:
        """Give up connecting if no probe waits for it any more."""
        if not self._connected and self._sock:
            self._waiting = [each for each in self._waiting if each is not trip]
            if not self._waiting:
                self.close()

    def finish(self) -> bool:
        """Shut down the sending side, and wait for the host to close."""
        if not (self._sock and self._connected):
            return False
        if self._out:
            self.stream.half_close = f"{len(self._out)} bytes could not be sent"
            return False
        self.stream.half_close = NO_END
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        return True


class ConnectProber:
    """Probes that are connections: each is made and closed."""

    def __init__(self, stream: Stream, settings: Settings, engine: Engine, port: int) -> None:
        self.stream = stream
        self._settings = settings
        self._engine = engine
        self._port = port
        self._sockets: dict[int, tuple[socket.socket, Trip]] = {}

    def send(self) -> None:
        """Begin to connect."""
        trip = self.stream.begin(monotonic_ns(), time_ns())
        try:
            sock = make(self.stream.target, socket.SOCK_STREAM, self._settings, self._port)
        except NetsrvdError as error:
            self._fail(trip, str(error))
            return
        trip.sent_at_ns, trip.sent_ns = time_ns(), monotonic_ns()
        number = sock.connect_ex(self.stream.target.address)
        if number not in (0, EINPROGRESS):
            sock.close()
            self._fail(trip, os.strerror(number).lower())
            return
        self._sockets[sock.fileno()] = sock, trip
        self._engine.watch(sock.fileno(), self, EPOLLOUT)
        self._engine.expect(self, trip)

    def on_ready(self, descriptor: int, _events: int) -> None:
        """Take a connection, or the error."""
        now_ns, at_ns = monotonic_ns(), time_ns()
        sock, trip = self._sockets[descriptor]
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._close(descriptor)
            self._fail(trip, os.strerror(number).lower())
            return
        trip.received_ns, trip.received_at_ns = now_ns, at_ns
        elapsed = now_ns - trip.sent_ns
        trip.connect_ns = connect_ns(sock, elapsed)
        if trip.connect_ns < elapsed:
            trip.kernel_sent_ns = trip.sent_at_ns
            trip.kernel_received_ns = trip.sent_at_ns + trip.connect_ns
        self._close(descriptor)
        self._engine.receive(self.stream, trip)

    def _fail(self, trip: Trip, error: str) -> None:
        self.stream.fail(trip, error)
        self._engine.settled(self.stream, trip)

    def _close(self, descriptor: int) -> None:
        self._engine.forget(descriptor)
        self._sockets.pop(descriptor)[0].close()

    def expire(self, trip: Trip) -> None:
        """Give up connecting."""
        for descriptor, (_, each) in [*self._sockets.items()]:
            if each is trip:
                self._close(descriptor)

    def finish(self) -> bool:
        """Return False: there is nothing left to do."""
        return False

    def close(self) -> None:
        """Close all sockets."""
        for descriptor in [*self._sockets]:
            self._close(descriptor)


def connect_ns(sock: socket.socket, elapsed_ns: int) -> int:
    """Return how long the handshake of a new connection took.

    It is the kernel's own measurement, in whole microseconds, unless the SYN was sent more than
    once: then it is `elapsed_ns`, what the program has measured.
    """
    try:
        data = sock.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_START + _TCP_INFO.size
        )
        numbers = _TCP_INFO.unpack_from(data, _TCP_INFO_START)
    except (OSError, struct.error):
        return elapsed_ns
    measured = numbers[_RTT] * MICROSECOND_NS
    return measured if measured and not numbers[_RETRANSMITTED] else elapsed_ns
