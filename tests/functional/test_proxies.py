"""Behind the load balancers that people use: HAProxy and nginx name their clients."""

import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.balancers import FORWARD, haproxy, nginx
from tests.support.clients import answer, ended, leaves_in_order
from tests.support.patience import eventually
from tests.support.peers import connect, echoed, read_exactly
from tests.support.proxied import LOCAL, datagram, v1
from tests.support.run import Run, echo, free_port

pytestmark = pytest.mark.usefixtures("alone")

CLIENT = "127.0.0.66"

SERVERS = {
    "v1": "send-proxy",
    "v2": "send-proxy-v2",
    "v2 with checksum": "send-proxy-v2 proxy-v2-options crc32c",
    "v2 with checksum and id": "send-proxy-v2 proxy-v2-options crc32c,unique-id",
}


@pytest.fixture
def front(port: int) -> int:
    """The port of the balancer."""
    return free_port(port + 1)


def behind_a_proxy(start: Start, port: int) -> Run:
    run = start(echo(port, proxies="127.0.0.1", allow=CLIENT))
    run.wait_line("ready: ")
    return run


def through(front: int) -> socket.socket:
    """Return a connection of the client by the balancer, as soon as that listens."""
    found: list[socket.socket] = []

    def tried() -> bool:
        with suppress(ConnectionRefusedError):
            found.append(connect(("127.0.0.1", front), source=CLIENT))
        return bool(found)

    eventually(tried, "the balancer listens")
    return found[0]


def is_served_by_name(run: Run, front: int) -> None:
    """Have the client served by a balancer; the records name it, and say by whom it came."""
    with through(front) as sock:
        assert echoed(sock)
        client = "{}:{}".format(*sock.getsockname())
        assert leaves_in_order(sock)
    line = run.wait_line(f"echo: {client} connected to 127.0.0.1:{run.port} via 127.0.0.1:")
    identity = line.rpartition(" ")[2]
    last = run.wait_line("closed: client, ")
    assert client in last
    assert "5 bytes in, 5 out" in last
    assert last.endswith(identity)


@pytest.mark.parametrize("version", SERVERS)
def test_haproxy_names_its_clients(
    start: Start, port: int, front: int, tmp_path: Path, version: str
) -> None:
    """With each form of header that it knows, and with health checks besides, which are in the
    log with no record at all.
    """
    run = behind_a_proxy(start, port)
    options = f"{SERVERS[version]} check inter 20ms"
    with haproxy(tmp_path, FORWARD.format(front=front, back=port, options=options)):
        is_served_by_name(run, front)
        enough = connects() + 50
        eventually(lambda: connects() >= enough, "50 health checks")
    assert len(run.lines_with("echo: 127.0.0.")) == 2, run


@pytest.mark.parametrize(
    ("server", "check"),
    [
        ("send-proxy", "port {back}"),  # with a port of its own, the check sends no header
        ("send-proxy", "check-send-proxy"),
        ("send-proxy-v2", "check-send-proxy"),
        ("send-proxy-v2 proxy-v2-options crc32c,unique-id", "check-send-proxy"),
    ],
    ids=["silent", "v1", "v2", "v2 with checksum"],
)
def test_health_checks_do_not_fill_the_log(
    start: Start, port: int, front: int, tmp_path: Path, server: str, check: str
) -> None:
    """HAProxy's checks connect, perhaps send a header for themselves, and leave: 50 of them, and
    the log has not one line more; the server is up by them, so clients are served.
    """
    run = behind_a_proxy(start, port)
    lines, options = len(run.lines), f"{server} check {check.format(back=port)} inter 20ms"
    with haproxy(tmp_path, FORWARD.format(front=front, back=port, options=options)):
        enough = connects() + 50
        eventually(lambda: connects() >= enough, "50 health checks")
        assert run.lines[lines:] == []
        is_served_by_name(run, front)
    run.settle()
    assert len(run.lines) == lines + 2


def test_nginx_names_its_clients(start: Start, port: int, front: int, tmp_path: Path) -> None:
    """Its stream module sends version 1."""
    run = behind_a_proxy(start, port)
    server = "server {{ listen 127.0.0.1:{}; proxy_pass 127.0.0.1:{}; proxy_protocol on; }}"
    with nginx(tmp_path, server.format(front, port)):
        is_served_by_name(run, front)


def test_whoami_is_the_named_client(start: Start, port: int, front: int, tmp_path: Path) -> None:
    """A service that speaks first, and of its client, speaks to the one behind the balancer; by
    UDP, too.
    """
    start(echo(port, service="whoami", proxies="127.0.0.1", allow=CLIENT))
    configuration = FORWARD.format(front=front, back=port, options="send-proxy-v2")
    with haproxy(tmp_path, configuration), through(front) as sock:
        expected = "{}:{}\n".format(*sock.getsockname()).encode()
        assert read_exactly(sock, len(expected)) == expected
    question = datagram(b"?", (CLIENT, 4711))
    assert answer(port, question) == f"{CLIENT}:4711\n".encode()


def test_a_balancer_that_sends_no_header_is_told(
    start: Start, port: int, front: int, tmp_path: Path
) -> None:
    """Nobody is served under its name: the connections end, and the log says why."""
    run = behind_a_proxy(start, port)
    configuration = FORWARD.format(front=front, back=port, options="")
    with haproxy(tmp_path, configuration), through(front) as sock:
        sock.sendall(b"hello")
        assert ended(sock)
    line = run.wait_line("refused: proxy-header: it begins neither as version 1 nor as version 2")
    assert "tcp 127.0.0.1:" in line


def test_a_reload_keeps_who_may_stay(start: Start, port: int) -> None:
    """A client is judged by its own address whoever brought it; a proxy that speaks for itself may
    stay as long as it is one.
    """
    run = behind_a_proxy(start, port)
    with connect(("127.0.0.1", port)) as named, connect(("127.0.0.1", port)) as itself:
        named.sendall(v1((CLIENT, 4711)))
        itself.sendall(LOCAL)
        assert echoed(named)
        assert echoed(itself)
        run.reload(echo(port, proxies="127.0.0.1", allow=CLIENT, idle_timeout="9min"))
        assert echoed(named)
        assert echoed(itself)
        run.reload(echo(port, allow=CLIENT))
        assert ended(itself)
        assert echoed(named)
        run.reload(echo(port, allow="127.0.0.67"))
        assert ended(named)
    run.wait_line("closed: access (no entry of allow contains it)", count=2)


def connects() -> int:
    """Return how many connections were opened in this network so far (RFC 4022).

    Not all are accepted: HAProxy leaves its own server a handshake short if it has nothing to send.
    """
    names, figures = (
        line.split()
        for line in Path("/proc/thread-self/net/snmp").read_text().splitlines()
        if line.startswith("Tcp:")
    )
    return int(figures[names.index("ActiveOpens")])
