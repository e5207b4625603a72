"""Shared by the integration tests: serving threads, networks, the check that nothing is left."""

import gc
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from netsrvd import startup
from netsrvd.log import throttle
from tests.support.logs import FakeLog
from tests.support.namespaces import (
    Namespace,
    link,
    namespace,
    own_network,  # noqa: F401 - for all modules
)
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect
from tests.support.serving import Serving


@pytest.fixture(scope="session", autouse=True)
def known_objects() -> Iterator[None]:
    """Collect what earlier tests of other tiers built and never ran, and look at the rest no more:
    to go through all modules and reports for each test took half of the time of this tier.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left(known_objects: None) -> Iterator[None]:
    """Fail a test that leaves a thread or a descriptor behind."""
    gc.collect()
    threads, descriptors = threading.active_count(), open_descriptors()
    yield
    eventually(lambda: threading.active_count() == threads, "the threads have ended")
    assert open_descriptors() == descriptors


def open_descriptors() -> dict[str, str]:
    """Return what stands behind each open descriptor, but the one that is used to look."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def serving() -> Iterator[Serving]:
    with Serving() as parts:
        yield parts


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What closes, at the end of the test, whatever was entered."""
    with ExitStack() as entered:
        yield entered


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> FakeLog:
    """What servers of the test write to instead of standard error."""
    made = FakeLog()
    monkeypatch.setitem(startup.LOGS, "stderr", lambda: made)
    return made


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits around trouble short."""
    monkeypatch.setattr(throttle, "QUIET_SECONDS", 0.2)
    monkeypatch.setattr(throttle, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process have all descriptors that its hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True)
class Network:
    """Two hosts with two links: `s0` to `c0` and `s1` to `c1`.

    The first link has two addresses a family at the server's end; on both links the ends have the
    same link-local addresses, which therefore do not tell the links apart.
    """

    server: Namespace
    client: Namespace

    def asker(self, host: str, interface: str = "", port: int = 0) -> socket.socket:
        """Return a UDP socket on an address (a port, an interface) of the client."""
        with self.client.entered(), ExitStack() as stack:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sock.settimeout(SECONDS)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if interface:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            scope = socket.if_nametoindex(interface) if host.startswith("fe80:") else 0
            sock.bind((host, port, 0, scope) if scope else (host, port))
            stack.pop_all()
            return sock

    def caller(self, host: str, address: tuple[str, int]) -> socket.socket:
        """Return a TCP connection of an address of the client to one of the server."""
        with self.client.entered():
            return connect(address, source=host)

    def scope(self, interface: str) -> int:
        """Return the number of an interface of the client."""
        with self.client.entered():
            return socket.if_nametoindex(interface)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    with namespace() as server, namespace() as client:
        for number in (0, 1):
            link(server, f"s{number}", client, f"c{number}")
        for space, end, last in ((server, "s", 1), (client, "c", 9)):
            space.ip(
                *(
                    f"address add {address} dev {end}{number} {flags}"
                    for number in (0, 1)
                    for address, flags in (
                        (f"10.9.{number}.{last}/24 broadcast +", ""),
                        (f"fd09:{number}::{last}/64", "nodad"),
                        (f"169.254.9.{last}/16", ""),
                        (f"fe80::{last}/64", "nodad"),
                    )
                )
            )
        server.ip("address add 10.9.0.2/24 dev s0", "address add fd09:0::2/64 dev s0 nodad")
        client.ip(*(f"address add 10.9.0.{last}/24 dev c0" for last in range(10, 20)))
        client.ip(*(f"address add fd09:0::{last}/64 dev c0 nodad" for last in range(10, 20)))
        yield Network(server, client)
