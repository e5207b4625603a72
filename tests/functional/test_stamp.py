"""The reflectors of the installed command: STAMP, TWAMP Light and UDPEchoPlus."""

import ctypes
import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, time_ns

import pytest

from netsrvd.packets import stamp, udpechoplus
from netsrvd.timed import ask
from tests.functional.conftest import Start
from tests.support.activation import opened, passing
from tests.support.patience import SECONDS
from tests.support.proxied import datagram
from tests.support.run import Run

DATA = Path(__file__).parents[1] / "data/stamp-vectors.txt"
VECTORS = {
    name: bytes.fromhex(text)
    for name, text in re.findall(r"^(V\d+) .*\n  (\S+)$", DATA.read_text(), re.MULTILINE)
}
KEY = bytes(range(32))
SECOND_NS = 1_000_000_000
IP_RECVTTL = 12

ADDRESSES = {"ipv4": "127.0.0.1", "ipv6": "::1"}


def reflector(port: int, service: str = "stamp", **keys: object) -> dict[str, object]:
    """Return a configuration with nothing but a reflector on loopback."""
    settings = {"service": service, "protocols": "udp", "host": [*ADDRESSES.values()]}
    return {
        "listener": {"echo": {"enabled": False}, "lab": {**settings, "port": port, **keys}},
    }


@pytest.fixture
def served(start: Start, port: int) -> Callable[..., Run]:
    """Start a reflector with settings of its own."""

    def started(service: str = "stamp", **keys: object) -> Run:
        return start(reflector(port, service, **keys))

    return started


