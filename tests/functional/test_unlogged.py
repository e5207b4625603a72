"""`unlogged`: clients whose connections and datagrams are not worth a record."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened
from tests.support.clients import answer, ended, leaves_in_order, serves, talking
from tests.support.peers import connect, echoed
from tests.support.run import Run, echo, failing_echo
from tests.support.unit import Unit

QUIET = {"unlogged": ["127.0.0.0/8"]}

FAILING = failing_echo('data != b"hello"', 'ArithmeticError("planted")')


def told(run: Run, words: str = "127.0.0.1") -> list[str]:
    """Return the lines that have been told of clients with this address."""
    return [line for line in run.lines_with(words) if "serving" not in line]


def test_they_are_served_and_counted_without_a_word(start: Start, port: int) -> None:
    """Neither their connections nor their datagrams have a record; all others have."""
    run = start(echo(port, flow_timeout="100ms", **QUIET))
    assert serves(port)
    run.wait_line("datagrams of [::1]:")
    run.wait_line("[::1]:", 3)
    run.end()
    assert told(run) == []
    assert len(run.lines_with(" connected to ")) == len(run.lines_with(" closed: client")) == 1
    summary = run.wait_line("stopped after")
    assert "2 connections accepted, 0 refused" in summary
    assert "2 datagrams received, 2 sent" in summary


def test_refusals_are_told(start: Start, port: int) -> None:
    """Whoever is kept out has the record of that."""
    run = start(echo(port, deny=["127.0.0.1"], **QUIET))
    with connect(("127.0.0.1", port)) as sock:
        assert ended(sock)
    run.wait_line('refused: access: deny has "127.0.0.1"')


def test_errors_are_told(start: Start, port: int) -> None:
    """A service that fails has its traceback and the end of the connection in the log."""
    run = start(echo(port, **QUIET), planted=FAILING)
    with talking(port) as sock:
        sock.sendall(b"evil")
        assert ended(sock)
    run.wait_line("service echo failed for 127.0.0.1:")
    run.wait_line("closed: error")
    assert run.lines_with("connected to") == []


def test_who_may_stay_no_longer_is_told(start: Start, port: int) -> None:
    """A reload that takes a client out ends its connection, with a record."""
    run = start(echo(port, **QUIET))
    with talking(port) as sock:
        run.reload(echo(port, deny=["127.0.0.1"], **QUIET))
        assert ended(sock)
    run.wait_line("closed: access")


def test_it_holds_for_what_begins_after_a_reload(start: Start, port: int) -> None:
    """Who had a record of the beginning has one of the end, and who had none has none."""
    run = start(echo(port))
    with talking(port) as first:
        run.wait_line("connected to")
        run.reload(echo(port, **QUIET))
        with talking(port) as second:
            assert leaves_in_order(first)
            run.wait_line("closed: client")
            run.reload(echo(port))
            assert leaves_in_order(second)
        assert answer(port) == b"hello"
        run.wait_line("sends to")
    assert len(told(run, " connected to ")) == len(told(run, " closed: ")) == 1


def test_it_holds_for_handlers(start: Start, port: int, tmp_path: Path) -> None:
    """Their connections and datagrams are without records as well; what fails is told."""
    (tmp_path / "lab.py").write_text(
        "def serve(connection):\n"
        "    if connection.recv(100) != b'well': raise ArithmeticError\n"
        "    connection.send(b'well')\n"
    )
    listener: dict[str, Any] = echo(port, service="python:lab:serve", protocols=["tcp"], **QUIET)
    run = start(listener, environment={"PYTHONPATH": str(tmp_path)})
    for word in (b"well", b"evil"):
        with connect(("127.0.0.1", port)) as sock:
            sock.sendall(word)
            assert word == b"evil" or sock.recv(100) == word
            assert ended(sock)
    run.wait_line("closed: error")
    run.rest()  # the thread of the handler stays
    run.end()
    assert len(told(run, "closed: ")) == 1
    assert told(run, "connected to") == []


@pytest.fixture
def unit(start: Start, port: int) -> Iterator[Unit]:
    with ExitStack() as stack:
        yield Unit(start, port, opened(stack, port, "tcp4", "tcp6"))


def test_it_outlives_a_restart(unit: Unit) -> None:
    """A connection without a record of its beginning has none of its end in the next process,
    whatever that is configured to; one that has one has the other.
    """
    first = unit.start(configuration=echo(unit.port, **QUIET))
    with talking(unit.port) as quiet, talking(unit.port, "::1") as loud:
        second = unit.restart(first)
        assert echoed(quiet)
        assert echoed(loud)
        assert leaves_in_order(quiet)
        assert leaves_in_order(loud)
    second.wait_line("closed: client")
    second.rest()
    second.end()
    assert len(first.lines_with("connected to [::1]")) == 1
    assert told(first, "connected to 127") == told(second, "127.0.0.1") == []
