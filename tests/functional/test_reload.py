"""What SIGHUP does: the configuration is read again, all or nothing, and nobody is lost."""

import signal
import socket
from time import monotonic_ns

import pytest

from tests.functional.conftest import Start
from tests.support.clients import HELLO, answer, ended, refused, serves, talking
from tests.support.peers import connect, echoed
from tests.support.run import LOOPBACK, echo, free_port


def three_listeners(port: int, **others: int) -> dict[str, object]:
    """Return a configuration of echo on its port and of others, by name."""
    named = {name: {"host": LOOPBACK, "port": other} for name, other in others.items()}
    return {"listener": {"echo": {"host": LOOPBACK, "port": port}, **named}}


@pytest.fixture
def other_ports(port: int) -> tuple[int, int]:
    """Two more ports that are free."""
    first = free_port(port + 1)
    return first, free_port(first + 1)


def test_listeners_come_stay_and_go(start: Start, port: int, other_ports: tuple[int, int]) -> None:
    """A new listener opens, a gone one closes, a kept one keeps its sockets; connections go on."""
    old, new = other_ports
    run = start(three_listeners(port, old=old))
    before = set(run.links())
    with talking(port) as kept, talking(old) as orphan:
        run.reload(three_listeners(port, new=new))
        assert serves(new)
        assert refused(old)
        with pytest.raises(ConnectionRefusedError):
            answer(old)
        assert echoed(kept)
        assert echoed(orphan)
    assert len([link for link in before & set(run.links()) if link.startswith("socket:")]) == 6
    run.wait_line("configuration reloaded: listener old is gone, listener new is new")
    assert len(run.lines_with("old: no longer serving on ")) == 4


def test_nobody_is_refused_meanwhile(start: Start) -> None:
    """While the configuration is read again and again each connect succeeds and is served."""
    run = start()
    for _ in range(20):
        run.send(signal.SIGHUP)
        for host in LOOPBACK:
            with connect((host, run.port)) as sock:
                assert echoed(sock)
    run.wait_line("configuration reloaded: nothing changed")


def test_new_limits_are_in_force(start: Start) -> None:
    """Who may connect and for how long may be silent changes for those to come and the live, each
    of whom ends with its own reason.
    """
    run = start()
    with talking(run.port) as live, talking(run.port, "::1") as other:
        run.reload(echo(run.port, deny=["127.0.0.1"], idle_timeout=0.1))
        with connect(("127.0.0.1", run.port)) as late:
            assert ended(late)
        assert ended(live)
        assert ended(other)
    run.wait_line('refused: access: deny has "127.0.0.1"')
    run.wait_line('closed: access (deny has "127.0.0.1")')
    run.wait_line("closed: idle")


def test_fewer_connections_are_let_in(start: Start) -> None:
    """A lower limit ends nobody: new ones wait in the kernel's queue until somebody leaves."""
    run = start()
    with talking(run.port) as first:
        run.reload(echo(run.port, max_connections=1))
        with connect(("127.0.0.1", run.port)) as waiting:
            run.wait_line("full with 1 connections, its max_connections = 1; others wait")
            waiting.sendall(HELLO)
            first.close()
            assert waiting.recv(len(HELLO)) == HELLO


def test_systemd_hears_when_a_reload_begins_and_ends(start: Start) -> None:
    """RELOADING=1 comes with the time of CLOCK_MONOTONIC in microseconds, then READY=1."""
    run = start()
    before = monotonic_ns() // 1000
    done = run.reload(echo(run.port, max_flows=10))
    began = run.wait_notice("RELOADING")
    assert run.notices_with("STATUS")[:3] == [run.notices[0], began, done]
    assert before <= int(began["MONOTONIC_USEC"]) <= monotonic_ns() // 1000
    assert done["STATUS"].startswith("Serving ")


BROKEN = {
    "not TOML": ("[listener", ["not valid TOML"]),
    "two faults": ("wrkers = 1\nlog.levl = 1", ["wrkers", "levl"]),
    "nothing left": ("listener.echo.enabled = false", ["nothing would be served"]),
    "overlap": ("listener.echo = { port = %d }", ["restart netsrvd instead"]),
    "not ours": (
        """
        listener.echo = { host = ["127.0.0.1", "::1"], port = %d }
        listener.more = { host = "192.0.2.1", port = 7007 }
        """,
        ["192.0.2.1", "is not an address"],
    ),
}


@pytest.mark.parametrize(("configuration", "words"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_file_changes_nothing(start: Start, configuration: str, words: list[str]) -> None:
    """The old configuration stays in force; the record and the one line of STATUS say why."""
    run = start()
    with talking(run.port) as sock:
        status = run.reload(configuration.replace("%d", str(run.port)))
        record = run.wait_line("<3>reload failed, the old configuration stays: ")
        assert echoed(sock)
    assert set(status) == {"READY", "STATUS"}
    assert status["STATUS"].startswith("Reload failed, the old configuration is in force: ")
    assert [word for word in words if word not in status["STATUS"] or word not in record] == []
    assert serves(run.port)


def test_the_status_tells_until_a_reload_succeeds(start: Start) -> None:
    """However much happens meanwhile: the files are not what is in force."""
    run = start(environment={"WATCHDOG_USEC": "200000"})
    good = run.config.read_text()
    run.reload("nonsense = 1")
    assert serves(run.port)

    def later() -> list[str]:
        said = (each["STATUS"] for each in run.notices_with("STATUS"))
        return [each for each in said if "2 connections accepted" in each]

    status = run.wait(later, "a later status")[0]
    assert status.startswith("Reload failed, the old configuration is in force: ")
    assert run.reload(good)["STATUS"].startswith("Serving ")


def test_a_port_that_is_taken_changes_nothing(start: Start, other_ports: tuple[int, int]) -> None:
    """If the second of two new listeners cannot be had the first is closed again."""
    free, taken = other_ports
    run = start()
    with socket.create_server(("127.0.0.1", taken)):
        run.reload(three_listeners(run.port, first=free, second=taken))
    run.wait_line(f"listener second: tcp 127.0.0.1 port {taken} is already in use")
    assert refused(free)
    assert serves(run.port)


def test_a_missing_file_changes_nothing(start: Start) -> None:
    """A file that was named at the start and is gone is a fault, not the default configuration."""
    run = start()
    run.config.unlink()
    run.send(signal.SIGHUP)
    run.wait_line("there is no such file")
    assert serves(run.port)