class Answer:
    """A reply with all that its headers say."""

    def __init__(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        self.data = data
        found = {(level, kind): value for level, kind, value in ancillary}
        self.ttl = number(found, (0, socket.IP_TTL), (41, socket.IPV6_HOPLIMIT))
        self.tos = number(found, (0, socket.IP_TOS), (41, socket.IPV6_TCLASS))

    def read(self, key: bytes | None = None) -> stamp.Reply:
        """Return what a packet of STAMP says."""
        return stamp.read_reply(self.data, key)


def number(found: dict[tuple[int, int], bytes], *kinds: tuple[int, int]) -> int:
    [value] = [found[kind] for kind in kinds if kind in found]
    return int.from_bytes(value, "little")


class Sender:
    """A socket that sends requests and gets replies."""

    def __init__(self, host: str, port: int, source: tuple[str, int] | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.settimeout(SECONDS)
        self.sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        if family == socket.AF_INET6:
            self.sock.setsockopt(41, socket.IPV6_RECVHOPLIMIT, 1)
            self.sock.setsockopt(41, socket.IPV6_RECVTCLASS, 1)
        if source:
            self.sock.bind(source)
        self.to = host, port

    def set(self, ttl: int, tos: int) -> None:
        """Send with this TTL and type of service from now on."""
        if self.sock.family == socket.AF_INET:
            self.sock.setsockopt(0, socket.IP_TTL, ttl)
            self.sock.setsockopt(0, socket.IP_TOS, tos)
        else:
            self.sock.setsockopt(41, socket.IPV6_UNICAST_HOPS, ttl)
            self.sock.setsockopt(41, socket.IPV6_TCLASS, tos)

    def ask(self, request: bytes) -> Answer:
        """Send a request; return its reply."""
        self.sock.sendto(request, self.to)
        data, ancillary, _, _ = self.sock.recvmsg(65536, 512)
        return Answer(data, ancillary)


@contextmanager
def sender(host: str, port: int, source: tuple[str, int] | None = None) -> Iterator[Sender]:
    made = Sender(host, port, source)
    with made.sock:
        yield made


def timed(asker: Sender, request: bytes) -> Answer:
    """Return the reply to a request for which the kernel took a time.

    It begins to take times some moments after it was first asked for one.
    """
    until = monotonic() + SECONDS
    while monotonic() < until:
        answer = asker.ask(request)
        if answer.read().error_estimate & 0x3FFF != 0x3FFF:
            return answer
    raise TimeoutError("the kernel takes no time")


def time_of(timestamp: bytes, estimate: int = 1) -> int:
    return stamp.time_of(timestamp, estimate, time_ns())


@pytest.mark.parametrize("host", ADDRESSES.values(), ids=ADDRESSES)
def test_a_request_is_answered_with_the_times(
    served: Callable[..., Run], port: int, host: str
) -> None:
    """The reply has the number and time of the request, its TTL, and the times between which it
    was here, in their order; it leaves with TTL 255.
    """
    served()
    with sender(host, port) as asker:
        asker.set(61, 0)
        timed(asker, VECTORS["V1"])
        before = time_ns()
        answer = asker.ask(VECTORS["V1"])
        after = time_ns()
    reply = answer.read()
    assert (reply.sequence, reply.sender_sequence, reply.sender_ttl) == (7, 7, 61)
    assert reply.sender_timestamp == VECTORS["V1"][4:12]
    assert before <= time_of(reply.received) <= time_of(reply.timestamp) <= after
    assert answer.ttl == 255
    assert answer.tos == 0
    blank = bytearray(answer.data)
    blank[4:14], blank[16:24], blank[40] = bytes(10), bytes(8), 255
    wanted = bytearray(VECTORS["V2"])
    wanted[4:14], wanted[16:24] = bytes(10), bytes(8)
    assert blank == wanted


def test_the_clock_is_told_as_it_is_configured(served: Callable[..., Run], port: int) -> None:
    """By default it is not synchronised and a second wrong; a reload changes what is told."""
    run = served()
    with sender("127.0.0.1", port) as asker:
        estimate = timed(asker, VECTORS["V1"]).read().error_estimate
        assert not estimate & stamp.SYNCHRONISED
        assert SECOND_NS <= stamp.error_ns(estimate) <= 1.01 * SECOND_NS
        run.reload(reflector(port, stamp_clock="ntp", stamp_clock_error="0.5ms"))
        estimate = asker.ask(VECTORS["V1"]).read().error_estimate
        assert estimate & stamp.SYNCHRONISED
        assert 500_000 <= stamp.error_ns(estimate) <= 505_000


@pytest.mark.parametrize("host", ADDRESSES.values(), ids=ADDRESSES)
def test_a_request_with_times_of_ptp_is_answered_with_such(
    served: Callable[..., Run], port: int, host: str
) -> None:
    """Bit Z of its error estimate says so, and the seconds are those of TAI."""
    served()
    with sender(host, port) as asker:
        timed(asker, VECTORS["V1"])
        before = time_ns()
        reply = asker.ask(VECTORS["V4"]).read()
        after = time_ns()
    assert reply.error_estimate & stamp.PTP
    assert reply.ssid == 0x1234
    assert reply.sender_timestamp == VECTORS["V4"][4:12]
    received, sent = (
        time_of(each, reply.error_estimate) for each in (reply.received, reply.timestamp)
    )
    assert before <= received <= sent <= after


LENGTHS = (14, 15, 16, 43, 44, 45, 51, 52, 53, 111, 112, 1472, 65507)


def test_a_reply_is_as_long_as_its_request(served: Callable[..., Run], port: int) -> None:
    """From the base packet on, which a shorter request gets; padding of zeros comes back."""
    served()
    with sender("127.0.0.1", port) as asker:
        for length in LENGTHS:
            request = VECTORS["V1"].ljust(length, b"\0")[:length]
            data = asker.ask(request).data
            assert len(data) == max(44, length)
            assert data[44:] == request[44:]


@pytest.mark.parametrize("length", [0, 1, 13])
def test_what_is_no_packet_is_refused(served: Callable[..., Run], port: int, length: int) -> None:
    """It has no answer, and a record that says what is wrong with it."""
    run = served()
    with sender("127.0.0.1", port) as asker:
        asker.sock.sendto(VECTORS["V1"][:length], asker.to)
        assert asker.ask(VECTORS["V1"]).read().sequence == 7
    run.wait(lambda: run.lines_with(f"refused: packet: it has {length} bytes of 14"), "the refusal")


def test_a_multiplier_of_0_is_refused(served: Callable[..., Run], port: int) -> None:
    """It makes the packet corrupt."""
    run = served()
    with sender("127.0.0.1", port) as asker:
        asker.sock.sendto(stamp.make_request(1, bytes(8), 0x8A00), asker.to)
        assert asker.ask(VECTORS["V1"]).read().sequence == 7
    run.wait(lambda: run.lines_with("the multiplier of its error estimate is 0"), "the refusal")


# --- authenticated ----------------------------------------------------------------------------


def key_file(folder: Path, text: bytes = b"hex:" + KEY.hex().encode() + b"\n") -> Path:
    path = folder / "stamp.key"
    path.touch(0o600)
    path.write_bytes(text)
    return path


def test_an_authenticated_request_has_an_authenticated_reply(
    served: Callable[..., Run], port: int, tmp_path: Path
) -> None:
    """Byte for byte but for the times; what lacks the right HMAC is refused, with a record."""
    run = served(stamp_key=str(key_file(tmp_path)))
    with sender("127.0.0.1", port) as asker:
        for wrong in (VECTORS["V1"], VECTORS["V6"][:-1] + b"\0", VECTORS["V6"][:111]):
            asker.sock.sendto(wrong, asker.to)
        asker.set(255, 0)
        data = asker.ask(VECTORS["V6"]).data
    reply = stamp.read_reply(data, KEY)
    assert (reply.sequence, reply.sender_sequence, reply.sender_ttl) == (7, 7, 255)
    for part in (slice(4), slice(48, 96)):
        assert data[part] == VECTORS["V7"][part]
    run.wait(lambda: run.lines_with("refused: packet: it has 44 bytes of 112"), "the refusal")


def test_tlvs_of_an_authenticated_packet_need_their_hmac(
    served: Callable[..., Run], port: int, tmp_path: Path
) -> None:
    """With it they are answered, with one of the reply's own; without it they come back marked."""
    served(stamp_key=str(key_file(tmp_path)))
    tlvs = stamp.make_tlv(stamp.ACCESS_REPORT, bytes.fromhex("10010000"))
    sealed = tlvs + stamp.make_hmac_tlv(KEY, 5, tlvs)
    with sender("127.0.0.1", port) as asker:
        request = stamp.make_request(5, bytes(8), 1, tlvs=sealed, key=KEY)
        reply = asker.ask(request).read(KEY)
        assert [each.flags for each in stamp.read_tlvs(reply.tlvs)] == [0, 0]
        assert stamp.are_tlvs_authentic(reply.tlvs, 5, KEY)
        request = stamp.make_request(5, bytes(8), 1, tlvs=tlvs, key=KEY)
        [found] = stamp.read_tlvs(asker.ask(request).read(KEY).tlvs)
        assert found.flags == stamp.UNRECOGNISED | stamp.INTEGRITY


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("credential:stamp", "LoadCredential=stamp:PATH"),
        ("{folder}/none", "No such file"),
        ("{folder}/open", "has mode 0644: chmod 600"),
        ("{folder}/empty", "must have a key of 1 to 1024 bytes"),
        ("{folder}", "is no file"),
        ("here", 'expected "credential:NAME", the absolute path of a file, or "" for none'),
    ],
)
def test_a_key_that_cannot_be_used_is_a_fault(
    start: Start, port: int, tmp_path: Path, key: str, complaint: str
) -> None:
    """The start fails, and says which key of which listener and what helps."""
    (tmp_path / "empty").touch(0o600)
    (tmp_path / "open").touch(0o644)
    run = start(reflector(port, stamp_key=key.format(folder=tmp_path)), ready=False)
    run.wait_failure(os.EX_CONFIG)
    [line] = run.lines_with(complaint)
    assert "listener.lab.stamp_key" in line


