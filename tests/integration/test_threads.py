"""The threads of a server: how many, calls between them, their failures, their end."""

import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netsrvd.events.lifecycle import ThreadFailed
from netsrvd.linux import call_queue
from netsrvd.linux.call_queue import CallQueue
from netsrvd.log.records import Record
from netsrvd.server import Server
from netsrvd.settings import LogSettings, Settings
from tests.support import server
from tests.support.logs import FakeLog
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, datagrams, echoed
from tests.support.serving import Serving, listener
from tests.support.threads import flushed


class PlantedError(Exception):
    """What is planted in the threads."""


def explode(*_: object) -> None:
    raise PlantedError


@pytest.fixture
def woken() -> threading.Event:
    """Set when the main thread is woken."""
    return threading.Event()


@pytest.fixture
def running(log: FakeLog, woken: threading.Event) -> Iterator[Server]:
    """A server on one address of each family and protocol; it is stopped at the end."""
    settings = Settings(
        log=LogSettings(level="debug"), listeners=(listener(hosts=("127.0.0.1", "::1")),)
    )
    built = server.build(settings, wake=woken.set)
    built.start()
    yield built
    server.stop(built)


NAMES = ["tcp", "udp", "log"]


@pytest.mark.parametrize("count", [1, 12])
def test_there_are_at_most_four_threads(log: FakeLog, count: int) -> None:
    """However many listeners and addresses there are, one thread serves all of TCP, one all of UDP,
    and one writes the log, beside the main thread.
    """
    before = set(threading.enumerate())
    settings = Settings(
        listeners=tuple(
            listener(name=f"echo{number}", hosts=("127.0.0.1", "::1")) for number in range(count)
        )
    )
    built = server.build(settings)
    built.start()
    assert len(server.addresses(built)) == 4 * count
    for address in server.addresses(built, "tcp"):
        with connect(address) as client:
            assert echoed(client)
    for address in server.addresses(built, "udp"):
        with datagrams(address[0]) as asker:
            asker.sendto(b"hello", address)
            assert asker.recv(10) == b"hello"
    assert sorted(each.name for each in set(threading.enumerate()) - before) == sorted(NAMES)
    server.stop(built)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_loop_with_nothing_to_do_is_not_started(log: FakeLog, protocol: str) -> None:
    """Where all listeners are of one protocol, there is no thread for the other one."""
    before = set(threading.enumerate())
    settings = Settings(listeners=(listener(hosts=("127.0.0.1",), protocols=(protocol,)),))
    built = server.build(settings)
    built.start()
    names = {each.name for each in set(threading.enumerate()) - before}
    assert names == {protocol, "log"} == {thread.name for thread in built.threads()}
    server.stop(built)


def test_every_thread_answers_the_watchdog(running: Server) -> None:
    """Each loop that turns shows it when it is asked, also when nothing else happens."""
    assert [thread.name for thread in running.threads()] == NAMES
    for number in (7, 8):
        for thread in running.threads():
            thread.ping(number)
        eventually(
            lambda n=number: {thread.heartbeat for thread in running.threads()} == {n},
            "all answered",
        )


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_a_stuck_thread_does_not_answer(running: Server, name: str) -> None:
    """A loop that does not turn keeps its old heartbeat, until it turns again."""
    held, free = threading.Event(), threading.Event()
    [stuck] = (each for each in running.threads() if each.name == name)
    others = [each for each in running.threads() if each is not stuck]
    stuck.calls.put(lambda: (held.set(), free.wait()))
    assert held.wait(SECONDS)
    for thread in running.threads():
        thread.ping(1)
    eventually(lambda: all(thread.heartbeat == 1 for thread in others), "the others answered")
    assert stuck.heartbeat == 0
    free.set()
    eventually(lambda: stuck.heartbeat == 1, "it turns again")


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_of_a_thread_reaches_the_main_thread(
    name: str, running: Server, log: FakeLog, woken: threading.Event
) -> None:
    """An exception in a thread's own loop ends that thread, wakes the main thread, and is in the
    log with its traceback, unless it is the log's own.
    """
    [thread] = (each for each in running.threads() if each.name == name)
    thread.calls.put(explode)
    eventually(woken.is_set, "the main thread is woken")
    [failure] = running.failures
    assert failure.startswith(
        f"thread {name} failed: PlantedError()\nTraceback (most recent call last)"
    )
    assert "raise PlantedError" in failure
    if name != "log":
        eventually(lambda: log.taken, "the record is written")
        [record] = log.taken
        assert record.message_id == ThreadFailed.MESSAGE_ID
        assert "raise PlantedError" in record.traceback()


def test_a_failure_that_finds_the_log_full_is_counted(
    running: Server, log: FakeLog, woken: threading.Event
) -> None:
    """As every other record that is lost; the failure is shown at the end all the same."""
    running.log_writer._limit = 0
    running.failed("tcp", PlantedError())
    assert running.log_writer.lost == 1
    assert "PlantedError" in running.failures.pop()
    assert woken.is_set()


@pytest.mark.parametrize("name", ["tcp", "udp"])
def test_a_stop_does_not_need_a_thread_that_fails(log: FakeLog, name: str) -> None:
    """A stop that begins while a loop is just failing does not wait for it, and closes all."""
    began, free = threading.Event(), threading.Event()

    def wake() -> None:
        began.set()
        free.wait(SECONDS)

    built = server.build(Settings(listeners=(listener(hosts=("127.0.0.1",)),)), wake=wake)
    built.start()
    [address] = server.addresses(built, "tcp")
    with connect(address) as client:
        assert echoed(client)
        [thread] = (each for each in built.threads() if each.name == name)
        thread.calls.put(explode)
        assert began.wait(SECONDS)
        closing = threading.Timer(0.1, free.set)  # the thread ends while the stop waits for it
        closing.start()
        assert server.stop(built) == 1
        closing.join()
        assert client.recv(1) == b""


