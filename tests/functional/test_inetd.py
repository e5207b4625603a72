"""`netsrvd run --inetd`: one connection that somebody else has accepted, served and ended."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.balancers import FORWARD, haproxy, server
from tests.support.detached import Syslog
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed, exchange
from tests.support.private import private_files
from tests.support.proxied import CLIENT, v1
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, command, free_port, toml


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Inetd:
    """Starts the program as inetd does: its three standard streams are one connection."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self.config = folder / "netsrvd.toml"
        self.config.write_text("")
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return the two ends of a connection: the client's, and the accepted one."""
        client = self._stack.enter_context(connect(self._listening.getsockname()))
        return client, self._stack.enter_context(self._listening.accept()[0])

    def start(
        self,
        stream: socket.socket,
        *arguments: str,
        stderr: int | None = None,
        planted: str = "",
    ) -> subprocess.Popen[bytes]:
        """Start the program with a socket as its standard streams, after Python code `planted`."""
        process = subprocess.Popen(
            [*private_files(self._folder), *command(planted), "run", "--inetd", *arguments],
            stdin=stream,
            stdout=stream,
            stderr=stream if stderr is None else stderr,
            env=ENVIRONMENT,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def serve(
        self, *arguments: str, stderr: int | None = None, planted: str = ""
    ) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """Start the program for one more client; return the client's end."""
        client, near = self.pair()
        configured = "-c", str(self.config), *arguments
        process = self.start(near, *configured, stderr=stderr, planted=planted)
        near.close()
        return client, process


@pytest.fixture
def inetd(tmp_path: Path, stack: ExitStack) -> Inetd:
    return Inetd(tmp_path, stack)


def test_one_connection_is_served_to_its_end(inetd: Inetd, syslog: Syslog) -> None:
    """Everything comes back, the process ends with 0, and syslog has the two records."""
    client, process = inetd.serve()
    data = os.urandom(200_000)
    assert exchange(client, [data[:70_000], data[70_000:]]) == data
    assert process.wait(PATIENCE) == 0
    address = "{}:{}".format(*client.getsockname())
    assert f" echo: {address} connected to 127.0.0.1:" in syslog.wait(" connected to ")
    assert "closed: client, " in (closed := syslog.wait(f" echo: {address} closed: "))
    assert "200000 bytes in, 200000 out" in closed
    assert not syslog._with("serving echo on")


def test_no_two_connections_have_one_id(inetd: Inetd, syslog: Syslog) -> None:
    """Also if their processes start within a millisecond, as those of a crowd do."""
    frozen = "import time\ntime.time_ns = lambda: 1_800_000_000_000_000_000"
    for _ in range(2):
        client, process = inetd.serve(planted=frozen)
        assert exchange(client, [b"hello"]) == b"hello"
        assert process.wait(PATIENCE) == 0
    eventually(lambda: len(syslog._with(" closed: ")) == 2, "both have ended")
    ids = [line.rpartition("[")[2] for line in syslog._with(" closed: ")]
    assert ids[0] != ids[1]
    assert {each.split("-")[0] for each in ids} == {f"{1_800_000_000_000:x}"}


def test_a_listener_can_be_named(inetd: Inetd, syslog: Syslog) -> None:
    """Its service, access and time-outs hold; without a name they are those of the first."""
    lab = {"service": "discard", "port": 1024, "idle_timeout": 0.1}
    inetd.config.write_text(toml({"listener": {"echo": {"service": "chargen"}, "lab": lab}}))
    client, process = inetd.serve("--listener", "lab")
    client.sendall(b"x")
    assert client.recv(1) == b""
    assert process.wait(PATIENCE) == 0
    assert " lab: " in syslog.wait("closed: idle")
    first, _ = inetd.serve()
    assert first.recv(4) == b'!"#$'


def test_a_handler_serves(inetd: Inetd, syslog: Syslog) -> None:
    """A service of the administrator's own as well: in a thread, and to its end."""
    here = {"service": "python:tests.support.handlers:upper"}
    inetd.config.write_text(toml({"listener": {"echo": here}}))
    root = str(Path(__file__).parents[2])
    client, near = inetd.pair()
    under = [*private_files(inetd._folder), COMMAND, "run", "--inetd", "-c", inetd.config]
    environment = ENVIRONMENT | {"PYTHONPATH": root}
    streams = {"stdin": near, "stdout": near, "stderr": near}
    with subprocess.Popen(under, env=environment, **streams) as process:  # type: ignore[call-overload]
        near.close()
        assert exchange(client, [b"hello"]) == b"HELLO"
        assert process.wait(PATIENCE) == 0
    assert "closed: client" in syslog.wait(" closed: ")


def test_who_may_not_come_in_is_refused(inetd: Inetd, syslog: Syslog) -> None:
    """The refusal has its record, the connection is closed, and that is no failure."""
    inetd.config.write_text(toml({"listener": {"echo": {"deny": "127.0.0.1"}}}))
    client, process = inetd.serve()
    assert client.recv(1) == b""
    assert process.wait(PATIENCE) == 0
    assert "refused: access: deny" in syslog.wait(" refused: ")


def test_a_proxy_names_the_client(inetd: Inetd, syslog: Syslog) -> None:
    """The service and the records see whom it names; the records say by whom it came."""
    behind = {"service": "whoami", "proxies": "127.0.0.1", "allow": CLIENT[0]}
    inetd.config.write_text(toml({"listener": {"echo": behind}}))
    client, process = inetd.serve()
    assert exchange(client, [v1()[:9], v1()[9:]]) == b"192.0.2.7:4711\n"
    assert process.wait(PATIENCE) == 0
    proxy = "{}:{}".format(*client.getsockname())
    assert f" via {proxy} [" in syslog.wait(" echo: 192.0.2.7:4711 connected to ")


def test_a_stop_drains(inetd: Inetd, syslog: Syslog) -> None:
    """SIGTERM leaves the connection the drain time-out, and then ends it."""
    inetd.config.write_text("drain_timeout = 2")
    client, process = inetd.serve()
    assert echoed(client)
    process.send_signal(signal.SIGTERM)
    assert echoed(client)
    assert client.recv(1) == b""
    assert process.wait(PATIENCE) == 0
    assert "closed: drain" in syslog.wait(" closed: ")


def test_a_client_that_is_gone_is_no_failure(inetd: Inetd, syslog: Syslog) -> None:
    """It has broken the connection off before the program began."""
    client, near = inetd.pair()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    eventually(lambda: near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the reset")
    assert inetd.start(near).wait(PATIENCE) == 0


def test_records_go_to_standard_error_if_that_is_not_the_clients(
    inetd: Inetd, tmp_path: Path
) -> None:
    """tcpserver has a log there."""
    with (tmp_path / "records").open("w+") as records:
        client, process = inetd.serve(stderr=records.fileno())
        assert exchange(client, [b"hello"]) == b"hello"
        assert process.wait(PATIENCE) == 0
        assert "closed: client" in (tmp_path / "records").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (("--listener", "lab"), 64, "there is no listener lab; known: echo"),
        (("--detach",), 64, "--inetd serves one connection"),
        (("--no-such-option",), 64, "unrecognized arguments"),
        (("-c", "nowhere.toml"), 78, "there is no such file"),
    ],
)
def test_a_client_never_reads_an_error(
    inetd: Inetd, syslog: Syslog, arguments: Sequence[str], status: int, complaint: str
) -> None:
    """What would stand on a terminal stands in syslog; the client sees the end."""
    client, process = inetd.serve(*arguments)
    assert client.recv(1) == b""
    assert process.wait(PATIENCE) == status
    assert complaint in syslog.wait("netsrvd: ")


