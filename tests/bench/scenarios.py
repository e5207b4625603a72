"""The table of loads under which servers are compared."""

from dataclasses import dataclass
from itertools import product

from tests.bench.peers import GO, LIMITS, NO_RECORDS, ONE_LOOP, OWN, REFERENCE, UVLOOP
from tests.bench.stage import STRANGER

START = "start"
"""Where the memory after the start is kept, or why there was none."""

GENERAL: tuple[str, ...] = ()
"""All peers with `Peer.general`."""
QUICK = (REFERENCE, OWN, UVLOOP)
TOGETHER = (*QUICK, ONE_LOOP)


@dataclass(frozen=True)
class Scenario:
    """What is asked of a server, by one load or by several at the same time."""

    name: str
    loads: tuple[str, ...]
    """Command lines of the generators in src/; `{crowd}` is `Peer.crowd`."""
    about: str
    among: tuple[str, ...] = GENERAL
    pinned: bool = True
    """Server on one CPU and load on another, or both wherever the scheduler puts them."""
    also: tuple[str, ...] = ()
    """Peers that are measured in each round besides those of `among`."""
    quiet: int | None = None
    """The place of the load whose latency counts, beside another load that is busy."""

    @property
    def is_latency(self) -> bool:
        """Return whether only one message is on the way, so that no program is ever busy."""
        return self.name.split()[1:2] == ["1"]

    @property
    def protocols(self) -> set[str]:
        """Return what a server must speak."""
        return {"udp" if load.startswith("udp") else "tcp" for load in self.loads}


def _tcp(name: str, options: str, about: str, *also: str) -> Scenario:
    return Scenario(f"tcp {name}", (f"tcp_load {options}",), about, also=also)


def _udp(window: int, size: int, ports: int) -> Scenario:
    suffix = f" from {ports} ports" if ports > 1 else ""
    return Scenario(
        f"udp {window} x {size} B{suffix}",
        (f"udp_load -w {window} -s {size} -p {ports}",),
        f"{window} datagrams of {size} B on the way{suffix}",
        GENERAL if ports == 1 else QUICK,
        also=(LIMITS,) if (window, size) == (64, 64) else (),
    )


def _flood(name: str, ports: int) -> Scenario:
    load = f"udp_load -f -a {STRANGER} -p {ports}"
    about = f"as many datagrams as one core can send, all refused, from {ports} port(s)"
    return Scenario(name, (load,), about, (OWN,))


STEADY_TCP, STEADY_UDP = "tcp_load -c 64 -s 1024", "udp_load -w 64"

STORM = ("tcp_load -e 2000", "tcp_churn -c 256")
"""One established connection, a message on it every 2 ms, beside clients that connect, 256 at a
time. A client that sent the next message as soon as it has the answer would send most of them while
the server has little to do."""

SCENARIOS = (
    _tcp("1 x 64 B", "-c 1", "one connection, one message of 64 B on the way: latency"),
    _tcp(
        *("64 x 1 KiB", "-c 64 -s 1024", "64 connections, a message of 1 KiB on the way on each"),
        LIMITS,
    ),
    _tcp("1000 x 64 B", "-c 1000", "1000 connections, a message of 64 B on the way on each"),
    _tcp("16 x 64 KiB", "-c 16 -s 65536", "16 connections, a message of 64 KiB on each"),
    _tcp("crowd", "-c 64 -s 1024 -i {crowd}", "64 x 1 KiB among 8000 idle connections"),
    Scenario(
        "churn",
        ("tcp_churn -c 32",),
        "connect, 64 B there and back, close; 32 at a time",
        also=(NO_RECORDS, LIMITS, GO),
    ),
    _udp(1, 64, 1),
    *(_udp(w, s, p) for p, (w, s) in product((1, 64), ((64, 64), (512, 64), (64, 1400)))),
    _flood("flood", 1),
    _flood("flood from 64 ports", 64),
    Scenario("tcp + udp", (STEADY_TCP, STEADY_UDP), "64 x 1 KiB beside 64 x 64 B", TOGETHER),
    Scenario(
        "tcp + udp, free",
        (STEADY_TCP, STEADY_UDP),
        "the same, server and load on any CPU",
        TOGETHER,
        pinned=False,
    ),
    Scenario(
        "tcp + churn",
        (STEADY_TCP, "tcp_churn -c 8"),
        "64 x 1 KiB beside clients that connect, 8 at a time",
        TOGETHER,
        also=(NO_RECORDS,),
    ),
    Scenario(
        *("1 tcp + udp", ("tcp_load", STEADY_UDP), "one connection beside 64 x 64 B", TOGETHER),
        quiet=0,
    ),
    Scenario(
        *("tcp + 1 udp", (STEADY_TCP, "udp_load"), "one datagram beside 64 x 1 KiB", TOGETHER),
        quiet=1,
    ),
    Scenario(
        "1 tcp + 256 connecting",
        STORM,
        "an established connection, a message each 2 ms, beside 256 clients that connect",
        TOGETHER,
        also=(NO_RECORDS,),
        quiet=0,
    ),
)

TOGETHER_SCENARIOS = tuple(each.name for each in SCENARIOS if len(each.loads) > 1)

LIMITED_SCENARIOS = tuple(each.name for each in SCENARIOS if LIMITS in each.also)
"""Where the limits in force are compared with the default configuration."""

COMPARED = (
    *("tcp 64 x 1 KiB", "tcp 1000 x 64 B", "tcp 16 x 64 KiB", "churn"),
    *("udp 64 x 64 B", "udp 512 x 64 B", "udp 64 x 1400 B"),
)
"""What is shown of all peers at a glance."""
