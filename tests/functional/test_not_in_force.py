"""Sockets of systemd's that the files contradict: no more is served than the files say."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened, passing
from tests.support.clients import answer, ended, serves, talking
from tests.support.namespaces import Namespace, namespace
from tests.support.patience import eventually
from tests.support.peers import connect, datagrams, echoed, nothing_more
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, Run, free_port

SO_BUF_LOCK = 72
BOTH_DUAL = ("tcpdual", "udpdual")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close at the end what the test opened."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def network() -> Iterator[Namespace]:
    """Put the test and all that it starts into a network of its own."""
    with namespace() as network, network.entered():
        yield network


def tables(**keys: object) -> dict[str, object]:
    return {"listener": {"echo": keys}}


def is_reset(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a connection is accepted by the kernel and reset by the daemon."""
    try:
        with connect((host, port)) as sock:
            assert sock.recv(1)
    except ConnectionResetError:  # it may come before connect(2) returns
        return True
    return False


def is_dropped(run: Run, port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a datagram is refused, with a record, and has no answer.

    Each test asks once from each address, as further refusals have no record of their own.
    """
    with datagrams(host) as sock:
        sock.sendto(b"x", (host, port))
        run.wait_line(f":{sock.getsockname()[1]} refused: configuration")
        return nothing_more(sock)


def reload_by_command(run: Run) -> tuple[int, list[str]]:
    """Return the status and the lines of `netsrvd reload`."""
    done = subprocess.run(
        [COMMAND, "reload", str(run.pid)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stderr.splitlines()


def test_another_port(start: Start, port: int, stack: ExitStack) -> None:
    """The port of the file is bound by the daemon; that of systemd's sockets is refused by TCP and
    by UDP, and records, status line and counters say so.
    """
    other = free_port(port + 1)
    sockets = opened(stack, port, *BOTH_DUAL)
    run = start(tables(port=other), **passing(sockets, "echo:echo"))
    assert serves(other)
    assert is_reset(port)
    assert is_dropped(run, port)
    run.wait_line("refused: configuration: the files do not name the address", 2)
    for protocol in ("tcp", "udp"):
        where = f"echo: {protocol} [::]:{port}"
        run.wait_line(
            f"{where} is not served, as the files say port = {other}; run `netsrvd apply`"
        )
    status = run.wait_notice("READY")["STATUS"]
    assert status.startswith(f"Not all of the configuration is in force: echo: tcp [::]:{port} is")
    assert " (and 1 more); Serving " in status
    run.end()
    run.wait_line(": 2 connections accepted, 1 refused, ")


@pytest.mark.usefixtures("network")
def test_one_address_of_a_socket_for_all(start: Start, port: int, stack: ExitStack) -> None:
    """Only what is sent to the address of the file is served, by TCP and by UDP."""
    sockets = opened(stack, port, *BOTH_DUAL)
    run = start(tables(host="127.0.0.2", port=port), **passing(sockets, "echo:echo"))
    assert serves(port, ["127.0.0.2"])
    for host in ("127.0.0.1", "::1"):
        assert is_reset(port, host)
        assert is_dropped(run, port, host)
    run.wait_line(f"tcp [::]:{port} is open on every address; only 127.0.0.2 is served there; run")
    run.wait_line("ready: 2 sockets")


def test_one_protocol_alone(start: Start, port: int, stack: ExitStack) -> None:
    """A UDP socket is superfluous for `protocols = ["tcp"]`; it ends nothing, and is not served."""
    run = start(tables(protocols=["tcp"]), **passing(opened(stack, port, *BOTH_DUAL), "echo:echo"))
    with talking(port):
        assert is_dropped(run, port)
    run.wait_line(f'udp [::]:{port} is not served, as the files say protocols = ["tcp"]; run')


def test_a_socket_that_no_listener_is_for(start: Start, port: int, stack: ExitStack) -> None:
    """It is refused under the name that its unit gave it, and the others are served."""
    other = free_port(port + 1)
    sockets = opened(stack, port, *BOTH_DUAL) + opened(stack, other, *BOTH_DUAL)
    run = start(tables(), **passing(sockets, "echo:echo:ehco:ehco"))
    assert serves(port)
    assert is_reset(other)
    assert is_dropped(run, other)
    run.wait_line(f"ehco: tcp [::]:{other} (ehco) is not served, as no listener is for it; ")
    run.wait_line("ehco: udp 127.0.0.1:")


def test_a_unit_alone_decides_what_no_file_names(start: Start, port: int, stack: ExitStack) -> None:
    """A port of a socket unit is served as it is, without a warning, while no file names one."""
    run = start(tables(allow=["loopback"]), **passing(opened(stack, port, *BOTH_DUAL), "echo:echo"))
    assert serves(port)
    assert run.wait_notice("READY")["STATUS"].startswith("Serving ")
    assert not run.lines_with("netsrvd apply")


@pytest.mark.usefixtures("network")
def test_a_port_that_cannot_be_bound_is_told(start: Start, port: int, stack: ExitStack) -> None:
    """A start goes on with what can be served; a reload that would lose what is served fails."""
    taken = free_port(port + 1)
    _holders = opened(stack, taken, "tcp4", "tcp6", "udp4", "udp6")
    sockets = opened(stack, port, *BOTH_DUAL)
    run = start(tables(), **passing(sockets, "echo:echo"))
    run.configure(tables(port=taken))
    status, lines = reload_by_command(run)
    assert status == 78
    assert "is already in use" in lines[0]
    assert serves(port)
    run.end()
    again = start(tables(port=taken), **passing(sockets, "echo:echo"))
    assert is_reset(port)
    again.wait_line(f"echo: tcp port {taken} is already in use")
    again.wait_line(f"echo: udp port {taken} is already in use")
    again.configure(tables(port=taken, idle_timeout="9s"))  # as before: what is missing stays so
    status, lines = reload_by_command(again)
    assert status == 0
    assert len(lines) == 4
    assert all(line.startswith("netsrvd: warning: echo: ") for line in lines)


@pytest.mark.usefixtures("network")
def test_a_reload_restricts_and_widens(start: Start, port: int, stack: ExitStack) -> None:
    """What a reload takes away is refused from then on, and says so; connections go on. What it
    gives back is served again.
    """
    run = start(tables(), **passing(opened(stack, port, *BOTH_DUAL), "echo:echo"))
    with talking(port) as live, datagrams() as asker:
        asker.connect(("127.0.0.1", port))
        asker.send(b"x")
        assert asker.recv(1) == b"x"
        run.configure(tables(host="127.0.0.2"))
        status, lines = reload_by_command(run)
        assert (status, len(lines)) == (0, 2)
        assert all("only 127.0.0.2 is served there; run `netsrvd apply`" in line for line in lines)
        assert is_reset(port)
        run.wait_line("127.0.0.1", 2)
        assert is_dropped(run, port)
        assert serves(port, ["127.0.0.2"])
        assert echoed(live)
    run.configure(tables())
    assert reload_by_command(run) == (0, [])
    assert serves(port)
    eventually(lambda: answer(port) == b"hello", "answer")


def test_a_reload_moves_a_socket_to_another_listener(
    start: Start, port: int, stack: ExitStack
) -> None:
    """The socket of a port goes to the listener that has it; what waits in it is served there."""
    sockets = opened(stack, port, "tcp4")
    listeners = {"one": {"port": port, "protocols": ["tcp"]}, "echo": {"enabled": False}}
    run = start({"listener": listeners}, **passing(sockets))
    with talking(port) as live:
        run.wait_line("one: 127.0.0.1:")
        listeners["two"] = listeners.pop("one")
        run.reload({"listener": listeners})
        with talking(port):
            run.wait_line("two: 127.0.0.1:")
        assert echoed(live)
    run.wait_line("closed: client", 2)
    run.rest()


@pytest.mark.usefixtures("network")
def test_an_interface_that_no_file_names_any_more(
    start: Start, port: int, stack: ExitStack
) -> None:
    """A socket stays bound to an interface; each start says so, and a file that names another one
    has it refuse.
    """
    sockets = opened(stack, port, "tcp4")
    start(tables(interface="lo", port=port, protocols=["tcp"]), **passing(sockets, "echo")).end()
    device = sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
    assert device.rstrip(b"\0") == b"lo"
    run = start(tables(port=port, protocols=["tcp"]), **passing(sockets, "echo"))
    run.wait_line("is bound to interface lo, which the files do not name (interface =); run")
    with talking(port):
        pass
    run.end()
    other = tables(interface="", port=port, protocols=["tcp"])
    run = start(other, **passing(sockets, "echo"))
    assert is_reset(port)
    run.wait_line('on interface lo is not served, as the files say interface = ""; run')


OPTIONS = {"SO_RCVBUF": 8192, "SO_KEEPALIVE": True, "IP_TTL": 9, "TCP_CONGESTION": "reno"}


def option_values(sock: socket.socket) -> list[bytes]:
    """Return what the options of `OPTIONS` are, and whether the size of a buffer is fixed."""
    numbers = [
        (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.SOL_SOCKET, SO_BUF_LOCK),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_IP, socket.IP_TTL),
        (socket.IPPROTO_TCP, socket.TCP_CONGESTION),
    ]
    return [sock.getsockopt(*number, 16) for number in numbers]


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_options_that_no_file_names_any_more(
    start: Start, port: int, stack: ExitStack, *, killed: bool
) -> None:
    """A socket of systemd's has them while the daemon runs, and its own values after the stop; also
    if a process before was killed and left them behind.
    """
    [sock] = sockets = opened(stack, port, "tcp4")
    fresh = option_values(sock)
    configuration = tables(port=port, protocols=["tcp"], options=OPTIONS)
    if killed:
        start(configuration, **passing(sockets, "echo")).kill()
    run = start(configuration, **passing(sockets, "echo"))
    assert all(a != b for a, b in zip(option_values(sock), fresh, strict=True))
    with talking(port):
        pass
    run.end()
    assert option_values(sock) == fresh


def test_an_option_that_stays_is_told(start: Start, port: int, stack: ExitStack) -> None:
    """A window that is clamped stays so on a socket that listens: each start says it."""
    sockets = opened(stack, port, "tcp4")
    clamped = tables(port=port, protocols=["tcp"], options={"TCP_WINDOW_CLAMP": 65536})
    start(clamped, **passing(sockets, "echo")).end()
    run = start(tables(port=port, protocols=["tcp"]), **passing(sockets, "echo"))
    run.wait_line(
        "keeps TCP_WINDOW_CLAMP = 65536, which the files do not name; run `netsrvd apply`"
    )
    with talking(port):
        pass


def test_an_instance_shares_its_port(start: Start, port: int, stack: ExitStack) -> None:
    """Beside sockets of ReusePort= the daemon binds with SO_REUSEPORT, so that another instance can
    bind the same.
    """
    other = free_port(port + 1)
    runs = []
    for number in range(2):
        sockets = opened(stack, free_port(other + 1 + number), "tcp4")
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        runs.append(start(tables(port=other), **passing(sockets, "echo")))
    for run in runs:
        run.wait_line("(bound)", 4)
        assert not run.lines_with("already in use")
    assert serves(other)
    runs[0].send(signal.SIGTERM)
    runs[0].wait_end()
    assert serves(other)


def test_a_socket_that_is_refused_now_keeps_its_connections(
    start: Start, port: int, stack: ExitStack
) -> None:
    """A connection from before the reload that took the address away is served to its end."""
    sockets = opened(stack, port, "tcp4")
    run = start(tables(protocols=["tcp"]), **passing(sockets, "echo"))
    with talking(port) as live:
        run.reload(tables(protocols=["udp"], port=port))
        assert is_reset(port)
        assert echoed(live)
        live.shutdown(socket.SHUT_WR)
        assert ended(live)
    run.wait_line("closed: client")
    run.rest()