def test_the_key_is_a_credential_under_systemd(start: Start, port: int, tmp_path: Path) -> None:
    """`credential:NAME` is the file of that name in $CREDENTIALS_DIRECTORY."""
    key_file(tmp_path).rename(tmp_path / "lab")
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    start(reflector(port, stamp_key="credential:lab"), environment=environment)
    with sender("127.0.0.1", port) as asker:
        assert asker.ask(VECTORS["V6"]).read(KEY).sender_sequence == 7


def test_tcp_is_a_fault(start: Start, port: int) -> None:
    """A reflector has no form for TCP, and the fault says what to write."""
    run = start(reflector(port, protocols=["tcp", "udp"]), ready=False)
    run.wait_failure(os.EX_CONFIG)
    assert "listener.lab.protocols" in run.lines_with('protocols must be "udp"')[0]


# --- sessions ---------------------------------------------------------------------------------


def test_a_stateful_reflector_counts_its_replies(served: Callable[..., Run], port: int) -> None:
    """Each session has numbers from 0: another port or SSID is another one; a reload goes on."""
    run = served(stamp_stateful=True)
    with sender("127.0.0.1", port) as one, sender("127.0.0.1", port) as two:
        assert [one.ask(VECTORS["V1"]).read().sequence for _ in range(3)] == [0, 1, 2]
        assert two.ask(VECTORS["V1"]).read().sequence == 0
        other = stamp.make_request(7, bytes(8), 1, ssid=9)
        assert one.ask(other).read().sequence == 0
        run.reload(reflector(port, stamp_stateful=True, stamp_clock="gps"))
        assert one.ask(VECTORS["V1"]).read().sequence == 3


