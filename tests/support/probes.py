"""Runs of `netsrvd probe`, and reflectors that do with datagrams what a test says."""

import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, command

Ended = subprocess.CompletedProcess[str]

Received = tuple[bytes, tuple[str, int], int, int]
"""A datagram: payload, source, TTL, TOS."""

Reply = Callable[[Received], Iterable[bytes]]
"""What a reflector sends back for a datagram."""


def probe(
    *arguments: object,
    planted: str = "",
    under: Sequence[str | Path] = (),
    environment: dict[str, str] | None = None,
) -> Ended:
    """Run `netsrvd probe` to its end, after Python code `planted`."""
    return subprocess.run(
        [*under, *(command(planted) if planted else [COMMAND]), "probe", *map(str, arguments)],
        env=ENVIRONMENT | (environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def report(*arguments: object, status: int = 0, **how: Any) -> dict[str, Any]:
    """Return the JSON object of a run."""
    ended = probe("--json", *arguments, **how)
    assert ended.returncode == status, ended
    assert ended.stderr == ""
    return json.loads(ended.stdout)  # type: ignore[no-any-return]


def only_target(found: dict[str, Any]) -> dict[str, Any]:
    """Return the one target of a report."""
    [target] = found["targets"]
    return target  # type: ignore[no-any-return]


def figures(*arguments: object, **how: Any) -> dict[str, Any]:
    """Return the statistics of the one target of a run."""
    return only_target(report(*arguments, **how))["statistics"]  # type: ignore[no-any-return]


def trips(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all round trips of a report."""
    streams = [stream for target in found["targets"] for stream in target["streams"]]
    return [trip for stream in streams for trip in stream["round_trips"]]


class Reflector:
    """A socket on loopback that answers as a test says. `received` has what came."""

    def __init__(self, reply: Reply, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        if family == socket.AF_INET:
            self.sock.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
            self.sock.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS
        self.address = (
            f"{host}:{self.port}" if family == socket.AF_INET else f"[{host}]:{self.port}"
        )
        self.received: list[Received] = []
        self.sender = self.sock
        """The socket that replies are sent from."""
        self._reply = reply
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    @property
    def port(self) -> int:
        """The port."""
        return int(self.sock.getsockname()[1])

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._end.close()
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        # An unconnected socket wakes up by the shutdown, although that fails (ENOTCONN).
        self._thread.join()
        self.sock.close()
        self._ended.close()

    def _run(self) -> None:
        while True:
            try:
                payload, ancillary, _, source = self.sock.recvmsg(65535, 512)
            except OSError:
                return
            if self._end.fileno() < 0:
                return
            fields = {kind: int.from_bytes(data[:4], "little") for _, kind, data in ancillary}
            ttl, tos = fields.get(socket.IP_TTL, 0), fields.get(socket.IP_TOS, 0)
            self.received.append((payload, source[:2], ttl, tos))
            for answer in self._reply(self.received[-1]):
                self.sender.sendto(answer, source)


@contextmanager
def reflector(reply: Reply, host: str = "127.0.0.1") -> Iterator[Reflector]:
    """Run a reflector in a thread."""
    made = Reflector(reply, host)
    made.start()
    try:
        yield made
    finally:
        made.stop()
