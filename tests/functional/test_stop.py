"""How a run ends when it is asked to, and what it finishes before."""

import signal
from pathlib import Path
from time import monotonic

import pytest

from tests.functional.conftest import Start
from tests.support.clients import HELLO, ended, leaves_in_order, refused, serves, talking
from tests.support.gate import Gate
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, echoed
from tests.support.run import Run, echo

STOPS = pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)


@STOPS
def test_a_signal_ends_a_run_that_has_nothing_to_do(start: Start, stop: signal.Signals) -> None:
    """Without connections SIGTERM and Ctrl-C end the run at once, status 0, with a last record."""
    run = start()
    assert serves(run.port)
    run.end(stop)
    assert run.wait_notice("STOPPING")["STATUS"] == f"Stopping on {stop.name}"
    assert run.lines_with("closed: client, ")
    assert "2 connections accepted, 0 refused, 0 handed over, 0 cut off" in run.lines[-1]


@STOPS
def test_live_connections_are_served_to_their_end(start: Start, stop: signal.Signals) -> None:
    """During the drain live connections go on, new ones are refused; then the status is 0."""
    run = start()
    with talking(run.port) as first, talking(run.port, "::1") as second:
        run.send(stop)
        run.wait_line("draining 2 connections for up to 10 s")
        run.wait(lambda: refused(run.port) and refused(run.port, "::1"), "refusal of new clients")
        for sock in (first, second):
            assert echoed(sock, HELLO * 1000)
            assert leaves_in_order(sock)
    run.wait_end()
    assert "0 cut off" in run.lines[-1]


@STOPS
def test_the_drain_is_bounded(start: Start, port: int, stop: signal.Signals) -> None:
    """A client that never leaves is cut off after the drain time-out, with that reason."""
    run = start({"drain_timeout": 0.3, **echo(port)})
    with talking(run.port) as sock:
        asked_at = monotonic()
        run.send(stop)
        assert ended(sock)
        run.wait_end()
    assert 0.3 <= monotonic() - asked_at < 0.3 + SECONDS
    assert run.lines_with("closed: drain")
    assert "1 cut off" in run.lines[-1]


@STOPS
def test_a_second_signal_ends_the_drain(start: Start, port: int, stop: signal.Signals) -> None:
    """Who will not wait for the clients sends the signal again."""
    run = start({"drain_timeout": "1h", **echo(port)})
    with talking(run.port) as sock:
        run.send(stop)
        run.wait_line("draining 1 connections")
        run.send(stop)
        run.wait_end()
        assert ended(sock)
    assert run.lines_with("closed: drain")


def test_a_connection_that_just_came_is_drained_too(start: Start, tmp_path: Path) -> None:
    """A connection that is accepted at the moment of the stop is served to its end."""
    gate = Gate(tmp_path)
    run = start(
        planted=f"""
from netsrvd.connection import Connection
def start(self, *more, start=Connection.start, **named):
    {gate.wait}
    start(self, *more, **named)
Connection.start = start
"""
    )
    with connect(("127.0.0.1", run.port)) as sock:
        gate.reached(run)
        run.send(signal.SIGTERM)
        run.wait_line("stopping on SIGTERM")
        gate.open()
        assert echoed(sock)
    run.wait_end()
    assert run.lines_with("closed: client")


def test_a_new_run_binds_at_once(start: Start, port: int) -> None:
    """Connections in TIME_WAIT do not keep a restarted daemon from its port."""
    first = start({"drain_timeout": 0, **echo(port)})
    with talking(first.port) as sock:
        first.send(signal.SIGTERM)
        assert ended(sock)
        first.wait_end()
    eventually(lambda: f":{first.port:04X} 0100007F:" in _time_wait(), "TIME_WAIT")
    assert serves(start().port)


def _time_wait() -> str:
    """Return the local and remote addresses of the connections in TIME_WAIT (proc_net_tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return "\n".join(f"{local} {remote}" for _, local, remote, state, *_ in rows if state == "06")


@pytest.mark.parametrize("harmless", [signal.SIGPIPE, signal.SIGUSR2, signal.SIGWINCH])
def test_other_signals_change_nothing(start: Start, harmless: signal.Signals) -> None:
    """A broken pipe, a stray wake-up or a resized terminal does not end or hinder the run."""
    run = start()
    run.send(harmless)
    assert serves(run.port)


def test_a_drain_is_told_while_bytes_move(start: Start, port: int) -> None:
    """The status counts down, and systemd is asked for as much time as the drain still needs; who
    waits for the end of a client that says nothing gets no more time.
    """
    run = start({"drain_timeout": "60s", **echo(port)})
    with talking(port) as sock, talking(port, "::1") as other:
        run.send(signal.SIGTERM)
        asked = run.wait_notice("EXTEND_TIMEOUT_USEC")
        assert asked["STATUS"] == "Stopping on SIGTERM"
        assert int(asked["EXTEND_TIMEOUT_USEC"]) == 50_000_000
        run.wait(lambda: _left(run) == "2 connections left", "the countdown")
        assert echoed(sock)
        more = run.wait_notice("EXTEND_TIMEOUT_USEC", 2)
        assert more["STATUS"].startswith("Stopping on SIGTERM: 2 connections left, 5")
        assert int(more["EXTEND_TIMEOUT_USEC"]) == 50_000_000
        assert leaves_in_order(other)
        run.wait(lambda: _left(run) == "1 connections left", "the count of those who are left")
        silent = len(run.notices_with("EXTEND_TIMEOUT_USEC"))
        counted = len(run.notices_with("STATUS"))
        run.wait(lambda: len(run.notices_with("STATUS")) > counted, "the countdown")
        assert len(run.notices_with("EXTEND_TIMEOUT_USEC")) == silent
        assert leaves_in_order(sock)
    run.wait_end()


def _left(run: Run) -> str:
    """Return what the last status says of who is left."""
    status = run.notices_with("STATUS")[-1]["STATUS"]
    return status.partition(": ")[2].partition(",")[0]
