"""The arguments of `netsrvd probe`."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from netsrvd.probe.settings import Protocol

DSCP_NAMES = {
    "CS0": 0,
    "LE": 1,
    **{f"CS{number}": 8 * number for number in range(1, 8)},
    **{f"AF{high}{low}": 8 * high + 2 * low for high in range(1, 5) for low in range(1, 4)},
    "VA": 44,
    "EF": 46,
}
"""Code points that have names (IANA, "Differentiated Services Field Codepoints")."""

PROTOCOLS = {
    Protocol.UDP: "echo by UDP (default)",
    Protocol.TCP: "echo by TCP; with --size 0: connect and close",
    Protocol.STAMP: "STAMP (RFC 8762)",
    Protocol.ECHOPLUS: "UDPEchoPlus (TR-143)",
    Protocol.TIME: "the clock of a time service (RFC 868)",
    Protocol.DAYTIME: "the clock of a daytime service (RFC 867)",
}

_NUMBER = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s|m|h)?")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def add(probe: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    _add_protocols(probe)
    _add_schedule(probe)
    _add_sockets(probe)
    _add_output(probe)
    probe.add_argument(
        "targets", nargs="*", metavar="HOST[:PORT]", help="hosts to probe; IPv6: [ADDRESS]:PORT"
    )


def _add_protocols(probe: argparse.ArgumentParser) -> None:
    group = probe.add_mutually_exclusive_group()
    for protocol, text in PROTOCOLS.items():
        group.add_argument(
            f"--{protocol}", dest="protocol", action="store_const", const=protocol, help=text
        )
    probe.add_argument(
        "--key-file", type=Path, metavar="FILE", help="with --stamp: the key of both sides"
    )
    probe.add_argument(
        "--ssid",
        type=whole("--ssid", 0, 65535),
        default=0,
        metavar="N",
        help="with --stamp: the session identifier",
    )


def _add_schedule(probe: argparse.ArgumentParser) -> None:
    probe.add_argument(
        *("-n", "--count"),
        type=whole("--count", 0, 10**12),
        metavar="N",
        help="probes of each stream; 0 for no end (default: 10)",
    )
    probe.add_argument(
        "--duration", type=seconds, metavar="TIME", help="send for this time: 30s, 5m"
    )
    probe.add_argument(
        *("-i", "--interval"),
        type=seconds,
        metavar="TIME",
        help="time between two probes of a stream (default: 1s)",
    )
    probe.add_argument(
        "--poisson", action="store_true", help="draw intervals as of a Poisson process"
    )
    probe.add_argument(
        *("-s", "--size"),
        type=whole("--size", 0, 65507),
        metavar="BYTES",
        help="payload of a probe (default: 64)",
    )
    probe.add_argument(
        *("-W", "--timeout"),
        type=seconds,
        metavar="TIME",
        help="a probe is lost without an answer in this time (default: 1s)",
    )


def _add_sockets(probe: argparse.ArgumentParser) -> None:
    probe.add_argument("--source", default="", metavar="ADDRESS", help="source address")
    probe.add_argument("--interface", default="", metavar="NAME", help="network interface")
    probe.add_argument(
        "--source-port",
        type=whole("--source-port", 1, 65535),
        default=0,
        metavar="PORT",
        help="source port, or the first of several",
    )
    probe.add_argument(
        "--sweep",
        type=whole("--sweep", 1, 4096),
        default=1,
        metavar="N",
        help="probe from N source ports, to see each of several paths",
    )
    probe.add_argument("--dscp", type=dscp, metavar="DSCP", help="0 to 63, or a name such as EF")
    probe.add_argument("--ttl", type=whole("--ttl", 1, 255), metavar="N", help="TTL or hop limit")
    probe.add_argument(
        "--dont-fragment", action="store_true", help="let no host or router fragment probes"
    )
    family = probe.add_mutually_exclusive_group()
    family.add_argument("-4", "--ipv4", action="store_true", help="IPv4 addresses only")
    family.add_argument("-6", "--ipv6", action="store_true", help="IPv6 addresses only")
    probe.add_argument("--all", action="store_true", help="probe all addresses of a name")
    probe.add_argument(
        "--program-stamps", action="store_true", help="take times in the program, not in the kernel"
    )


def _add_output(probe: argparse.ArgumentParser) -> None:
    group = probe.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="print only the summary")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    group.add_argument("--csv", action="store_true", help="print a line of values for each probe")
    group.add_argument("--live", action="store_true", help="show a table that changes")
    group.add_argument(
        "--nagios", action="store_true", help="print one line, as a monitoring plugin"
    )
    group.add_argument(
        "--fping",
        nargs=argparse.REMAINDER,
        metavar="…",
        help="take the arguments of fping(8), and print as it does",
    )
    probe.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw a picture, .png or .svg"
    )
    probe.add_argument("--warn", metavar="MS,LOSS%", help="with --nagios: when it is a warning")
    probe.add_argument("--crit", metavar="MS,LOSS%", help="with --nagios: when it is critical")


def whole(option: str, least: int, most: int) -> Callable[[str], int]:
    """Return a function that reads a whole number between two bounds."""

    def read(text: str) -> int:
        value = int(text) if _NUMBER.fullmatch(text) else -1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"expected a number from {least} to {most}, not {text!r}"
            )
        return value

    read.__name__ = option
    return read


def seconds(text: str) -> float:
    """Return a time in seconds: `0.2`, `200ms`, `5m`."""
    found = _SECONDS.fullmatch(text)
    value = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not value:
        raise argparse.ArgumentTypeError(f"expected a time such as 0.2, 200ms or 5m, not {text!r}")
    return value


def dscp(text: str) -> int:
    """Return a code point of a number or a name."""
    value = DSCP_NAMES.get(text.upper())
    if value is None and _NUMBER.fullmatch(text):
        value = int(text)
    if value is None or not 0 <= value < 64:  # noqa: PLR2004 - six bits
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 to 63 or a name such as EF, AF41 or CS1, not {text!r}"
        )
    return value