def test_provisioned_sessions_alone_are_answered(served: Callable[..., Run], port: int) -> None:
    """With `stamp_ssids` a request with another SSID, or none, is refused."""
    run = served(stamp_ssids=[0x1234, 5])
    with sender("127.0.0.1", port) as asker:
        asker.sock.sendto(VECTORS["V1"], asker.to)
        assert asker.ask(VECTORS["V4"]).read().ssid == 0x1234
    run.wait(lambda: run.lines_with("stamp_ssids does not have its SSID 0"), "the refusal")


# --- TLVs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ADDRESSES.values(), ids=ADDRESSES)
def test_a_class_of_service_is_answered_and_used(
    served: Callable[..., Run], port: int, host: str
) -> None:
    """The reply of V8 is that of V9, with the DSCP that was wished; one that is not permitted is
    answered with that of the request, and marked.
    """
    served(stamp_dscps=[0, 46])
    with sender(host, port) as asker:
        asker.set(255, 46 << 2 | 1)
        answer = asker.ask(VECTORS["V8"])
        assert answer.data[24:] == VECTORS["V9"][24:]
        assert answer.tos >> 2 == 46
        wish = stamp.make_tlv(stamp.CLASS_OF_SERVICE, bytes((10 << 2, 0, 0, 0)))
        answer = asker.ask(stamp.make_request(1, bytes(8), 1, tlvs=wish))
        value = (10 << 10 | 46 << 4 | 1 << 2 | 1).to_bytes(2, "big") + bytes(2)
        assert answer.read().tlvs == stamp.make_tlv(stamp.CLASS_OF_SERVICE, value, 0)
        assert answer.tos >> 2 == 46


def test_unknown_and_broken_tlvs_are_marked(served: Callable[..., Run], port: int) -> None:
    """The reply of V11 is that of V12; types that send to others, or more than one reply, are not
    understood.
    """
    served()
    with sender("127.0.0.1", port) as asker:
        asker.set(255, 0)
        assert asker.ask(VECTORS["V11"]).data[24:] == VECTORS["V12"][24:]
        for kind in (2, 10, 12):
            tlv = stamp.make_tlv(kind, bytes(16))
            assert asker.ask(stamp.make_request(1, bytes(8), 1, tlvs=tlv)).read().tlvs == tlv


def test_a_stateful_reflector_measures(served: Callable[..., Run], port: int) -> None:
    """It tells how many packets it got and sent, and when the reply before had left."""
    served(stamp_stateful=True, stamp_clock="ntp")
    tlvs = (
        stamp.make_tlv(stamp.DIRECT_MEASUREMENT, (9).to_bytes(4, "big") + bytes(8))
        + stamp.make_tlv(stamp.FOLLOW_UP_TELEMETRY, bytes(16))
        + stamp.make_tlv(stamp.TIMESTAMP_INFORMATION, bytes(4))
    )
    request = stamp.make_request(1, bytes(8), 1, tlvs=tlvs)
    with sender("127.0.0.1", port) as asker:
        timed(asker, VECTORS["V1"])
        last = asker.ask(VECTORS["V1"]).read()
        reply = asker.ask(request).read()
        after = time_ns()
    assert [each.flags for each in stamp.read_tlvs(reply.tlvs)] == [0, 0, 0]
    counts, follow_up, information = (each.value for each in stamp.read_tlvs(reply.tlvs))
    assert struct.unpack("!3I", counts) == (9, reply.sequence + 1, reply.sequence + 1)
    assert int.from_bytes(follow_up[:4], "big") == last.sequence == reply.sequence - 1
    sent = time_of(follow_up[4:12])
    assert time_of(last.timestamp) <= sent <= after
    assert follow_up[12:] == bytes((2, 0, 0, 0))
    assert information == bytes((1, 2, 1, 2))