def test_without_any_log_it_serves_all_the_same(inetd: Inetd) -> None:
    """Neither syslog nor a journal is there: the records are lost, and the client reads none."""
    client, process = inetd.serve()
    assert exchange(client, [b"hello"]) == b"hello"
    assert process.wait(PATIENCE) == 0
    client, process = inetd.serve("--listener", "lab")
    assert client.recv(1) == b""
    assert process.wait(PATIENCE) == 64


def listening(kind: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return sock


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: listening(socket.SOCK_DGRAM), "is a UDP socket"),
        (lambda: listening(socket.SOCK_STREAM), "is a listening socket"),
        (lambda: socket.socket(socket.AF_UNIX), "is neither TCP nor UDP"),
        (partial(Path(os.devnull).open, "rb"), "is no socket"),
    ],
    ids=["udp", "listening", "unix", "file"],
)
def test_what_is_no_connection_is_a_usage_error(
    make: Callable[[], socket.socket], complaint: str, tmp_path: Path
) -> None:
    """The complaint names what it is, and who would have passed a connection."""
    with make() as stream:
        argv = [*private_files(tmp_path), COMMAND, "run", "--inetd"]
        pipe = subprocess.PIPE
        done = subprocess.run(
            argv, check=False, env=ENVIRONMENT, stdin=stream, stdout=pipe, stderr=pipe, text=True
        )
    assert done.returncode == 64
    assert f"netsrvd: standard input {complaint}" in done.stderr


