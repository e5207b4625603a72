"""The service `metrics` of a running daemon: what Prometheus and other clients of HTTP get."""

import http.client
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened, passing
from tests.support.clients import HELLO, answer, ended, talking
from tests.support.copies import copy_package
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, datagrams, exchange, read_exactly
from tests.support.run import COMMAND, ENVIRONMENT, Run, command, echo, free_port
from tests.support.scraping import (
    OPENMETRICS,
    get,
    prometheus,
    promtool_complaints,
    samples,
    scrape,
    value,
)

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
PARTIAL = REQUEST[:20]


@pytest.fixture
def scraped(port: int) -> int:
    """The port of the service."""
    return free_port(port + 1)


def with_metrics(port: int, scraped: int, **keys: Any) -> dict[str, Any]:
    """Return a configuration of echo and metrics on loopback; `keys` are more of the latter."""
    found = echo(port)
    listener = {"service": "metrics", "host": ["127.0.0.1"], "port": scraped, **keys}
    return {"listener": {**found["listener"], "metrics": listener}}  # type: ignore[dict-item]


def load(port: int, connections: int, datagrams_sent: int) -> None:
    """Send a load that ends: each connection exchanges 1,000 bytes, each datagram has 100."""
    for _ in range(connections):
        with connect(("127.0.0.1", port)) as sock:
            assert exchange(sock, [b"x" * 1000]) == b"x" * 1000
    for _ in range(datagrams_sent):
        assert answer(port, b"y" * 100) == b"y" * 100


def test_promtool_and_the_strict_parser_accept_it(start: Start, port: int, scraped: int) -> None:
    """promtool has nothing to say of the plain text; the parser of OpenMetrics reads the other."""
    start(with_metrics(port, scraped))
    load(port, 1, 1)
    plain = get(scraped)
    assert plain.status == 200
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert promtool_complaints(plain.body) == ""
    opens = get(scraped, **OPENMETRICS)
    kind = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert opens.headers["Content-Type"] == kind
    assert opens.body.endswith(b"\n# EOF\n")
    assert scrape(scraped)


def test_the_figures_are_those_of_the_load(start: Start, port: int, scraped: int) -> None:
    """Connections, bytes and datagrams are counted to the last one, also of live connections, and
    so is what was refused.
    """
    configuration = with_metrics(port, scraped)
    configuration["listener"]["shut"] = {
        "host": ["127.0.0.1"],
        "port": free_port(scraped + 1),
        "deny": "loopback",
    }
    start(configuration)
    load(port, 7, 5)
    with connect(("127.0.0.1", configuration["listener"]["shut"]["port"])) as sock:
        assert ended(sock)
    tcp = {"listener": "echo", "protocol": "tcp"}
    udp = {"listener": "echo", "protocol": "udp"}

    def is_counted() -> bool:  # by another thread than that which answers a scrape
        return value(scrape(scraped), "netsrvd_datagrams_received_total", **udp) == 5

    eventually(is_counted, "five datagrams")
    with talking(port):
        found = scrape(scraped)
    assert value(found, "netsrvd_connections_accepted_total", **tcp) == 8
    assert value(found, "netsrvd_connections_closed_total", **tcp, reason="client") == 7
    assert value(found, "netsrvd_connections", **tcp) == 1
    assert value(found, "netsrvd_received_bytes_total", **tcp) == 7000 + len(HELLO)
    assert value(found, "netsrvd_sent_bytes_total", **tcp) == 7000 + len(HELLO)
    assert value(found, "netsrvd_datagrams_received_total", **udp) == 5
    assert value(found, "netsrvd_received_bytes_total", **udp) == 500
    assert value(found, "netsrvd_flows", **udp) == 5
    refused = {"listener": "shut", "reason": "access"}
    assert value(found, "netsrvd_connections_refused_total", **refused) == 1
    assert value(found, "netsrvd_build_info") == 1


def test_no_address_of_a_client_is_a_label(start: Start, port: int, scraped: int) -> None:
    """Labels are names of listeners, their own addresses, protocols and reasons; an instance has
    its unit besides, so that several are told apart.
    """
    start(
        with_metrics(port, scraped),
        environment={"NETSRVD_UNIT": "netsrvd@2.service"},
    )
    with talking(port) as sock, datagrams() as peer:
        peer.sendto(HELLO, ("127.0.0.1", port))
        assert peer.recv(100) == HELLO
        ports = {str(each.getsockname()[1]) for each in (sock, peer)}
        found = scrape(scraped)
    labels = {label: {dict(having).get(label) for _, having in found} for label in ("port", "unit")}
    assert not labels["port"] & ports
    assert labels["unit"] == {"netsrvd@2.service"}
    known = {"unit", "listener", "protocol", "reason", "service", "address", "port", "origin"}
    assert {label for _, having in found for label, _ in having} == {*known, "version"}


