"""A network interface that is deleted, and made anew, under a daemon that serves it."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened, passing
from tests.support.clients import HELLO
from tests.support.namespaces import Namespace, link, namespace
from tests.support.patience import SECONDS
from tests.support.peers import datagrams
from tests.support.run import QUICK


class Site:
    """Two networks, and the interface `wg9` of the first one, which leads to the second."""

    def __init__(self, here: Namespace, there: Namespace) -> None:
        self.here, self.there = here, there
        self.make()

    def make(self) -> None:
        """Make the interface, with its addresses."""
        link(self.here, "wg9", self.there, "far")
        self.here.ip("address add 10.9.0.1/24 dev wg9", "address add fe80::1/64 dev wg9")
        self.there.ip("address add 10.9.0.2/24 dev far", "address add fe80::2/64 dev far")

    def delete(self) -> None:
        """Delete it, and its other end with it."""
        self.here.ip("link delete wg9")

    def serves(self, host: str, port: int) -> bool:
        """Return whether the second network is served at an address, by both protocols."""
        return all(
            self._answer(host, port, kind) == HELLO
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
        )

    def _answer(self, host: str, port: int, kind: int) -> bytes:
        with self.there.entered():
            [(family, _, _, _, address)] = socket.getaddrinfo(host, port, type=kind)
            with socket.socket(family, kind) as client:
                client.settimeout(SECONDS)
                client.connect(address)
                client.sendall(HELLO)
                return client.recv(100)


@pytest.fixture
def site() -> Iterator[Site]:
    with namespace() as here, namespace() as there, here.entered():
        yield Site(here, there)


BOUND = {
    "device": ({"interface": "wg9"}, "10.9.0.1"),
    "device and address": ({"interface": "wg9", "host": "10.9.0.1"}, "10.9.0.1"),
    "link-local": ({"host": ["fe80::1%wg9"]}, "fe80::1%far"),
}


@pytest.mark.parametrize(("keys", "host"), BOUND.values(), ids=list(BOUND))
def test_a_new_interface_of_the_same_name_is_served(
    start: Start, site: Site, port: int, keys: dict[str, object], host: str
) -> None:
    """Sockets that were bound to the old one, by its name or by a link-local address, are bound
    anew without a reload; a record says when they are deaf, and when they serve again.
    """
    run = start({"listener": {"echo": {"port": port, **keys}}}, environment=QUICK)
    assert site.serves(host, port)
    run.wait_line("ready: ")  # behind the records of all its sockets
    sockets = len(run.lines_with("serving echo on "))
    for number in (1, 2):
        site.delete()
        deaf = (
            "receives nothing: interface wg9: it is gone; the socket is bound anew when it is back"
        )
        run.wait_line(deaf, number * sockets)
        site.make()
        run.wait_line("serving echo on ", (number + 1) * sockets)
        assert site.serves(host, port)
    assert len(run.lines_with("receives nothing: interface")) == 2 * sockets
    run.end()


def test_a_reload_finds_the_new_interface_at_once(start: Start, site: Site, port: int) -> None:
    """Without waiting for the next look."""
    configuration = {"listener": {"echo": {"port": port, "interface": "wg9"}}}
    run = start(configuration)
    site.delete()
    site.make()
    run.reload({"drain_timeout": 1, **configuration})
    assert site.serves("10.9.0.1", port)
    assert run.lines_with("receives nothing: interface") == []


def test_a_new_socket_has_the_service_of_now(start: Start, site: Site, port: int) -> None:
    """After a reload has changed the service of a listener, the record of a socket that is bound
    anew names the new one.
    """
    keys = {"port": port, "interface": "wg9"}
    run = start({"listener": {"lab": keys, "echo": {"enabled": False}}}, environment=QUICK)
    run.reload({"listener": {"lab": {**keys, "service": "whoami"}, "echo": {"enabled": False}}})
    run.wait_line("configuration reloaded: ")
    sockets = len(run.lines_with("lab: serving "))
    site.delete()
    run.wait_line("receives nothing: interface wg9: ", sockets)
    site.make()
    run.wait_line("lab: serving ", 2 * sockets)
    anew = run.lines_with("lab: serving ")[sockets:]
    assert [line for line in anew if "serving whoami on " not in line] == []


def test_an_address_that_comes_later_is_waited_for(start: Start, site: Site, port: int) -> None:
    """The interface is back before its address: a record says what lacks, and it is served then."""
    keys = {"interface": "wg9", "host": "10.9.0.1", "port": port}
    run = start({"listener": {"echo": keys}}, environment=QUICK)
    site.delete()
    link(site.here, "wg9", site.there, "far")
    run.wait_line("receives nothing: interface wg9: the socket cannot be bound anew: ", 2)
    assert len(run.lines_with("10.9.0.1")) > 0
    site.here.ip("address add 10.9.0.1/24 dev wg9")
    site.there.ip("address add 10.9.0.2/24 dev far")
    run.wait_line("serving echo on ", 4)
    assert site.serves("10.9.0.1", port)


def test_a_datagram_socket_that_ss_unbound_is_bound_again(
    start: Start, site: Site, port: int
) -> None:
    """`ss -K` frees it from its interface, so that others would be served: not for long."""
    run = start({"listener": {"echo": {"port": port, "interface": "wg9"}}}, environment=QUICK)
    kill = ["ss", "--kill", "--all", "--udp", f"sport = :{port}"]
    subprocess.run(kill, check=True, capture_output=True)
    run.wait_line("serving echo on udp", 4)
    assert site.serves("10.9.0.1", port)
    with datagrams("127.0.0.1") as stranger:
        stranger.connect(("127.0.0.1", port))
        stranger.send(HELLO)
        with pytest.raises(ConnectionRefusedError):  # as no socket is there for it
            stranger.recv(100)


def test_a_socket_of_systemd_is_told(start: Start, site: Site, port: int) -> None:
    """It cannot be bound anew without a privilege: a record names what helps, once; a reload and a
    restart with such a socket go on.
    """
    with ExitStack() as stack:
        [sock] = opened(stack, port, "udp4")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wg9")
        configuration = {"listener": {"echo": {"port": port, "protocols": ["udp"]}}}
        run = start(configuration, environment=QUICK, **passing([sock], "echo"))
        site.delete()
        site.make()
        run.wait_line(
            "receives nothing: interface of its socket unit: it is gone; stop its socket unit and"
        )
        run.wait_notice("WATCHDOG", len(run.notices_with("WATCHDOG")) + 2)
        assert len(run.lines_with("receives nothing: interface")) == 1
        run.reload({"drain_timeout": 1, **configuration})
        run.wait_line("configuration reloaded: ")
        again = start(configuration, environment=QUICK, **passing([sock], "echo"))
        again.wait_line("receives nothing: interface ")
