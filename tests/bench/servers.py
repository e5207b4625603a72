"""A server that is being measured, from its start to its end."""

import itertools
import os
import socket
import time
from contextlib import suppress
from typing import Self

from tests.bench.boxes import BUILD, OUTPUT, Box
from tests.bench.peers import Peer

START_SECONDS = 10
_ports = itertools.count(2000)

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


class BenchError(Exception):
    """A server or a load did not do what it was there for; the run goes on without its figure."""


class Server:
    """A peer on its port, in a box on given CPUs."""

    def __init__(self, peer: Peer, cpus: str) -> None:
        """Start it and wait until it answers; raises BenchError if it does not."""
        self.peer = peer
        self.port = peer.port or next(_ports)
        self.box = Box(peer.name)
        file = BUILD / "netsrvd.toml"
        file.write_text(peer.configuration)
        words = {"port": self.port, "configuration": file}
        try:
            self.box.start([word.format(**words) for word in peer.command], cpus)
            for protocol in peer.protocols:
                self._wait_answer(KINDS[protocol])
            self.box.settle()
        except BaseException:
            self.box.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.box.end()

    def _wait_answer(self, kind: socket.SocketKind) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket(socket.AF_INET, kind) as sock, suppress(OSError):
                sock.settimeout(0.5)
                sock.connect(("127.0.0.1", self.port))
                sock.send(b"?")
                if sock.recv(1) == b"?":
                    return
            if not self.box.pids():
                break
            time.sleep(0.02)
        said = (OUTPUT / self.peer.name).read_text(errors="replace").splitlines()[-1:]
        raise BenchError(f"did not start: {said[0] if said else 'no answer'}")


def _usable() -> list[str]:
    return [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]


def server_cpu() -> str:
    """Return the CPU that servers run on."""
    return _usable()[0]


def load_cpu() -> str:
    """Return the CPU that loads run on."""
    return _usable()[-1]


def log_cpu() -> str:
    """Return the CPU that the log runs on: with two CPUs that of the load."""
    return (_usable()[1:-1] or _usable())[-1]


def everywhere() -> str:
    """Return all CPUs."""
    return ",".join(_usable())
