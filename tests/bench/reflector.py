"""`python -m tests.bench.reflector`: how long a request of STAMP is in the reflector.

It starts the installed command on loopback, sends one request after the other at a fixed rate, and
prints percentiles in microseconds of what the times of the replies say:

- in the reflector: from the kernel's time of arrival (T2) to the time of sending (T3);
- lag: by how much later a program knows that a datagram came than the kernel, measured where the
  replies come, by the same call of the kernel.
"""

import argparse
import contextlib
import socket
import statistics
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import sleep, time_ns

from netsrvd.packets import stamp
from tests.support.run import Run, free_port, toml

SO_TIMESTAMPNS = 35
TIMESPEC = struct.Struct("@ll")
KEY = bytes(range(32))
WARM_UP = 200
UNKNOWN = 0x3FFF
"""Scale and multiplier of a reply that has no time of arrival."""


def main() -> None:
    """Measure open and authenticated packets, short and long ones."""
    top = argparse.ArgumentParser(prog="tests.bench.reflector", description=__doc__)
    top.add_argument("--count", type=int, default=5000, help="requests of each kind (5000)")
    top.add_argument("--rate", type=int, default=500, help="requests a second at the most (500)")
    arguments = top.parse_args()
    print(f"{'':28}{'in the reflector':>26}{'lag':>18}")
    print(f"{'microseconds':28}" + f"{'p50':>8}{'p90':>8}{'p99':>8} " + f"{'p50':>8}{'p99':>8}")
    for name, key, tlvs in (
        ("open, 44 bytes", None, b""),
        ("open, 1400 bytes", None, stamp.make_tlv(stamp.EXTRA_PADDING, bytes(1352))),
        ("authenticated, 112 bytes", KEY, b""),
    ):
        with reflector(key) as port:
            inside, lag = measure(port, key, tlvs, arguments.count, arguments.rate)
        row = [*percentiles(inside, 50, 90, 99), *percentiles(lag, 50, 99)]
        print(f"{name:28}" + "".join(f"{value:8.1f}" for value in row))


@contextlib.contextmanager
def reflector(key: bytes | None) -> Iterator[int]:
    """Serve with this key, or without one."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"service": "stamp", "protocols": "udp", "host": "127.0.0.1", "port": port}
        if key is not None:
            path = Path(folder, "key")
            path.touch(0o600)
            path.write_text(f"hex:{key.hex()}")
            settings["stamp_key"] = str(path)
        config = Path(folder, "netsrvd.toml")
        config.write_text(toml({"listener": {"echo": {"enabled": False}, "lab": settings}}))
        run = Run("-c", config)
        run.port, run.config = port, config
        with run:
            run.wait_ready()
            yield port


def measure(
    port: int, key: bytes | None, tlvs: bytes, count: int, rate: int
) -> tuple[list[float], list[float]]:
    """Return, for each request, the time in the reflector and the lag in microseconds."""
    if key is not None and tlvs:
        raise ValueError("TLVs of authenticated packets need an HMAC of their own")
    inside, lag = [], []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.connect(("127.0.0.1", port))
        for number in range(WARM_UP + count):
            sleep(1 / rate)
            request = stamp.make_request(
                number, stamp.ntp_timestamp(time_ns()), 1, tlvs=tlvs, key=key
            )
            sock.send(request)
            data, ancillary, _, _ = sock.recvmsg(65536, 100)
            now = time_ns()
            reply = stamp.read_reply(data, key)
            if number < WARM_UP or reply.error_estimate & UNKNOWN == UNKNOWN:
                continue
            t2, t3 = (
                stamp.time_of(each, reply.error_estimate, now)
                for each in (reply.received, reply.timestamp)
            )
            inside.append((t3 - t2) / 1000)
            seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2])
            lag.append((now - seconds * 1_000_000_000 - nanoseconds) / 1000)
    return inside, lag


def percentiles(values: list[float], *wanted: int) -> list[float]:
    """Return these percentiles."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return [cuts[each - 1] for each in wanted]


if __name__ == "__main__":
    main()
