"""All services at once in the installed command, for clients that others wrote."""

import re
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support import real_clients
from tests.support.peers import connect
from tests.support.real_clients import EXAMPLE, MORE, QUOTES, Row, generic, nmap
from tests.support.run import Run

IMPORTED = re.compile(r"import 'netsrvd\.services\.(\w+)'")


def configuration(quotes: Path = QUOTES) -> str:
    """Return the example for the well-known ports, with all other services besides."""
    text = EXAMPLE.read_text().replace("/etc/netsrvd/quotes", str(quotes))
    more = MORE.replace("[listener.port-13]\n", "")
    [shape, more] = more.strip().split("\n", 1)
    return text.replace('service = "daytime"', f'service = "daytime"\n{shape}') + more


def here(*argv: str) -> list[str]:
    return list(argv)


@pytest.fixture
def served(alone: None, start: Start) -> Run:
    """A daemon with all services on all addresses of a network of its own."""
    return start(configuration())


@pytest.mark.parametrize(
    "rows",
    [list(generic("tcp")), list(generic("udp")), real_clients.SPECIAL, [nmap("tcp"), nmap("udp")]],
    ids=["tcp", "udp", "special", "nmap"],
)
def test_real_clients_see_what_is_said(served: Run, rows: list[Row]) -> None:
    """Each service answers each client that speaks it, see `support/real_clients.py`."""
    assert real_clients.faults(rows, here) == []


def test_clients_that_are_told_nothing_leave_records(served: Run) -> None:
    """Each client of `discard` and `close` has been there, and has got no byte."""
    rows = [row for row in generic("tcp") if re.search(", (discard|close) by", row.name)]
    assert real_clients.faults(rows, here) == []
    closed = re.compile(r"(port-9|close): \S+ closed: \w+, .* bytes in, 0 out")
    found = served.wait(
        lambda: [line for line in served.lines if closed.search(line)][len(rows) - 1 :],
        "record of each client",
    )
    assert len(found) == 1


def told(port: int) -> bytes:
    """Return what a connection is told, to the end."""
    with connect(("127.0.0.1", port)) as sock:
        return b"".join(iter(lambda: sock.recv(65536), b""))


def quoting(port: int, quotes: Path) -> dict[str, object]:
    """Return the configuration of a `qotd`."""
    keys = {"service": "qotd", "host": ["127.0.0.1"], "port": port, "quotes": str(quotes)}
    return {"listener": {"echo": keys}}


def test_a_reload_reads_the_quotes_again(start: Start, port: int, tmp_path: Path) -> None:
    """The same configuration with another file of quotes says something else after a reload; a file
    that cannot be used leaves the old quotes in force, and the record says which one and why.
    """
    quotes = tmp_path / "quotes"
    quotes.write_text("the first\n")
    run = start(quoting(port, quotes))
    assert told(port) == b"the first\r\n"
    quotes.write_text("the second\n")
    assert told(port) == b"the first\r\n"
    run.reload(quoting(port, quotes))
    assert told(port) == b"the second\r\n"
    quotes.write_text("%\n")
    assert "reload failed" in run.reload(quoting(port, quotes))["STATUS"].lower()
    run.wait_line(f'echo.quotes = "{quotes}": service qotd: quotes: {quotes} has no quote of up to')
    assert told(port) == b"the second\r\n"


def test_a_service_is_imported_when_it_is_used(start: Start, port: int) -> None:
    """A start imports the module of each service that a listener has, and no other."""
    used = {"service": "whoami", "host": ["127.0.0.1"], "port": port}
    run = start({"listener": {"echo": used}}, environment={"PYTHONVERBOSE": "1"}, ready=False)
    run.allow("")
    run.wait_ready()
    imported = {found[1] for line in run.lines if (found := IMPORTED.match(line))}
    assert imported == {"base", "whoami"}
