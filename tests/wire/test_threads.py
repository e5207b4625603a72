"""The threads of the house: mail between them, their failures, their end."""

import os
import resource
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netsrvd import assembly
from netsrvd.events.life import ThreadFailed
from netsrvd.house import House
from netsrvd.linux import mailbox
from netsrvd.linux.mailbox import Mailbox
from netsrvd.reporting.records import Record
from netsrvd.services.base import Present
from netsrvd.settings import LogSettings, Settings
from tests.support.logs import FakeLog
from tests.support.patience import SECONDS, eventually
from tests.support.peers import connect, datagrams, echoed
from tests.support.planned import configuration
from tests.support.serving import Serving, answered, listener


class PlantedError(Exception):
    """What is planted in the threads."""


def explode(*_: object) -> None:
    raise PlantedError


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
def house(log: FakeLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A whole house on one address of each protocol, which has started and is stopped again."""
    monkeypatch.setitem(assembly.LOGS, "stderr", lambda: log)
    settings = Settings(
        log=LogSettings(level="debug"),
        workers=1,
        listeners=(listener(hosts=("127.0.0.1", "::1")),),
    )
    sockets, _ = assembly.open_sockets(configuration(settings), [])
    services = assembly.prepare_services(settings, Present())
    built = House(settings, sockets, services, 10_000, "stderr", lambda: None)
    built.start()
    yield built
    built.stop_listening(0.0)
    built.stop_workers()
    built.stop_reporting()


NAMES = ["acceptor echo", "datagram echo", "worker 1", "reporter"]


def test_every_thread_answers_the_watchdog(house: House) -> None:
    """Each loop that turns shows it when it is asked, also when nothing else happens."""
    assert [duty.name for duty in house.duties()] == NAMES
    for number in (7, 8):
        for duty in house.duties():
            duty.ping(number)
        eventually(lambda n=number: {duty.pulse for duty in house.duties()} == {n}, "all answered")


def test_a_stuck_thread_does_not_answer(house: House) -> None:
    """A loop that does not turn keeps its old pulse, until it turns again."""
    held, free = threading.Event(), threading.Event()
    *others, stuck, _ = house.duties()
    stuck.mailbox.post(lambda: (held.set(), free.wait()))
    assert held.wait(SECONDS)
    for duty in house.duties():
        duty.ping(1)
    eventually(lambda: all(duty.pulse == 1 for duty in others), "the others answered")
    assert stuck.pulse == 0
    free.set()
    eventually(lambda: stuck.pulse == 1, "it turns again")


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_of_a_thread_reaches_the_main_thread(
    name: str, house: House, log: FakeLog
) -> None:
    """An exception in a thread's own loop ends that thread, wakes the main thread, and is in the
    log with its traceback, unless it is the log's own.
    """
    woken = threading.Event()
    house._wake = woken.set
    [duty] = (each for each in house.duties() if each.name == name)
    duty.mailbox.post(explode)
    eventually(woken.is_set, "the main thread is woken")
    [failure] = house.failures
    assert failure.startswith(
        f"thread {name} failed: PlantedError()\nTraceback (most recent call last)"
    )
    assert "raise PlantedError" in failure
    if name != "reporter":
        eventually(lambda: log.taken, "the record is written")
        [record] = log.taken
        assert record.message_id == ThreadFailed.MESSAGE_ID
        assert "raise PlantedError" in record.traceback()


def test_a_log_that_fails_is_a_failure_of_the_reporter(
    house: House, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the writing of records does not go unseen."""

    def write(record: Record) -> bool:
        raise PlantedError(record.text)

    monkeypatch.setattr(log, "write", write)
    [acceptor, *_] = house.duties()
    acceptor.mailbox.post(explode)
    eventually(lambda: len(house.failures) == 2, "both have failed")
    assert house.failures[1].startswith(
        "thread reporter failed: PlantedError('thread acceptor echo"
    )
    assert log.closed


def test_the_end_leaves_nothing(log: FakeLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all threads are joined, live connections and flows included, no thread and no
    descriptor is left (see `nothing_left`), and the counters are whole.
    """
    monkeypatch.setitem(assembly.LOGS, "stderr", lambda: log)
    settings = Settings(listeners=(listener(hosts=("127.0.0.1", "::1")),))
    sockets, _ = assembly.open_sockets(configuration(settings), [])
    services = assembly.prepare_services(settings, Present())
    house = House(settings, sockets, services, 10_000, "stderr", lambda: None)
    house.start()
    clients = []
    for endpoint, [opened] in sockets.items():
        address = opened.address()
        if endpoint.protocol == "tcp":
            clients.append(connect(address))
            assert echoed(clients[-1])
        else:
            clients.append(datagrams(endpoint.host))
            clients[-1].sendto(b"hello", address)
            assert clients[-1].recv(10) == b"hello"
    assert (house.connections, house.flows) == (2, 2)
    house.stop_listening(0.0)
    assert house.stop_workers() == 2
    house.stop_reporting()
    for client in clients:
        client.close()
    counters = house.counters()
    assert (counters.accepted, counters.closed, counters.flows) == (2, 2, 2)
    assert counters.bytes_received == counters.bytes_sent == 20
    assert log.closed
    assert len(log.taken) == 8


# --- mail -------------------------------------------------------------------------------------


@pytest.fixture
def box() -> Iterator[Mailbox]:
    made = Mailbox()
    yield made
    made.close()


def is_awake(box: Mailbox) -> bool:
    return bool(select.select([box], [], [], 0)[0])


def while_writing(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen, once, just before a post's wake-up is written to the eventfd."""
    real, due = os.eventfd_write, [happens]

    def write(descriptor: int, value: int) -> None:
        while due:
            due.pop()()
        real(descriptor, value)

    monkeypatch.setattr(mailbox.os, "eventfd_write", write)


def test_mail_may_be_read_while_it_is_posted(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that is awake for something else may look into the mailbox at the very moment at
    which another thread is about to wake it: nothing fails, nothing is lost, nothing spins.
    """
    came: list[int] = []
    while_writing(monkeypatch, box.deliver)
    box.post(came.append, 1)
    assert came == [1]
    box.deliver()
    assert not is_awake(box)
    box.post(came.append, 2)
    assert is_awake(box)
    box.deliver()
    assert came == [1, 2]
    assert not is_awake(box)


def test_two_may_post_at_the_same_time(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order in which two threads wake the owner, and the owner reads, the owner is
    asleep again when all is delivered, and is woken by the next post.
    """
    came: list[int] = []
    while_writing(monkeypatch, lambda: (box.post(came.append, 2), box.deliver()))
    box.post(came.append, 1)
    box.deliver()
    assert sorted(came) == [1, 2]
    assert not is_awake(box)
    box.post(came.append, 3)
    assert is_awake(box)


def test_mail_from_many_threads_comes_once_and_in_order(serving: Serving) -> None:
    """Posts of many threads to an owner that is kept awake by clients, too, all come, each
    thread's in order, and afterwards the owner sleeps.
    """
    came: list[tuple[int, int]] = []
    post = serving.worker.duty.mailbox.post

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


def test_the_house_sleeps_when_nothing_happens(house: House) -> None:
    """All threads together use no processor time while nobody asks them for anything."""
    for duty in house.duties():
        answered(duty)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nothing:
        nothing.bind(("127.0.0.1", 0))
        before = resource.getrusage(resource.RUSAGE_SELF)
        select.select([nothing], [], [], 0.5)  # the time over which is measured
        after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.05


def test_a_wake_up_never_goes_to_a_closed_mailbox(
    box: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mailbox that is closed while somebody posts waits for that wake-up, whose descriptor could
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
    box.post(explode)
    closing.join()
    assert was_open == [True]
    assert box.fileno() == -1
    box.post(explode)