def test_a_stateless_reflector_does_not(served: Callable[..., Run], port: int) -> None:
    """It has no count, and zeros for the reply before."""
    served()
    tlvs = stamp.make_tlv(stamp.DIRECT_MEASUREMENT, bytes(12))
    tlvs += stamp.make_tlv(stamp.FOLLOW_UP_TELEMETRY, bytes(16))
    with sender("127.0.0.1", port) as asker:
        reply = asker.ask(stamp.make_request(1, bytes(8), 1, tlvs=tlvs)).read()
    assert stamp.read_tlvs(reply.tlvs) == ((0x80, 5, bytes(12)), (0, 7, bytes(16)))


@pytest.mark.parametrize("host", ADDRESSES.values(), ids=ADDRESSES)
def test_the_destination_is_checked(served: Callable[..., Run], port: int, host: str) -> None:
    """The address that the packet was sent to is accepted; another one is marked."""
    served()
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    with sender(host, port) as asker:
        for address, flags in ((packed, 0), (packed[:-1] + b"\x09", 0x80)):
            tlv = stamp.make_tlv(stamp.DESTINATION_ADDRESS, address)
            reply = asker.ask(stamp.make_request(1, bytes(8), 1, tlvs=tlv)).read()
            assert reply.tlvs == stamp.make_tlv(stamp.DESTINATION_ADDRESS, address, flags)


def test_a_reply_counts_for_the_budget(served: Callable[..., Run], port: int) -> None:
    """Also the 30 bytes by which it is longer than the shortest request."""
    run = served(unlimited=[], reply_rate=1)
    budget = 65_536
    with sender("127.0.0.1", port) as asker:
        for _ in range(budget // 44 + 1):
            asker.ask(VECTORS["V13"])
        asker.sock.sendto(VECTORS["V13"], asker.to)
        run.wait(lambda: run.lines_with("refused: budget"), "the refusal")


# --- loops ------------------------------------------------------------------------------------


def test_port_862_is_answered_for_listed_senders_alone(
    alone: None, served: Callable[..., Run], port: int
) -> None:
    """From there other reflectors send; a reply of one is not answered even then."""
    run = served(host=[], allow=["any"], stamp_senders=["127.0.0.2"])
    with sender("127.0.0.1", port, ("127.0.0.3", 862)) as other:
        other.sock.sendto(VECTORS["V1"], other.to)
        run.wait(lambda: run.lines_with("127.0.0.3:862 refused: port"), "the refusal")
        other.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.sock.recv(100)
    with sender("127.0.0.1", port, ("127.0.0.2", 862)) as listed:
        listed.sock.sendto(VECTORS["V2"], listed.to)
        assert listed.ask(VECTORS["V13"]).read().sequence == 12
    run.wait(lambda: run.lines_with("it is the reply of a reflector"), "the refusal")


def test_two_reflectors_face_to_face_are_silent(alone: None, start: Start) -> None:
    """A request of one to the other, forged, has no reply, and so no end of replies."""
    run = start(reflector(862, host=["127.0.0.1"]))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        header = struct.pack("!4H", 862, 862, 8 + 44, 0)
        raw.bind(("127.0.0.2", 0))
        raw.sendto(header + VECTORS["V1"], ("127.0.0.1", 0))
    run.wait(lambda: run.lines_with("127.0.0.2:862 refused: port"), "the refusal")
    with sender("127.0.0.1", 862) as asker:
        assert asker.ask(VECTORS["V1"]).read().sequence == 7


# --- sockets of systemd -----------------------------------------------------------------------


SO_TIMESTAMPNS, SO_TIMESTAMPING = 35, 37


@pytest.mark.parametrize("kind", ["udp4", "udp6", "udpdual"])
@pytest.mark.parametrize("has_times", [True, False], ids=["Timestamping=ns", "none"])
def test_the_first_datagram_of_an_activation_has_a_right_time_or_none(
    start: Start,
    port: int,
    kind: str,
    has_times: bool,  # noqa: FBT001
) -> None:
    """With `Timestamping=ns` in the socket unit it has the time at which it came; without, the
    reply says so by the largest error. After the stop the socket has its options of before.
    """
    hosts = {"udp4": ["127.0.0.1"], "udp6": ["::1"], "udpdual": ["127.0.0.1", "::1"]}[kind]
    with ExitStack() as stack:
        [sock] = opened(stack, port, kind)
        if has_times:
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            wait_for_times(sock)
        askers = [stack.enter_context(sender(host, port)) for host in hosts]
        for asker in askers:
            asker.set(61, 0)
            asker.sock.sendto(VECTORS["V1"], asker.to)
        came = time_ns()
        keys = {} if kind == "udpdual" else {"host": hosts}
        settings = reflector(port, **keys)
        if not keys:
            del settings["listener"]["lab"]["host"]
        run = start(settings, **passing([sock], "lab"))
        for asker in askers:
            reply = stamp.read_reply(asker.sock.recv(100))
            assert reply.sender_ttl == 61
            is_unknown = reply.error_estimate & 0x3FFF == 0x3FFF
            assert is_unknown or time_of(reply.received) <= came
            # Another program may have the kernel take times for all.
            assert not (is_unknown and has_times)
            reply = timed(asker, VECTORS["V1"]).read()
            assert asker.ask(VECTORS["V1"]).ttl == 255
            assert came <= time_of(reply.received) <= time_of(reply.timestamp) <= time_ns()
            assert reply.sender_ttl == 61
        run.end()
        assert sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS) == has_times
        assert sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING) == 0
        assert sock.getsockopt(socket.IPPROTO_IP, IP_RECVTTL) == 0