def test_prometheus_scrapes_it(start: Start, port: int, scraped: int, tmp_path: Path) -> None:
    """`up` is 1, and what Prometheus has seen the counters grow by is what was sent."""
    start(with_metrics(port, scraped))
    listens = free_port(scraped + 1)
    tcp, udp = '{listener="echo",protocol="tcp"}', '{listener="echo",protocol="udp"}'
    with prometheus(tmp_path, listens, f"127.0.0.1:{scraped}", interval="2s") as server:
        server.wait("up", 1)
        server.wait(f"netsrvd_connections_accepted_total{tcp}", 0)
        load(port, 40, 30)
        server.wait(f"netsrvd_connections_accepted_total{tcp}", 40)
        server.wait(f"netsrvd_datagrams_received_total{udp}", 30)
        for metric, wanted in (
            (f"netsrvd_connections_accepted_total{tcp}", 40),
            (f"netsrvd_received_bytes_total{tcp}", 40_000),
            (f"netsrvd_datagrams_sent_total{udp}", 30),
            (f"netsrvd_sent_bytes_total{udp}", 3000),
        ):
            grown = f"max_over_time({metric}[5m]) - min_over_time({metric}[5m])"
            server.wait(grown, wanted)
            assert (server.number(f"rate({metric}[5m])") or 0) > 0
        assert server.number("min_over_time(up[5m])") == 1
        # Prometheus keeps its connection: there was a scrape every two seconds.
        assert server.number('netsrvd_connections_accepted_total{listener="metrics"}') == 1


def test_a_scrape_makes_no_record(start: Start, port: int, scraped: int) -> None:
    """By default; `unlogged = []` gives the records of any other connection."""
    run = start(with_metrics(port, scraped))
    assert get(scraped).status == 200
    run.reload(with_metrics(port, scraped, unlogged=[]))
    assert get(scraped).status == 200
    run.wait_line("metrics: 127.0.0.1:", 2)
    assert len(run.lines_with("metrics: 127.0.0.1:")) == 2
    run.wait_line("closed: client")


def test_it_is_for_loopback_alone_by_default(
    alone: None, start: Start, port: int, scraped: int
) -> None:
    """Another client is refused, with a record, until `allow` names it."""
    subprocess.run(["ip", "address", "add", "192.0.2.1/32", "dev", "lo"], check=True)
    run = start(with_metrics(port, scraped, host=["127.0.0.1", "192.0.2.1"]))
    with connect(("192.0.2.1", scraped), source="192.0.2.1") as sock:
        assert ended(sock)
    assert "refused: access" in run.wait_line("metrics: tcp 192.0.2.1:")
    assert get(scraped).status == 200
    run.reload(with_metrics(port, scraped, host=["127.0.0.1", "192.0.2.1"], allow="192.0.2.0/24"))
    with connect(("192.0.2.1", scraped), source="192.0.2.1") as sock:
        sock.sendall(REQUEST)
        assert read_exactly(sock, 12) == b"HTTP/1.1 200"


# --- HTTP -------------------------------------------------------------------------------------


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "10", *arguments],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout


def test_curl_gets_the_right_statuses(start: Start, port: int, scraped: int) -> None:
    """For each request that is not a GET or HEAD of a known path; one connection serves them all
    that need not end it.
    """
    start(with_metrics(port, scraped))
    url, status = f"http://127.0.0.1:{scraped}", "%{http_code} %{num_connects}\n"
    write = ["--output", "/dev/null", "--write-out", status]
    assert curl(*write, f"{url}/metrics?x=1") == "200 1\n"
    assert curl("--head", f"{url}/metrics").splitlines()[0] == "HTTP/1.1 200 OK"
    assert curl(*write, f"{url}/nothing", "--next", *write, f"{url}/metrics") == "404 1\n200 0\n"
    assert curl(*write, "--data", "x", f"{url}/metrics") == "405 1\n"
    assert curl(*write, "--request", "OPTIONS", f"{url}/metrics") == "405 1\n"
    assert curl(*write, "--request", "BREW", f"{url}/metrics") == "501 1\n"
    assert curl(*write, "--header", f"x: {'y' * 20_000}", f"{url}/metrics") == "431 1\n"
    assert curl(*write, "--http1.0", f"{url}/metrics") == "200 1\n"
    assert curl(*write, "--http2-prior-knowledge", f"{url}/metrics", "--http1.1") == "200 1\n"


