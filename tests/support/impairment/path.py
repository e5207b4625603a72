"""A prober and a responder with a relay between them that impairs packets as a test says.

Three network namespaces stand in a row: `prober`, `middle`, `responder`. In the middle is no
router but relay.c, which hands frames from the one interface to the other: to both ends it is a
cable. What it does to each packet is planned by the test and recorded by the relay.
"""

import ctypes
import fcntl
import json
import socket
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.impairment.truth import Truth, read_log
from tests.support.namespaces import Namespace, link, namespace
from tests.support.patience import SECONDS, wait_readable

HERE = Path(__file__).parent
RELAY = HERE.parents[2] / "build/impairment/relay"

Entry = int | Sequence[int] | None
"""What happens to one packet: a delay in nanoseconds, one for each of several copies, or a loss."""

NEAR, FAR = "10.77.0.1", "10.77.1.1"
NEAR6, FAR6 = "fd77::1", "fd77::1:1"
BALANCED = "10.78.0.1"
FAR_MANY = tuple(f"10.77.1.{number}" for number in range(1, 101))

SIOCETHTOOL = 0x8946
OFFLOADS = {"ETHTOOL_STXCSUM": 0x17, "ETHTOOL_STSO": 0x1F, "ETHTOOL_SGSO": 0x24}


@dataclass(frozen=True)
class Way:
    """What happens to packets in one direction; relay.c says what each word means."""

    plan: Sequence[Entry] = (0,)
    """Of each path that has no plan of its own; after its end it begins again."""
    plans: Mapping[int, Sequence[Entry]] = field(default_factory=dict)
    paths: int = 1
    mtu: int = 0
    hops: int = 0
    tos: int | None = None
    cut: int = 0

    def path_of(self, port: int) -> int:
        """Return the path on which packets from or to a port of the prober travel."""
        return (port * 2654435761 % (1 << 32) >> 16) % self.paths

    def lines(self, name: str) -> Iterator[str]:
        """Yield the lines of a direction of this name for the relay's plan."""
        numbers = {"paths": self.paths, "mtu": self.mtu, "hops": self.hops, "cut": self.cut}
        if self.tos is not None:
            numbers["tos"] = self.tos
        yield from (f"{name} {key} {value}" for key, value in numbers.items())
        for path in range(self.paths):
            entries = " ".join(map(_word, self.plans.get(path, self.plan)))
            yield f"{name} plan {path} {entries}"


def _word(entry: Entry) -> str:
    if entry is None:
        return "-"
    return ",".join(map(str, [entry] if isinstance(entry, int) else entry))


@dataclass(frozen=True)
class Network:
    """The three namespaces.

    Cable 0 is interface `p0` of the prober, `m0` and `m1` in the middle and `r0` of the responder;
    cable 1 is `p1`, `m2`, `m3` and `r1`.
    """

    prober: Namespace
    middle: Namespace
    responder: Namespace


@contextmanager
def network() -> Iterator[Network]:
    """Make the namespaces and join them."""
    with namespace() as prober, namespace() as middle, namespace() as responder:
        yield joined(prober, middle, responder)


def joined(prober: Namespace, middle: Namespace, responder: Namespace) -> Network:
    """Join namespaces by cable 0, with addresses of both families and without offloads, which are
    not for a cable: whole segments and sums that are still to be computed.
    """
    link(prober, "p0", middle, "m0")
    link(middle, "m1", responder, "r0")
    for space, name in ((prober, "p0"), (responder, "r0")):
        _switch_off(space, name)
    prober.ip(f"address add {NEAR}/16 dev p0", f"address add {NEAR6}/64 dev p0 nodad")
    responder.ip(
        *(f"address add {each}/16 dev r0" for each in FAR_MANY),
        f"address add {FAR6}/64 dev r0 nodad",
    )
    near, far = _address_of(prober, "p0"), _address_of(responder, "r0")
    prober.ip(
        *(f"neighbour add {each} lladdr {far} dev p0" for each in (*FAR_MANY, FAR6)),
    )
    responder.ip(*(f"neighbour add {each} lladdr {near} dev r0" for each in (NEAR, NEAR6)))
    return Network(prober, middle, responder)


