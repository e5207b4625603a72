"""A server whose journal is slow, hung, absent or restarted: nothing of it stops the service."""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from netsrvd import startup
from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.log import RecordsLost
from netsrvd.log import writer
from netsrvd.log.journal import JournalLog
from netsrvd.server import Server
from netsrvd.settings import LogSettings, Settings
from tests.support import server
from tests.support.logs import LogDaemon
from tests.support.patience import SECONDS, eventually
from tests.support.peers import Address, connect, echoed, nothing_more
from tests.support.serving import listener
from tests.support.threads import flushed

FILLER = b"FILLER="
"""A record that is none of the server's."""

Start = Callable[..., tuple[Server, Address]]


@contextmanager
def read(journal: LogDaemon) -> Iterator[list[dict[str, str]]]:
    """Read what comes to a journal's socket while the block runs, as journald would."""
    records: list[dict[str, str]] = []

    def run() -> None:
        while datagram := journal.read():
            if datagram != FILLER:
                records.append(dict(line.split("=", 1) for line in datagram.decode().splitlines()))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield records
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", str(journal.path))
        thread.join()


@pytest.fixture
def journal(tmp_path: Path) -> LogDaemon:
    """A journal that is not there yet."""
    return LogDaemon(tmp_path / "journal")


@pytest.fixture
def start(journal: LogDaemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Begin to serve with these settings of the log; return the server and its TCP address."""
    monkeypatch.setitem(startup.LOGS, "journal", lambda: JournalLog(journal.path))
    monkeypatch.setattr(writer, "LAST_PATIENCE_SECONDS", 0.3)
    with ExitStack() as stack:

        def begin(**log: Any) -> tuple[Server, Address]:
            settings = Settings(
                log=LogSettings(**log),
                listeners=(listener(hosts=("127.0.0.1",), protocols=("tcp",)),),
            )
            running = server.build(settings, log="journal")
            running.start()
            stack.callback(server.stop, running)
            [address] = server.addresses(running)
            return running, address

        yield begin


def visit(address: Address, times: int) -> list[float]:
    """Connect, have something echoed and leave, `times` times; return the seconds of each."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        with connect(address) as client:
            assert echoed(client)
        took.append(time.perf_counter() - began)
    return took


def fill(journal: LogDaemon) -> None:
    """Send so much that the kernel keeps no more for a journal that does not read, however much
    that is on this host (net.unix.max_dgram_qlen); one sender alone may not send so much.
    """
    sent = 1
    while sent:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(BlockingIOError):
            sender.setblocking(False)
            sender.connect(str(journal.path))
            while True:
                sent += sender.send(FILLER)


def kinds(records: list[dict[str, str]]) -> Counter[str]:
    """Return how many records there are of each kind."""
    names = {kind.MESSAGE_ID: kind.__name__ for kind in (Accepted, Closed, RecordsLost)}
    return Counter(names[record["MESSAGE_ID"]] for record in records)


def test_a_hung_journal_slows_nobody(journal: LogDaemon, start: Start) -> None:
    """While nobody reads the journal clients are served as before; what is lost is counted to the
    last record, and told when reading is resumed.
    """
    running, address = start(queue_records=250)  # more than the usual visits make
    with journal:
        with read(journal) as before:
            visit(address, 100)
            eventually(lambda: kinds(before) == {"Accepted": 100, "Closed": 100}, "all are written")
        fill(journal)
        hung = visit(address, 300)
        assert median(hung) < writer.PATIENCE_SECONDS / 2
        eventually(lambda: running.counters().closed.total == 400, "all have left")
        for thread in running.threads():
            assert flushed(thread)  # so that what it last reported is counted, too
        lost = running.log_writer.lost
        assert lost > 200
        with read(journal) as after:
            eventually(lambda: kinds(after)["RecordsLost"], "the loss is told")
            visit(address, 1)
            eventually(lambda: len(after) == 600 - lost + 1 + 2, "all are written")
    [told] = (one for one in after if one["MESSAGE_ID"] == RecordsLost.MESSAGE_ID)
    assert told["NETSRVD_RECORDS"] == told["NETSRVD_RECORDS_LOST"] == str(lost)
    assert after.index(told) == 600 - lost
    assert running.log_writer.lost == lost


def test_a_hung_journal_does_not_keep_from_stopping(journal: LogDaemon, start: Start) -> None:
    """The end waits a moment for a journal that nobody reads; what it did not take is counted."""
    running, address = start(queue_records=50)
    with journal:
        fill(journal)
        visit(address, 100)
        running.stop_listening(0.0)
        running.close_connections()
        began = time.monotonic()
        running.stop_log()
        assert 0.2 < time.monotonic() - began < SECONDS
        with read(journal) as taken:
            pass
        assert running.log_writer.lost == 200 - len(taken)


def test_who_must_have_every_record_waits(
    journal: LogDaemon, start: Start, stack: ExitStack
) -> None:
    """With when_full = "wait" nobody new is served while the journal hangs, those inside are, and
    when it is read again everybody is, and not one record is missing.
    """
    running, address = start(queue_records=5, when_full="wait")
    with journal:
        fill(journal)
        clients = [stack.enter_context(connect(address))]
        assert echoed(clients[0])
        # From here on it holds the one record that the journal does not take, and takes no other.
        eventually(lambda: not running.log_writer._queue, "the log_writer offers its record")
        while not running.log_writer.congested:
            clients.append(stack.enter_context(connect(address)))
            assert echoed(clients[-1])
        [tcp, *_] = running.threads()
        assert flushed(tcp)  # it may still have been accepting
        late = stack.enter_context(connect(address))
        late.send(b"x")
        assert flushed(tcp)
        assert all(echoed(client) for client in clients)
        assert nothing_more(late)
        with read(journal) as records:
            late.settimeout(SECONDS)
            assert late.recv(1) == b"x"
            visit(address, 50)
            stack.close()
            total = len(clients) + 1 + 50
            eventually(lambda: kinds(records) == {"Accepted": total, "Closed": total})
    assert running.log_writer.lost == 0


def test_an_absent_journal_stops_nothing(journal: LogDaemon, start: Start) -> None:
    """Clients are served before there is a journal; when it comes it gets what waits for it."""
    _, address = start()
    visit(address, 20)
    with journal, read(journal) as records:
        eventually(lambda: kinds(records) == {"Accepted": 20, "Closed": 20}, "all are written")


def test_a_restarted_journal_is_found_again(
    journal: LogDaemon, start: Start, stack: ExitStack, many_descriptors: None
) -> None:
    """When the journal's socket is replaced the records go on; also if the new descriptor is
    beyond what select(2) can watch, because there are many clients by then.
    """
    running, address = start()
    with journal, read(journal) as first:
        visit(address, 20)
        eventually(lambda: kinds(first) == {"Accepted": 20, "Closed": 20}, "all are written")
    for _ in range(1100):
        stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    with journal:
        visit(address, 100)
        assert not running.failures
        with read(journal) as second:
            eventually(lambda: len(second) == 200, "all are written")
    assert running.log_writer.lost == 0
    assert not running.failures