def test_a_site_that_knows_the_host_name_is_refused(
    start: Start, port: int, scraped: int, tmp_path: Path
) -> None:
    """On loopback `web.evil.example` is not taken for the host `web`; names of its hosts file are
    served, also those that came after the start.
    """
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n")
    script = 'hostname web; mount --bind "$0" /etc/hosts; exec "$@"'
    under = ["unshare", "--uts", "--mount", "sh", "-ec", script, str(hosts)]
    start(with_metrics(port, scraped), under=under)

    def status(host: str) -> int:
        return get(scraped, "/", Host=f"{host}:{scraped}").status

    assert [status(name) for name in ("web", "localhost", "127.0.0.1")] == [200, 200, 200]
    assert [status(name) for name in ("web.evil.example", "web.example.org")] == [421, 421]
    hosts.write_text("127.0.1.1 web.example.org web\n")
    assert [status(name) for name in ("web.evil.example", "web.example.org")] == [421, 200]


def test_a_connection_is_kept_and_a_pipeline_answered(
    start: Start, port: int, scraped: int
) -> None:
    """A client that sends requests without waiting gets as many answers, each of them whole."""
    start(with_metrics(port, scraped))
    with connect(("127.0.0.1", scraped)) as sock:
        sock.sendall(50 * REQUEST)
        for _ in range(50):
            assert whole_answer(sock).startswith(b"HTTP/1.1 200 OK\r\n")
        sock.sendall(REQUEST)
        assert whole_answer(sock).startswith(b"HTTP/1.1 200 OK\r\n")
    found = scrape(scraped)
    assert value(found, "netsrvd_connections_accepted_total", listener="metrics") == 2


def whole_answer(sock: socket.socket) -> bytes:
    """Return one answer, whose head says how long it is."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += read_exactly(sock, 1)
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + read_exactly(sock, length)


def test_a_slow_request_is_no_activity(start: Start, port: int, scraped: int) -> None:
    """A client that sends a byte now and then is ended by `idle_timeout`: its request is to be
    whole before that.
    """
    run = start(with_metrics(port, scraped, idle_timeout=0.5, unlogged=[]))
    deadline = monotonic() + SECONDS
    with connect(("127.0.0.1", scraped)) as sock:
        sock.settimeout(0.05)
        for byte in REQUEST[:-2] + b"x: " + b"y" * 10_000:
            assert monotonic() < deadline, "it was not ended"
            try:
                sock.sendall(bytes([byte]))
                if not sock.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    run.wait_line("closed: idle")


def many_listeners(port: int, scraped: int, write_timeout: float) -> dict[str, Any]:
    """Return a configuration whose answer is longer than what the kernel buffers for a client."""
    configuration = with_metrics(port, scraped, write_timeout=write_timeout, unlogged=[])
    other = scraped
    for number in range(200):
        other = free_port(other + 1)
        configuration["listener"][f"lab-{number}"] = {
            "service": "discard",
            "protocols": "udp",
            "host": ["127.0.0.1"],
            "port": other,
        }
    return configuration


def test_a_client_that_does_not_read_is_ended(start: Start, port: int, scraped: int) -> None:
    """By `write_timeout`, with a reset; meanwhile others are answered, in whole."""
    run = start(many_listeners(port, scraped, 0.5))
    with connect(("127.0.0.1", scraped), SO_RCVBUF=4096) as sock:
        sock.sendall(1000 * REQUEST)
        answered = get(scraped)
        assert answered.headers["Transfer-Encoding"] == "chunked"
        assert answered.body.count(b'listener="lab-199"') > 20
        run.wait_line("closed: write")


def test_what_is_no_http_is_answered_once_and_ended(start: Start, port: int, scraped: int) -> None:
    """With 400; what comes after it is thrown away, without an error in the log."""
    start(with_metrics(port, scraped))
    for words in (b"\x16\x03\x01\x02\x00", b"hello\n\n", b"GET\n\n", b"\0" * 100_000):
        with connect(("127.0.0.1", scraped)) as sock:
            sock.sendall(words)
            sock.shutdown(socket.SHUT_WR)
            got = b"".join(iter(lambda: sock.recv(65536), b""))
        assert got.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert got.count(b"HTTP/1.1") == 1


def test_no_request_holds_up_other_clients(start: Start, port: int, scraped: int) -> None:
    """Heads at which h11 alone would look for two seconds each are refused at once."""
    start(with_metrics(port, scraped))
    head = REQUEST[:-2] + b"x:" + b" " * 16_000 + b"\0\r\n\r\n"
    with connect(("127.0.0.1", port)) as other, ExitStack() as stack:
        clients = [stack.enter_context(connect(("127.0.0.1", scraped))) for _ in range(30)]
        for sock in clients:
            sock.sendall(head)
        for sock in clients:
            assert read_exactly(sock, 12) == b"HTTP/1.1 400"
        assert exchange(other, [HELLO]) == HELLO


# --- how it ends ------------------------------------------------------------------------------


@contextmanager
def kept(port: int) -> Iterator[http.client.HTTPConnection]:
    """Give a connection that was answered and is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/metrics")
        assert connection.getresponse().read()
        assert connection.sock is not None
        yield connection
    finally:
        connection.close()