def wait_for_times(sock: socket.socket) -> None:
    """Wait until the kernel takes times: it begins to some moments after it was asked."""
    until = monotonic() + SECONDS
    with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, 1 << 3 | 1 << 4)
        probe.bind(("::1" if sock.family == socket.AF_INET6 else "127.0.0.1", 0))
        probe.settimeout(SECONDS)
        while monotonic() < until:
            probe.sendto(b"x", probe.getsockname())
            _, ancillary, _, _ = probe.recvmsg(10, 100)
            if ancillary:
                return
    raise TimeoutError("the kernel takes no time")


def options_of(run: Run) -> list[int]:
    """Return, for each UDP socket of a run, whether it has times and TTLs with its datagrams."""
    found = []
    for link in Path(f"/proc/{run.pid}/fd").iterdir():
        pidfd = os.pidfd_open(run.pid)
        try:
            descriptor = pidfd_getfd(pidfd, int(link.name))
        finally:
            os.close(pidfd)
        try:
            with socket.socket(fileno=descriptor) as sock:
                if sock.type == socket.SOCK_DGRAM and sock.family != socket.AF_UNIX:
                    times = sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING)
                    found.append(bool(times) + sock.getsockopt(socket.IPPROTO_IP, IP_RECVTTL))
        except OSError:
            os.close(descriptor)
    return found


def pidfd_getfd(pidfd: int, number: int) -> int:
    """pidfd_getfd(2), which Python does not have."""
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    return int(descriptor)


def test_other_listeners_have_no_times(start: Start, port: int) -> None:
    """The sockets of echo have no option more than before; a reload that makes a reflector an echo
    takes them away, and the other way round.
    """
    run = start(reflector(port))
    assert options_of(run) == [2, 2]
    run.reload(reflector(port, "echo"))
    assert options_of(run) == [0, 0]
    with sender("127.0.0.1", port) as asker:
        assert asker.ask(b"hello").data == b"hello"
        run.reload(reflector(port))
        assert options_of(run) == [2, 2]
        assert asker.ask(VECTORS["V1"]).read().sequence == 7
        run.reload(reflector(port, "echo"))
        assert asker.ask(b"hello").data == b"hello"


@pytest.mark.parametrize("kind", ["udp4", "udpdual"])
def test_a_reload_to_echo_takes_the_times_of_the_unit_away(
    start: Start, port: int, kind: str
) -> None:
    """Echo has no room for them; what it sends back has none, and leaves from the right address."""
    settings = reflector(port)
    if kind == "udpdual":
        del settings["listener"]["lab"]["host"]
    else:
        settings["listener"]["lab"]["host"] = "127.0.0.1"
    host = "127.0.0.2" if kind == "udpdual" else "127.0.0.1"
    with ExitStack() as stack:
        [sock] = opened(stack, port, kind)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        run = start(settings, **passing([sock], "lab"))
        asker = stack.enter_context(sender(host, port))
        asker.sock.connect(asker.to)  # and so takes nothing from another address
        assert asker.ask(VECTORS["V1"]).read().sequence == 7
        settings["listener"]["lab"]["service"] = "echo"
        run.reload(settings)
        assert [asker.ask(b"hello").data for _ in range(3)] == [b"hello"] * 3