# --- programs of inetd's world ----------------------------------------------------------------

XINETD = """
service netsrvd
{{
    type = UNLISTED
    socket_type = stream
    protocol = tcp
    wait = no
    user = root
    bind = 127.0.0.1
    port = {port}
    log_type = FILE {folder}/xinetd.log
    server = {command}
    server_args = run --inetd -c {config}
}}
"""


def xinetd(folder: Path, port: int, config: Path) -> list[str | Path]:
    """Return the command line of xinetd, in the foreground, with a configuration of its own."""
    own = folder / "xinetd.conf"
    own.write_text(XINETD.format(port=port, folder=folder, command=COMMAND, config=config))
    return ["xinetd", "-dontfork", "-f", own, "-pidfile", folder / "xinetd.pid"]


def tcpserver(folder: Path, port: int, config: Path) -> list[str | Path]:
    """Return the command line of tcpserver, which looks up no names."""
    serve = [COMMAND, "run", "--inetd", "-c", config, "--log", "syslog"]
    return ["tcpserver", "-HRl0", "127.0.0.1", str(port), *serve]


def systemd(folder: Path, port: int, config: Path) -> list[str | Path]:
    """Return the command line of what does the same as Accept=yes in a socket unit."""
    serve = [COMMAND, "run", "--inetd", "-c", config, "--log", "syslog"]
    return ["systemd-socket-activate", "--accept", "--inetd", "-l", f"127.0.0.1:{port}", *serve]


How = Callable[[Path, int, Path], list[str | Path]]


@contextmanager
def running(how: How, folder: Path, config: Path) -> Iterator[int]:
    """Run one of them, and give the port on which it listens."""
    port = free_port()
    name, *arguments = how(folder, port, config)
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") or server(name)
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        [*private_files(folder), program, *arguments],
        env=ENVIRONMENT,
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        start_new_session=True,
    ) as process:
        try:
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(SECONDS)


def arrived(port: int) -> socket.socket:
    """Return a connection, as soon as somebody listens."""
    return eventually(lambda: _connected(port), f"somebody listens on {port}")


def _connected(port: int) -> socket.socket | None:
    try:
        return connect(("127.0.0.1", port))
    except ConnectionRefusedError:
        return None


@pytest.mark.parametrize("how", [xinetd, tcpserver, systemd])
def test_programs_of_inetds_world(how: How, inetd: Inetd, syslog: Syslog, tmp_path: Path) -> None:
    """Two clients at once get back what they sent and nothing else, and each has its records."""
    with (
        running(how, tmp_path, inetd.config) as port,
        arrived(port) as first,
        connect(("127.0.0.1", port)) as second,
    ):
        assert echoed(second)
        assert exchange(first, [b"hello " * 1000]) == b"hello " * 1000
        assert exchange(second, [b"world"]) == b"world"
        for client in (first, second):
            syslog.wait(f" echo: 127.0.0.1:{client.getsockname()[1]} closed: client")


def test_haproxy_before_an_inetd(inetd: Inetd, syslog: Syslog, tmp_path: Path) -> None:
    """The records name the client, and by whom it came."""
    inetd.config.write_text(toml({"listener": {"echo": {"proxies": "127.0.0.1"}}}))
    with running(tcpserver, tmp_path, inetd.config) as back:
        arrived(back).close()
        front = free_port(back + 1)
        with (
            haproxy(tmp_path, FORWARD.format(front=front, back=back, options="send-proxy-v2")),
            arrived(front) as client,
        ):
            assert exchange(client, [b"hello"]) == b"hello"
            line = syslog.wait(f" echo: 127.0.0.1:{client.getsockname()[1]} connected to ")
            assert f":{back} via 127.0.0.1:" in line