def test_a_stop_does_not_wait_for_a_kept_connection(start: Start, port: int, scraped: int) -> None:
    """It is closed between two requests, also in the middle of one, although the drain is long."""
    run = start({"drain_timeout": 86_400, **with_metrics(port, scraped)})
    with kept(scraped) as one, connect(("127.0.0.1", scraped)) as other:
        other.sendall(PARTIAL)
        run.send(signal.SIGTERM)
        run.wait_end()
        assert ended(one.sock)
        assert ended(other)


@pytest.fixture
def passed(port: int, scraped: int) -> Iterator[Mapping[str, Any]]:
    """How a run gets the sockets of echo and metrics from systemd."""
    with ExitStack() as stack:
        sockets = [
            *opened(stack, port, "tcp4", "tcp6", "udp4", "udp6"),
            *opened(stack, scraped, "tcp4"),
        ]
        yield passing(sockets, ":".join([*["echo"] * 4, "metrics"]))


def test_scrapes_do_not_keep_an_idle_daemon(
    start: Start, port: int, scraped: int, passed: Mapping[str, Any]
) -> None:
    """It ends although Prometheus scrapes all the time and keeps its connection; a client of echo
    keeps it.
    """
    run = start({"idle_exit": 0.5, **with_metrics(port, scraped)}, **passed)
    with kept(scraped) as connection:
        with talking(port):
            began = len(run.notices)
            run.wait(lambda: len(run.notices) > began + 8, "ticks")
            assert not run.is_over
        deadline = monotonic() + SECONDS
        while not run.is_over:
            assert monotonic() < deadline, "scrapes keep it"
            try:
                connection.request("GET", "/metrics")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                break
            run._hear()
    run.wait_line("stopping on idle")
    run.wait_end()


def test_a_kept_connection_ends_at_a_restart(
    start: Start, port: int, scraped: int, tmp_path: Path
) -> None:
    """The next process answers on a new one; nothing was handed over and no warning made."""
    from tests.support.unit import Unit

    with ExitStack() as stack:
        unit = Unit(start, port, opened(stack, port, "tcp4", "tcp6", "udp4", "udp6"))
        configuration = with_metrics(port, scraped)
        first = unit.start(configuration=configuration)
        with kept(scraped) as connection, talking(port) as sock:
            second = unit.restart(first, configuration=configuration)
            assert ended(connection.sock)
            sock.sendall(HELLO)
            assert read_exactly(sock, len(HELLO)) == HELLO
            assert value(scrape(scraped), "netsrvd_connections_restored_total") == 1
        first.wait_line("1 connections handed over to the next process")
        assert first.lines_with("not handed over") == []
        second.wait_line("closed: client")
        second.rest()


@pytest.mark.parametrize("purpose", ["stop", "restart"])
def test_an_answer_that_is_being_sent_is_sent_to_its_end(
    start: Start, port: int, scraped: int, purpose: str
) -> None:
    """At a stop, and at a restart, a client that reads slowly gets the rest, and then the end,
    without an answer to what it has asked besides.
    """
    configuration = {"drain_timeout": 60, **many_listeners(port, scraped, 60)}
    run = start(configuration, environment={"NETSRVD_FDSTORE": "1000"})
    with connect(("127.0.0.1", scraped), SO_RCVBUF=4096) as sock:
        sock.sendall(100 * REQUEST)
        got = read_exactly(sock, 1000)
        if purpose == "restart":
            run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait(
            lambda: any("connections left" in each.get("STATUS", "") for each in run.notices),
            "wait for the client",
        )
        got += b"".join(iter(lambda: sock.recv(65536), b""))
    assert got.endswith(b"\r\n0\r\n\r\n")
    assert 1 <= got.count(b"HTTP/1.1 200 OK") < 100
    run.wait_end()


# --- the configuration ------------------------------------------------------------------------

NO_H11 = "sys.modules['h11'] = None"


