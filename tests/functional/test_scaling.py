"""Several hosts behind HAProxy, with the very files of packaging/examples: see docs/scaling.md."""

import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.balancers import haproxy
from tests.support.namespaces import Namespace, link, namespace
from tests.support.patience import SECONDS, eventually
from tests.support.peers import Address, connect, echoed
from tests.support.run import Run
from tests.support.visitors import Visitors

EXAMPLES = Path(__file__).parents[2] / "packaging/examples"
NAMES = ("one", "two", "three")
FRONT = ("10.8.0.1", 51423)
SOURCES = [f"10.8.0.{last}" for last in range(10, 18)]
CONNECTED = re.compile(r"echo: (\S+):(\d+) connected to \S+ via 10[.]9[.]")


@dataclass
class Site:
    """A client's host, a balancer, and three hosts behind it, each of which runs netsrvd."""

    client: Namespace
    hosts: dict[str, Run]
    admin: Path

    def hear(self, look: object, what: str) -> None:
        """Wait for something while reading what all hosts write."""
        assert callable(look)

        def heard() -> bool:
            for run in self.hosts.values():
                if run._pipe and not run._pipe.closed:
                    run._hear()
            return bool(look())

        eventually(heard, what)

    def tell(self, command: str) -> str:
        """Give HAProxy a command as an administrator would; return what it says."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(SECONDS)
            sock.connect(str(self.admin))
            sock.sendall(command.encode() + b"\n")
            return sock.makefile().read()

    def clients(self, name: str) -> list[Address]:
        """Return the clients that a host has told of."""
        found = map(CONNECTED.search, self.hosts[name].lines)
        return [(each[1], int(each[2])) for each in found if each]


def there(name: str, number: int) -> str:
    """Return an example with the addresses of this test."""
    text = (EXAMPLES / name).read_text()
    for at in range(3):
        text = text.replace(f"192.0.2.{11 + at}:", f"10.9.{at}.2:")
    return text.replace("192.0.2.1", f"10.9.{number}.1")


@pytest.fixture
def site(start: Start, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        client, balancer, *spaces = (stack.enter_context(namespace()) for _ in range(5))
        link(client, "eth0", balancer, "to-clients")
        client.ip(*(f"address add {source}/24 dev eth0" for source in SOURCES))
        balancer.ip(f"address add {FRONT[0]}/24 dev to-clients")
        hosts = {}
        for number, (name, host) in enumerate(zip(NAMES, spaces, strict=True)):
            link(balancer, f"to-{name}", host, "eth0")
            balancer.ip(f"address add 10.9.{number}.1/24 dev to-{name}")
            host.ip(f"address add 10.9.{number}.2/24 dev eth0")
            with host.entered():
                text = f"drain_timeout = 60\n{there('behind-haproxy.toml', number)}"
                hosts[name] = start(text)
        made = Site(client, hosts, tmp_path / "admin.sock")
        text = there("haproxy.cfg", 0).replace("/run/haproxy/admin.sock", str(made.admin))
        with balancer.entered():
            stack.enter_context(haproxy(tmp_path, text))
        eventually(made.admin.exists, "HAProxy is there")
        yield made


def test_one_is_killed_and_one_is_drained_under_load(site: Site) -> None:
    """Nobody fails but who was being served by the killed one: the others, the live ones of the
    drained host included, are served to their end. Each host's log names the real clients.
    """
    visitors = Visitors(site.client, SOURCES, FRONT)
    one, two, three = site.hosts.values()
    with ExitStack() as stack:
        with site.client.entered():
            stayers = [stack.enter_context(connect(FRONT, SOURCES[0])) for _ in range(6)]
        assert all(map(echoed, stayers))
        with visitors.coming():
            site.hear(visitors.more(25), "visits of all three")

            one.kill()
            by_the_kill = len(visitors.served)
            site.hear(visitors.more(25), "visits of the two that are left")
            failed_by_the_kill = dict(visitors.failed)

            site.tell("set server netsrvd/two state drain")
            site.hear(visitors.more(25), "visits of the one that is left")
            two.send(signal.SIGTERM)
            two.wait_line("draining 2 connections")
            site.hear(visitors.more(25), "visits while the other one drains")
            alive = [sock for sock in stayers if is_alive(sock)]
            assert len(alive) == 4
            assert all(map(echoed, alive))
        for sock in stayers:
            sock.close()
    two.wait_end()
    three.end()
    assert "0 cut off" in two.lines[-1]
    assert "0 cut off" in three.lines[-1]

    assert visitors.failed == failed_by_the_kill
    assert len(visitors.failed) <= len(SOURCES)
    survivors = Counter(site.clients("two") + site.clients("three"))
    served = Counter(visitors.served)
    for each in visitors.failed:  # a later visit that went well may have had the same port
        assert survivors[each] == served[each], each
    # The killed host's last records died with it; all that came later were told by the others.
    # Only the one visit of each source that was under way at the kill may have been its.
    later = visitors.served[by_the_kill:]
    under_way = {source: (source, port) for source, port in reversed(later)}
    assert {*later} - {*under_way.values()} <= survivors.keys()
    for name in NAMES:
        assert {host for host, _ in site.clients(name)} <= {*SOURCES}
        assert len(site.clients(name)) > 20


def is_alive(sock: socket.socket) -> bool:
    """Return whether a connection has not been ended by the other side."""
    sock.setblocking(False)
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        sock.settimeout(SECONDS)


def test_health_checks_leave_no_record(site: Site) -> None:
    """HAProxy finds all three alive, and their logs have nothing of that."""
    eventually(lambda: site.tell("show stat").count(",L4OK,") == 3, "all have been checked")
    for run in site.hosts.values():
        run.wait_line("ready: ")
        run.settle()
        assert [line for line in run.lines if "10.9." in line and "serving" not in line] == []
