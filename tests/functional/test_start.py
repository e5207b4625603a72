"""How a run begins: what it serves, what it tells systemd, and when."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.clients import ended, refused, serves, talking
from tests.support.gate import Gate
from tests.support.peers import connect
from tests.support.private import private_files
from tests.support.run import Run, toml

DEFAULT_PORT = 51423
STRANGER = "198.51.100.1"
"""An address of TEST-NET-2 (RFC 5737), which is in no local network."""


@pytest.mark.usefixtures("alone")
def test_without_a_configuration_echo_is_served_to_local_networks(tmp_path: Path) -> None:
    """Port 51423, TCP and UDP, IPv4 and IPv6, all addresses; others than local ones are refused."""
    subprocess.run(["ip", "address", "add", STRANGER, "dev", "lo"], check=True)
    with Run(under=private_files(tmp_path)) as run:
        run.wait_ready()
        assert serves(DEFAULT_PORT)
        with connect((STRANGER, DEFAULT_PORT)) as sock:
            assert ended(sock)
        run.wait_line(f"echo: tcp {STRANGER}:")
        assert run.lines_with("refused: access: no entry of allow contains it")


def test_it_is_ready_when_everything_is_bound(start: Start, tmp_path: Path) -> None:
    """systemd hears nothing before the last socket listens; READY=1 comes first, with figures."""
    gate = Gate(tmp_path)
    run = start(
        planted=f"""
from netsrvd.sockets import bind
def listen(sock, backlog, listen=bind.listen):
    if sock.family == 10:
        {gate.wait}
    listen(sock, backlog)
bind.listen = listen
""",
        ready=False,
    )
    gate.reached(run)
    assert refused(run.port, "::1")
    assert run.notices == []
    gate.open()
    run.wait_ready()
    assert serves(run.port)
    assert run.notices[0]["READY"] == "1"
    assert run.notices[0]["STATUS"].startswith("Serving 0 connections and 0 flows; ")


def test_the_status_line_has_live_figures(start: Start) -> None:
    """STATUS, which `systemctl status` shows, follows what is going on."""
    run = start(environment={"WATCHDOG_USEC": "200000"})
    with talking(run.port):
        run.wait(
            lambda: any(
                "Serving 1 connections and 0 flows; 1 connections accepted" in notice["STATUS"]
                for notice in run.notices_with("STATUS")
            ),
            "status with a connection",
        )


def test_every_socket_is_named_before_it_is_ready(start: Start) -> None:
    """Each socket has a record of its own, and the record of readiness counts them."""
    run = start()
    run.wait_line("ready: 4 sockets, ")
    named = [re.search(r"serving echo on (\S+ \S+) \(bound\)", line) for line in run.lines]
    assert [each[1] for each in named if each] == [
        f"{protocol} {host}:{run.port}"
        for protocol in ("tcp", "udp")
        for host in ("127.0.0.1", "[::1]")
    ]


@pytest.mark.parametrize("path", ["/nobody/is/here", "@nobody", "nonsense"])
def test_it_serves_though_systemd_does_not_listen(start: Start, path: str) -> None:
    """A NOTIFY_SOCKET that is gone, such as one inherited by a shell, hinders nothing."""
    run = start(environment={"NOTIFY_SOCKET": path}, ready=False)
    run.wait_line("ready: ")
    for _ in range(2):
        assert serves(run.port)
        run.rest()


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 1, 2)], ids=str)
def test_closed_standard_descriptors_stay_unused(start: Start, closed: tuple[int, ...]) -> None:
    """No socket takes the number of standard error, where it would get what is written there."""

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    run = start(limits=close)
    for number in (0, 1, 2):
        assert not str(Path(f"/proc/{run.pid}/fd/{number}").readlink()).startswith("socket:")
    assert serves(run.port)


@pytest.mark.usefixtures("alone")
def test_it_needs_no_ipv6(start: Start, port: int) -> None:
    """A family that the kernel lacks is a warning; all addresses of the other one are served."""
    run = start(
        toml({"listener": {"echo": {"port": port}}}),
        planted="""
import errno
from netsrvd.sockets import bind
def make(endpoint, make=bind.make):
    if ":" in endpoint.host:
        raise OSError(errno.EAFNOSUPPORT, "planted")
    return make(endpoint)
bind.make = make
""",
    )
    assert serves(port, ["127.0.0.1"])
    run.wait_line("<4>echo: tcp: IPv6 is not available in this kernel")