def test_without_h11_a_start_says_what_to_install(start: Start, port: int, scraped: int) -> None:
    """A start, and `netsrvd check`, name the package; a daemon without the service needs none."""
    run = start(with_metrics(port, scraped), planted=NO_H11, ready=False)
    run.wait_failure(78)
    [line] = run.lines_with("service metrics: it needs h11")
    assert "install the package python3-h11" in line
    assert 'listener.metrics.service = "metrics"' in line
    check = subprocess.run(
        [*command(NO_H11), "check", "-c", run.config],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 78
    assert "install the package python3-h11" in check.stderr
    start(echo(port), planted=NO_H11).end()


@pytest.mark.parametrize("protocols", [["udp"], ["tcp", "udp"]])
def test_datagrams_are_refused_by_check(
    tmp_path: Path, port: int, scraped: int, protocols: list[str]
) -> None:
    """The error names the key and the remedy."""
    from tests.support.run import toml

    file = tmp_path / "netsrvd.toml"
    file.write_text(toml(with_metrics(port, scraped, protocols=protocols)))
    done = subprocess.run(
        [COMMAND, "check", "-c", file], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 78
    assert "listener.metrics.protocols" in done.stderr
    assert 'served by TCP alone; write protocols = "tcp"' in done.stderr


def test_h11_is_imported_for_the_service_alone(start: Start, port: int, scraped: int) -> None:
    """Not by a daemon without it, whatever it imports after its start."""
    planted = """
from netsrvd.shutdown import Shutdown
def end(self, *more, end=Shutdown.run, **named):
    print("IMPORTED", "h11" in sys.modules, "netsrvd.metrics" in sys.modules, file=sys.stderr)
    return end(self, *more, **named)
Shutdown.run = end
from netsrvd import daemon
daemon.PRELOAD_SECONDS = 0.01
"""
    for configuration, imported in ((echo(port), False), (with_metrics(port, scraped), True)):
        run: Run = start(configuration, planted=planted)
        run.allow("IMPORTED ")
        run.wait_notice("STATUS", 2)
        run.end()
        assert run.lines_with(f"IMPORTED {imported} {imported}")


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a copy of the package, which a run can use instead."""
    folder = tmp_path_factory.mktemp("copy")
    copy_package(folder)
    return folder


def test_an_upgrade_meanwhile_changes_nothing(
    start: Start, port: int, scraped: int, copy: Path
) -> None:
    """A daemon whose files were replaced goes on answering; where a reload adds the service then,
    it fails, with a reason, and the daemon goes on as well.
    """
    environment = {"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1"}
    planted = f"assert cli.__file__.startswith({str(copy)!r})"
    how = {"planted": planted, "environment": environment}
    serves, other = start(with_metrics(port, scraped), **how), free_port(scraped + 1)
    added = start(echo(other), **how)
    for run in (serves, added):
        run.wait_notice("STATUS", 2)  # with the first tick all that may be needed is imported
    for module in (copy / "netsrvd").rglob("*.py"):
        module.unlink()
        module.write_text('raise TypeError("another version")\n')
    for path in ("/metrics", "/", "/status.json"):
        assert get(scraped, path).status == 200
    reply = added.reload(with_metrics(other, free_port(other + 1)))
    assert reply["STATUS"].startswith("Reload failed, the old configuration is in force")
    with talking(other):
        pass
    added.wait_line("netsrvd was upgraded since it started")


# --- netsrvd metrics --------------------------------------------------------------------------


def printed(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [COMMAND, "metrics", *arguments], env=ENVIRONMENT, capture_output=True, check=False
    )


def test_the_command_prints_what_a_scrape_gets(
    start: Start, port: int, scraped: int, tmp_path: Path
) -> None:
    """The same metrics with the same labels, in both formats, by the control socket."""
    path = str(tmp_path / "control")
    start(with_metrics(port, scraped), "--control", path)
    load(port, 3, 2)
    plain, opens = printed("--control", path), printed("--control", path, "--openmetrics")
    assert plain.returncode == opens.returncode == 0, plain.stderr + opens.stderr
    assert promtool_complaints(plain.stdout) == ""
    found, wanted = samples(opens.stdout.decode()), scrape(scraped)
    assert {*found} == {*wanted}
    tcp = {"listener": "echo", "protocol": "tcp"}
    for name in ("netsrvd_connections_accepted_total", "netsrvd_received_bytes_total"):
        assert value(found, name, **tcp) == value(wanted, name, **tcp) > 0


def test_the_command_prints_nothing_without_a_daemon(tmp_path: Path) -> None:
    """So that a file for the textfile collector is whole or missing."""
    done = printed("--control", str(tmp_path / "nothing"))
    assert done.returncode == 69
    assert done.stdout == b""
    assert b"no daemon answers" in done.stderr
