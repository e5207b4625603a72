"""The reflector of STAMP (RFC 8762, RFC 8972), which also answers senders of TWAMP Light."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from netsrvd.packets import stamp
from netsrvd.services import base
from netsrvd.services.timed import MAPPED, Arrival, Sessions, needs_udp_alone

CLOCKS = {"local": stamp.SYNC_LOCAL, "ntp": stamp.SYNC_NTP, "ptp": stamp.SYNC_PTP, "gps": 4}
"""What `stamp_clock` may be, and how TLV 3 says it (RFC 8972, 4.3)."""

CREDENTIAL = "credential:"
"""Begins the name of a credential of systemd's, which a process has only as that service."""
HEX = "hex:"
MOST_KEY_BYTES = 1024
OTHERS = stat.S_IRWXG | stat.S_IRWXO

UNKNOWN_TTL = 255
UNKNOWN_TIME = 0x3FFF & ~stamp.PTP
"""Scale and multiplier for a time of arrival that the kernel did not take: the largest error."""

REFLECTED_OPEN, REFLECTED_AUTHENTICATED = slice(16, 44), slice(32, 96)
"""Bytes that a sender leaves zero (RFC 8972, 3), and a reflector fills."""


class Session:
    """The packets of one sender with one SSID, as a stateful reflector counts them."""

    __slots__ = ("last", "received", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0
        self.last: Reply | None = None
        """The last one that was made; `sent_ns` says whether it was sent."""

    def begin(self) -> int:
        """Count one more request; return the sequence number of its reply."""
        if self.last is not None and not self.last.sent_ns:  # it could not be sent
            self.last = None
            self.sent -= 1
        self.received += 1
        return self.sent

    def made(self, reply: "Reply") -> None:
        """Count one more reply."""
        reply.forget()
        self.last = reply
        self.sent += 1


class Reply:
    """The answer to one request, complete but for the time of sending."""

    __slots__ = (
        "_error_estimate",
        "_key",
        "_received_ns",
        "_request",
        "_session",
        "_tlvs",
        "_ttl",
        "sent_ns",
        "sequence",
        "tos",
    )

    def __init__(
        self,
        request: stamp.Request,
        arrival: Arrival,
        error_estimate: int,
        key: bytes | None,
        session: Session | None,
    ) -> None:
        self._request = request
        self._received_ns = arrival.received_ns
        self._ttl = UNKNOWN_TTL if arrival.ttl is None else arrival.ttl & UNKNOWN_TTL
        is_ptp = request.error_estimate & stamp.PTP
        self._error_estimate = (error_estimate if arrival.received_ns else UNKNOWN_TIME) | is_ptp
        self._key = key
        self._session = session
        self._tlvs = b""
        self.sequence = request.sequence if session is None else session.begin() % (1 << 32)
        self.sent_ns = 0
        self.tos: int | None = None

    def add(self, tlvs: bytes, tos: int | None) -> None:
        """Have these TLVs behind the base packet, and this type of service in its IP header."""
        self._tlvs, self.tos = tlvs, tos

    def forget(self) -> None:
        """Drop what was needed to make it."""
        self._session, self._tlvs = None, b""

    def finish(self, now_ns: int) -> bytes:
        """Return the packet, which is sent now."""
        is_ptp = self._error_estimate & stamp.PTP
        timestamp = stamp.ptp_timestamp if is_ptp else stamp.ntp_timestamp
        made = stamp.make_reply(
            self._request,
            timestamp(now_ns),
            timestamp(self._received_ns or now_ns),
            self._error_estimate,
            sequence=self.sequence,
            ttl=self._ttl,
            tlvs=self._tlvs,
            key=self._key,
        )
        if self._session is not None:
            self._session.made(self)
        return made


class Reflector(base.Datagrams):
    """Owned by the udp event loop."""

    __slots__ = ("_clock", "_dscps", "_error_estimate", "_key", "_sessions", "_ssids")
    is_timed = True
    reply_floor_bytes = stamp.OPEN_BYTES
    """A sender of TWAMP Light may leave out all behind the 14th byte."""

    def __init__(self, settings: base.ServiceSettings, key: bytes | None) -> None:
        self._key = key
        self._ssids = frozenset(settings.stamp_ssids)
        self._dscps = frozenset(settings.stamp_dscps)
        self._clock = CLOCKS[settings.stamp_clock]
        self._error_estimate = stamp.make_error_estimate(
            round(settings.stamp_clock_error_seconds * 1e9),
            is_synchronised=settings.stamp_clock != "local",
        )
        self._sessions: Sessions[Session] | None = None
        """None for a stateless reflector."""
        if settings.stamp_stateful:
            self._sessions = Sessions(Session)

    def resume(self, old: Any) -> None:
        """Go on with the sessions."""
        if self._sessions is not None and old._sessions is not None:  # noqa: SLF001 - same class
            self._sessions = old._sessions  # noqa: SLF001

    def reply(
        self, payload: bytes, client: base.Client, arrival: Arrival, now: float
    ) -> Reply | str | None:
        """Return the answer to a sender's packet."""
        try:
            request = stamp.read_request(payload, self._key)
        except stamp.PacketError as error:
            return str(error)
        if self._ssids and request.ssid not in self._ssids:
            return f"stamp_ssids does not have its SSID {request.ssid}"
        reflected = REFLECTED_OPEN if self._key is None else REFLECTED_AUTHENTICATED
        if client.peer[1] == stamp.PORT and any(payload[reflected]):
            return "it is the reply of a reflector"
        session = None
        if self._sessions is not None:
            session = self._sessions.find((client.peer, client.local, request.ssid), now)
        reply = Reply(request, arrival, self._error_estimate, self._key, session)
        reply.add(request.tlvs, None)
        if stamp.has_tlvs(request.tlvs):
            self._answer_tlvs(reply, request, arrival, session)
        return reply

    def _answer_tlvs(
        self,
        reply: Reply,
        request: stamp.Request,
        arrival: Arrival,
        session: Session | None,
    ) -> None:
        dscps: list[int] = []
        tlvs = stamp.reflect_tlvs(
            request.tlvs,
            self._answers(request, arrival, session, dscps),
            sequence=request.sequence,
            reply_sequence=reply.sequence,
            key=self._key,
            is_authenticated=self._key is not None,
        )
        reply.add(tlvs, dscps[0] << 2 if dscps else None)

    def _answers(
        self,
        request: stamp.Request,
        arrival: Arrival,
        session: Session | None,
        dscps: list[int],
    ) -> stamp.Answers:
        """Return how TLVs are answered. The DSCP to answer with is put into `dscps`."""

        def class_of_service(value: bytes) -> bytes:
            dscps.append(stamp.reply_dscp(value, arrival.tos, self._dscps))
            return stamp.answer_class_of_service(value, arrival.tos, self._dscps)

        answers: dict[int, Callable[[bytes], bytes | None]] = {
            stamp.EXTRA_PADDING: stamp.as_received,
            stamp.TIMESTAMP_INFORMATION: partial(self._timestamp_information, arrival),
            stamp.CLASS_OF_SERVICE: class_of_service,
            stamp.ACCESS_REPORT: stamp.as_received,
            stamp.FOLLOW_UP_TELEMETRY: partial(_follow_up, request, session),
            stamp.DESTINATION_ADDRESS: partial(_destination, arrival),
        }
        if session is not None:
            answers[stamp.DIRECT_MEASUREMENT] = partial(_counters, session)
        return answers

    def _timestamp_information(self, arrival: Arrival, _value: bytes) -> bytes:
        """Tell what synchronises the clock, and how T2 and T3 were taken (RFC 8972, 4.3)."""
        by = stamp.BY_SOFTWARE if arrival.received_ns else stamp.BY_CONTROL_PLANE
        return bytes((self._clock, by, self._clock, stamp.BY_SOFTWARE))


def _counters(session: Session, value: bytes) -> bytes:
    """Tell how many packets were received, and sent with this one (RFC 8972, 4.5)."""
    counts = (session.received, session.sent + 1)
    return value[:4] + b"".join((count % (1 << 32)).to_bytes(4, "big") for count in counts)


def _follow_up(request: stamp.Request, session: Session | None, value: bytes) -> bytes:
    """Tell when the reply before was sent, zeros if there is none (RFC 8972, 4.7)."""
    last = session.last if session is not None else None
    if last is None or not last.sent_ns:
        return bytes(len(value))
    is_ptp = request.error_estimate & stamp.PTP
    timestamp = stamp.ptp_timestamp if is_ptp else stamp.ntp_timestamp
    number = last.sequence.to_bytes(4, "big")
    return number + timestamp(last.sent_ns) + bytes((stamp.BY_SOFTWARE, 0, 0, 0))


def _destination(arrival: Arrival, value: bytes) -> bytes | None:
    """Accept the address that the packet was sent to (RFC 9503, 3); another one is not ours."""
    return value if value == arrival.destination.removeprefix(MAPPED) else None


def read_key(where: str) -> bytes | None:
    """Return the key that `stamp_key` names, None for none; raises ValueError or OSError.

    Under systemd it is a credential (LoadCredential=), otherwise a file for its owner alone. The
    file has a text, of which a line feed at the end is not a part, or `hex:` and digits.
    """
    if not where:
        return None
    if where.startswith(CREDENTIAL):
        name, folder = where.removeprefix(CREDENTIAL), os.environ.get("CREDENTIALS_DIRECTORY")
        if folder is None:
            raise ValueError(
                f"stamp_key: there are no credentials: LoadCredential={name}:PATH in a drop-in of "
                "netsrvd.service passes one; without systemd, name a file of mode 0600"
            )
        path, is_credential = Path(folder, name), True
    else:
        path, is_credential = Path(where), False
    try:
        data = _read(path, is_credential=is_credential)
    except OSError as error:
        raise ValueError(f"stamp_key: {path}: {error.strerror}") from error
    return _key(data, path)


def _read(path: Path, *, is_credential: bool) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        mode, owner = stat.S_IMODE(status.st_mode), status.st_uid
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"stamp_key: {path} is no file")
        if not is_credential and mode & OTHERS:
            raise ValueError(f"stamp_key: {path} has mode {mode:04o}: chmod 600 {path}")
        if not is_credential and owner != os.geteuid():
            raise ValueError(f"stamp_key: {path} belongs to user {owner}, not to this one")
        return os.read(descriptor, MOST_KEY_BYTES + len(HEX) + 1 << 1)
    finally:
        os.close(descriptor)


def _key(data: bytes, path: Path) -> bytes:
    key = data.removesuffix(b"\n")
    if key.startswith(HEX.encode()):
        try:
            key = bytes.fromhex(key.removeprefix(HEX.encode()).decode())
        except ValueError:
            raise ValueError(f"stamp_key: {path} has no pairs of digits behind {HEX}") from None
    if not 0 < len(key) <= MOST_KEY_BYTES:
        raise ValueError(f"stamp_key: {path} must have a key of 1 to {MOST_KEY_BYTES} bytes")
    stamp.digest(key, b"")  # imports what a packet must not wait for
    return key


def prepare(settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service, with its key in memory; raises ValueError if that cannot be read."""
    needs_udp_alone(settings)
    return base.Service(base.SILENT, Reflector(settings, read_key(settings.stamp_key)))