@contextmanager
def two_cables() -> Iterator[Network]:
    """Make a network with a second cable, over both of which the prober's kernel reaches BALANCED:
    a hash of addresses and ports chooses. Answers take the first cable.
    """
    with network() as made:
        prober, responder = made.prober, made.responder
        link(prober, "p1", made.middle, "m2")
        link(made.middle, "m3", responder, "r1")
        for space, name in ((prober, "p1"), (responder, "r1")):
            _switch_off(space, name)
        second_near, second_far = "10.79.0.1", "10.79.1.1"
        prober.ip(f"address add {second_near}/16 dev p1")
        responder.ip(f"address add {second_far}/16 dev r1", f"address add {BALANCED}/32 dev lo")
        prober.sysctl("net/ipv4/fib_multipath_hash_policy", 1)
        prober.ip(
            f"route add {BALANCED} src {NEAR} nexthop via {FAR} dev p0 "
            f"nexthop via {second_far} dev p1",
            f"neighbour add {second_far} lladdr {_address_of(responder, 'r1')} dev p1",
        )
        yield made


def _address_of(space: Namespace, interface: str) -> str:
    with space.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        return sock.getsockname()[4].hex(":")


def _switch_off(space: Namespace, interface: str) -> None:
    """Switch the offloads of an interface off, as `ethtool -K` does."""
    with space.entered(), socket.socket() as sock:
        for command in OFFLOADS.values():
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
            request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
            fcntl.ioctl(sock, SIOCETHTOOL, request)


class Relay:
    """A relay that runs; what it did can be read once it has been stopped."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    def stop(self) -> Truth:
        """End the relay and return what it did to each packet."""
        self._process.terminate()
        status = self._process.wait(SECONDS)
        assert status == 0, f"the relay ended with status {status}"
        return read_log(self._log)


@contextmanager
def impaired(
    between: Network,
    folder: Path,
    there: Way | None = None,
    back: Way | None = None,
    *,
    cable: int = 0,
    spins: bool = False,
) -> Iterator[Relay]:
    """Run a relay in the middle of a cable until the block ends.

    `spins` makes its delays more exact: it never sleeps and takes a CPU of its own.
    """
    plan, log = folder / f"plan{cable}", folder / f"relay{cable}.jsonl"
    ways = {"there": there or Way(), "back": back or Way()}
    lines = [line for name, way in ways.items() for line in way.lines(name)]
    plan.write_text("\n".join(lines) + "\n")
    ends = [f"m{2 * cable}", f"m{2 * cable + 1}"]
    with between.middle.entered():
        process = subprocess.Popen(
            [built(), plan, log, *ends, *(["spin"] if spins else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
    assert process.stdout
    try:
        wait_readable(process.stdout.fileno(), "the relay")
        assert process.stdout.readline() == b"ready\n"
        yield Relay(process, log)
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def has_netem() -> bool:
    """Return whether this kernel has the queueing discipline that impairs."""
    command = ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class Queue:
    """A queueing discipline of the kernel on the way to the responder."""

    def __init__(self, between: Network) -> None:
        self._between = between

    @property
    def dropped(self) -> int:
        """Packets that it has dropped."""
        with self._between.middle.entered():
            command = ["tc", "-statistics", "-json", "qdisc", "show", "dev", "m1", "root"]
            done = subprocess.run(command, capture_output=True, check=True)
        [shown] = json.loads(done.stdout)
        return int(shown["drops"])


@contextmanager
def bridged(between: Network, *queue: str) -> Iterator[Queue]:
    """Bridge the middle of cable 0 and put a queueing discipline there, until the block ends; its
    words are those of `tc qdisc add`.
    """
    middle = between.middle
    middle.ip(
        "link add br0 type bridge",
        *(f"link set {name} master br0" for name in ("m0", "m1")),
        "link set br0 up",
    )
    try:
        with middle.entered():
            command = ["tc", "qdisc", "add", "dev", "m1", "root", *queue]
            subprocess.run(command, check=True)
        yield Queue(between)
    finally:
        with middle.entered():
            subprocess.run(["tc", "qdisc", "delete", "dev", "m1", "root"], check=False)
        middle.ip("link delete br0")


def built() -> Path:
    """Return the relay's program, which make(1) builds if its source is newer."""
    subprocess.run(["make", "--silent", f"--directory={HERE}"], check=True)
    return RELAY