def test_a_log_that_fails_is_a_failure_of_the_server(
    running: Server, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the writing of records does not go unseen."""

    def write(record: Record) -> bool:
        raise PlantedError(record.text)

    monkeypatch.setattr(log, "write", write)
    [tcp, *_] = running.threads()
    tcp.calls.put(explode)
    eventually(lambda: len(running.failures) == 2, "both have failed")
    assert running.failures[1].startswith("thread log failed: PlantedError('thread tcp")
    assert log.closed


def test_the_end_leaves_nothing(log: FakeLog) -> None:
    """When all threads are joined, live connections and flows included, no thread and no
    descriptor is left (see `nothing_left`), and the counters are whole.
    """
    built = server.build(Settings(listeners=(listener(hosts=("127.0.0.1", "::1")),)))
    built.start()
    clients = []
    for address in server.addresses(built, "tcp"):
        clients.append(connect(address))
        assert echoed(clients[-1])
    for address in server.addresses(built, "udp"):
        clients.append(datagrams(address[0]))
        clients[-1].sendto(b"hello", address)
        assert clients[-1].recv(10) == b"hello"
    assert (built.live, built.flows) == (2, 2)
    assert server.stop(built) == 2
    for client in clients:
        client.close()
    counters = built.counters()
    assert (counters.accepted, counters.closed.total, counters.flows) == (2, 2, 2)
    assert counters.bytes_received == counters.bytes_sent == 20
    assert log.closed
    assert len(log.taken) == 8


def test_the_end_of_the_last_connection_wakes_the_main_thread(
    running: Server, woken: threading.Event
) -> None:
    """A stop serves the connections that are left; when the last has ended it is told at once."""
    [address, *_] = server.addresses(running, "tcp")
    with connect(address) as client:
        assert echoed(client)
        running.stop_listening(SECONDS)
        assert echoed(client)
        assert not running.is_empty
        assert not woken.is_set()
    eventually(woken.is_set, "the main thread is woken")
    assert running.is_empty


# --- mail -------------------------------------------------------------------------------------


@pytest.fixture
def box() -> Iterator[CallQueue]:
    made = CallQueue()
    yield made
    made.close()


def is_awake(box: CallQueue) -> bool:
    return bool(select.select([box], [], [], 0)[0])


def while_writing(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen, once, just before a post's wake-up is written to the eventfd."""
    real, due = os.eventfd_write, [happens]

    def write(descriptor: int, value: int) -> None:
        while due:
            due.pop()()
        real(descriptor, value)

    monkeypatch.setattr(call_queue.os, "eventfd_write", write)


def test_mail_may_be_read_while_it_is_posted(
    box: CallQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner that is awake for something else may look into the queue at the very moment at
    which another thread is about to wake it: nothing fails, nothing is lost, nothing spins.
    """
    came: list[int] = []
    while_writing(monkeypatch, box.run_pending)
    box.put(came.append, 1)
    assert came == [1]
    box.run_pending()
    assert not is_awake(box)
    box.put(came.append, 2)
    assert is_awake(box)
    box.run_pending()
    assert came == [1, 2]
    assert not is_awake(box)


def test_two_may_post_at_the_same_time(box: CallQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which two threads wake the owner, and the owner reads, the owner is
    asleep again when all is delivered, and is woken by the next post.
    """
    came: list[int] = []
    while_writing(monkeypatch, lambda: (box.put(came.append, 2), box.run_pending()))
    box.put(came.append, 1)
    box.run_pending()
    assert sorted(came) == [1, 2]
    assert not is_awake(box)
    box.put(came.append, 3)
    assert is_awake(box)


def test_mail_from_many_threads_comes_once_and_in_order(serving: Serving) -> None:
    """Posts of many threads to an owner that is kept awake by clients, too, all come, each
    thread's in order, and afterwards the owner sleeps.
    """
    came: list[tuple[int, int]] = []
    post = serving.tcp_loop.call_soon_threadsafe

    def send(sender: int) -> None:
        for number in range(3000):
            post(came.append, (sender, number))

    senders = [threading.Thread(target=send, args=(sender,)) for sender in range(4)]
    with connect(serving.tcp().local) as client:
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            assert echoed(client)
        for sender in senders:
            sender.join()
        assert echoed(client)
    eventually(lambda: len(came) == 12_000, "all mail has come")
    for sender in range(4):
        assert [number for each, number in came if each == sender] == list(range(3000))


def test_a_server_sleeps_when_nothing_happens(running: Server) -> None:
    """All threads together use no processor time while nobody asks them for anything."""
    for thread in running.threads():
        assert flushed(thread)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nothing:
        nothing.bind(("127.0.0.1", 0))
        before = resource.getrusage(resource.RUSAGE_SELF)
        select.select([nothing], [], [], 0.5)  # the time over which is measured
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.05


def test_a_wake_up_never_goes_to_a_closed_mailbox(
    box: CallQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is closed while a call is queued waits for that wake-up: its descriptor could
    belong to a client by the time it is written.
    """
    closing = threading.Thread(target=box.close)
    link = Path(f"/proc/self/fd/{box.fileno()}")
    was_open: list[bool] = []

    def close() -> None:
        closing.start()
        closing.join(0.05)
        was_open.append(str(link.readlink()) == "anon_inode:[eventfd]")

    while_writing(monkeypatch, close)
    box.put(explode)
    closing.join()
    assert was_open == [True]
    assert box.fileno() == -1
    box.put(explode)