def test_what_another_process_has_asked_for_is_taken_away(start: Start, port: int) -> None:
    """A reflector that was killed leaves its options on a socket, and so does one whose sockets are
    kept over a restart: the next process may serve echo there.
    """
    with ExitStack() as stack:
        [sock] = opened(stack, port, "udpdual")
        ask(sock, wanted=True)
        start({"listener": {"echo": {"port": port}}}, **passing([sock], "echo"))
        asker = stack.enter_context(sender("127.0.0.2", port))
        asker.sock.connect(asker.to)
        assert [asker.ask(b"hello").data for _ in range(3)] == [b"hello"] * 3
        assert sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING) == 0


def test_a_dual_stack_socket_answers_both_families(start: Start, port: int) -> None:
    """A mapped peer gets the DSCP that it wishes and TTL 255, and so does one of IPv6."""
    settings = reflector(port, stamp_dscps=[46])
    del settings["listener"]["lab"]["host"]
    with ExitStack() as stack:
        [sock] = opened(stack, port, "udpdual")
        start(settings, **passing([sock], "lab"))
        for host in ADDRESSES.values():
            asker = stack.enter_context(sender(host, port))
            asker.set(255, 46 << 2 | 1)
            answer = asker.ask(VECTORS["V8"])
            assert answer.data[24:] == VECTORS["V9"][24:]
            assert (answer.tos, answer.ttl) == (46 << 2, 255)


def test_a_proxy_may_stand_between(served: Callable[..., Run], port: int) -> None:
    """The session is that of the client that it names, and the reply has no header."""
    served(proxies=["127.0.0.1"], stamp_stateful=True)
    with sender("127.0.0.1", port) as proxy:
        for client, numbers in ((("192.168.2.7", 4711), (0, 1)), (("192.168.2.8", 4711), (0,))):
            for number in numbers:
                reply = proxy.ask(datagram(VECTORS["V1"], client)).read()
                assert (reply.sequence, reply.sender_sequence) == (number, 7)


def test_a_batch_is_answered_one_by_one(served: Callable[..., Run], port: int) -> None:
    """Of many requests that come together each has its own times, in their order."""
    run = served()
    with sender("127.0.0.1", port) as asker:
        timed(asker, VECTORS["V1"])
        os.kill(run.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, run.pid, os.WSTOPPED)  # its threads go on until then
        for number in range(50):
            asker.sock.sendto(stamp.make_request(number, bytes(8), 1), asker.to)
        os.kill(run.pid, signal.SIGCONT)
        replies = [stamp.read_reply(asker.sock.recv(100)) for _ in range(50)]
    assert [each.sender_sequence for each in replies] == [*range(50)]
    times = [(time_of(each.received), time_of(each.timestamp)) for each in replies]
    received, sent = [each[0] for each in times], [each[1] for each in times]
    assert received == sorted(received)
    assert sent == sorted(sent)
    assert len(set(sent)) == 50
    assert max(received) <= min(sent)


# --- UDPEchoPlus ------------------------------------------------------------------------------


def test_an_echo_says_when_and_how_many(served: Callable[..., Run], port: int) -> None:
    """The words of the server are filled in, data come back, and each address has its count."""
    served("echoplus", host=[], allow=["any"])
    with sender("127.0.0.1", port) as one, sender("127.0.0.1", port, ("127.0.0.2", 0)) as two:
        for count in (1, 2, 3):
            before = time_ns() // 1000
            data = one.ask(udpechoplus.make_request(count, 9, b"data")).data
            after = time_ns() // 1000
            found = udpechoplus.read(data)
            assert found is not None
            assert data[24:] == b"data"
            assert (found.generator_sequence, found.iteration) == (count, 9)
            assert (found.response_sequence, found.failures) == (count, 0)
            spent = found.replied_us - found.received_us & 0xFFFFFFFF
            assert 0 <= spent <= after - before
            assert found.replied_us - before & 0xFFFFFFFF <= after - before
        found = udpechoplus.read(two.ask(udpechoplus.make_request(1, 1)).data)
        assert found is not None
        assert found.response_sequence == 1


def test_a_short_echo_is_plain(served: Callable[..., Run], port: int) -> None:
    """A datagram without room for the words comes back as it is, and is not counted."""
    served("echoplus")
    with sender("127.0.0.1", port) as asker:
        for data in (b"", b"x", bytes(23)):
            assert asker.ask(data).data == data
        found = udpechoplus.read(asker.ask(udpechoplus.make_request(1, 1)).data)
    assert found is not None
    assert found.response_sequence == 1
