"""Datagrams that a handler answers, in threads of its own."""

import socket
import threading
from time import sleep
from typing import Any

import pytest

from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import FlowEnded
from netsrvd.events.handlers import HandlerStuck
from netsrvd.events.refusals import Refused
from netsrvd.handlers import datagrams as handler_datagrams
from netsrvd.handlers.datagrams import FAILURES_PER_SECOND, WAITING_PER_THREAD, Datagram
from netsrvd.server import Server
from netsrvd.services import base
from netsrvd.settings import Settings
from tests.support import handlers, server
from tests.support.logs import FakeLog
from tests.support.patience import SECONDS, eventually
from tests.support.peers import datagrams, nothing_more
from tests.support.serving import Serving, listener
from tests.support.waiting import wait_event


def turned(asked: Datagram) -> bytes:
    return asked.payload[::-1]


def ask(address: tuple[str, int], payload: bytes) -> bytes:
    """Return the answer to one datagram."""
    with datagrams() as asker:
        asker.sendto(payload, address)
        return asker.recv(65_536)


def test_a_datagram_is_answered_by_a_handler(serving: Serving) -> None:
    """It sees the payload, who sent it where, and the listener; the record counts its answer."""
    seen: list[Datagram] = []

    def handler(asked: Datagram) -> bytes:
        seen.append(asked)
        return turned(asked)

    udp = serving.udp(handler=handler)
    with datagrams() as asker:
        asker.sendto(b"abc", udp.local)
        assert asker.recv(10) == b"cba"
        peer = asker.getsockname()
    assert seen == [Datagram(b"abc", peer, udp.local, "echo")]
    assert seen[0].protocol == "udp"
    serving.stop_listening()
    ended = serving.only(FlowEnded)
    assert (ended.datagrams_received, ended.datagrams_sent, ended.bytes_sent) == (1, 1, 3)
    counters = udp.counters
    assert (counters.datagrams_sent, counters.bytes_sent, counters.datagrams_unsent) == (1, 3, 0)


@pytest.mark.parametrize(
    ("floor", "answer", "sent"),
    [(0, b"longer", b"lon"), (5, b"longer", b"longe"), (9, bytearray(b"longer"), b"longer")],
)
def test_an_answer_is_no_longer_than_it_may_be(
    serving: Serving, floor: int, answer: Any, sent: bytes
) -> None:
    """It is cut to the length of what was asked, or to `reply_floor`, as that of any service."""
    udp = serving.udp(handler=lambda _: answer, reply_floor_bytes=floor)
    assert ask(udp.local, b"abc") == sent
    eventually(lambda: udp.counters.bytes_sent == len(sent), "it is counted")


def test_long_answers_count(serving: Serving) -> None:
    """Those of handlers as well: the budget is of what is sent."""
    limits = {"reply_rate": 1, "reply_floor_bytes": 512, "unlimited": ()}
    udp = serving.udp(handler=lambda _: bytes(512), **limits)
    answers = 0
    with datagrams() as asker:
        while not serving.so_far(Refused):
            asker.sendto(b"x", udp.local)
            eventually(lambda n=answers: udp.counters.datagrams_sent > n or serving.so_far(Refused))
            answers += 1
            assert answers < 200
    assert 65_536 - 512 <= udp.counters.bytes_sent <= 65_536 + 512 + SECONDS
    assert serving.only(Refused).reason == "budget"


def test_a_handler_may_be_silent(serving: Serving) -> None:
    """None is no answer, an empty one is an empty datagram."""
    udp = serving.udp(handler=lambda it: it.payload or None)
    with datagrams() as asker:
        asker.sendto(b"", udp.local)
        asker.sendto(b"x", udp.local)
        assert asker.recv(10) == b"x"
        assert nothing_more(asker)
    serving.stop_listening()
    ended = serving.only(FlowEnded)
    assert (ended.datagrams_received, ended.datagrams_sent, ended.datagrams_unsent) == (2, 1, 0)
    assert ask(serving.udp(handler=lambda _: b"").local, b"x") == b""


@pytest.mark.parametrize("wrong", [ValueError("on purpose"), SystemExit(1), "a text", 7])
def test_a_failure_leaves_one_datagram_unanswered(serving: Serving, wrong: object) -> None:
    """An exception, or an answer that is no bytes, is told with its traceback; the next one is
    answered.
    """

    def handler(asked: Datagram) -> object:
        if asked.payload == b"x":
            return asked.payload
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong

    udp = serving.udp(handler=handler)
    with datagrams() as asker:
        asker.sendto(b"bad", udp.local)
        failed = serving.only(ServiceFailed)
        asker.sendto(b"x", udp.local)
        assert asker.recv(10) == b"x"
    assert "Traceback" in failed.traceback
    serving.stop_listening()
    ended = serving.only(FlowEnded)
    assert (ended.datagrams_sent, ended.datagrams_unsent) == (1, 1)
    assert ended.error == failed.error


def test_failures_do_not_fill_the_log(serving: Serving) -> None:
    """Some of a second have records; all are counted."""

    def handler(asked: Datagram) -> bytes:
        raise ValueError(asked.payload)

    udp = serving.udp(handler=handler)
    with datagrams() as asker:
        for _ in range(100):
            asker.sendto(b"x", udp.local)
        eventually(lambda: udp.counters.datagrams_unsent == 100, "all are counted")
    assert FAILURES_PER_SECOND <= len(serving.so_far(ServiceFailed)) <= 3 * FAILURES_PER_SECOND


def test_more_than_may_wait_are_refused(serving: Serving) -> None:
    """While all threads are busy some datagrams wait; the others are refused, counted and told."""
    gate, begun = threading.Event(), threading.Event()

    def handler(asked: Datagram) -> bytes:
        begun.set()
        wait_event(gate, "the end")
        return asked.payload

    udp = serving.udp(handler=handler, handler_threads=1)
    with datagrams() as asker:
        asker.sendto(b"x", udp.local)
        wait_event(begun, "the handler")
        for _ in range(WAITING_PER_THREAD + 3):
            asker.sendto(b"x", udp.local)
        refused = serving.only(Refused)
        assert (refused.reason, refused.protocol) == ("busy", "udp")
        waiting = f"1 of handler_threads = 1 are busy and {WAITING_PER_THREAD} wait"
        assert refused.rule == waiting
        eventually(lambda: udp.counters.datagrams_refused.total == 3, "three are refused")
        gate.set()
        for _ in range(WAITING_PER_THREAD + 1):
            assert asker.recv(10) == b"x"
        assert nothing_more(asker)
    serving.stop_listening()
    ended = serving.only(FlowEnded)
    assert (ended.datagrams_sent, ended.datagrams_refused) == (WAITING_PER_THREAD + 1, 3)


def test_others_are_served_meanwhile(serving: Serving) -> None:
    """A handler that is slow holds up neither the receiving nor other datagrams."""
    gate = threading.Event()

    def handler(asked: Datagram) -> bytes:
        if asked.payload == b"slow":
            wait_event(gate, "the end")
        return asked.payload

    udp = serving.udp(handler=handler, handler_threads=2)
    with datagrams() as asker:
        asker.sendto(b"slow", udp.local)
        assert ask(udp.local, b"quick") == b"quick"
        gate.set()
        assert asker.recv(10) == b"slow"


def running_handlers() -> list[str]:
    """Return the names of the threads of handlers."""
    return [each.name for each in threading.enumerate() if each.name.startswith("handler")]


class Slow:
    """A handler that works until `gate` is set."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self, asked: Datagram) -> bytes:
        self.begun.set()
        wait_event(self.gate, "the end")
        return asked.payload


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """A handler that the configuration names `python:tests.support.handlers:slow`."""
    made = Slow()
    monkeypatch.setattr(handlers, "slow", made, raising=False)
    return made


def asked_slowly(slow: Slow, asker: socket.socket) -> Server:
    """Return a server that has begun to answer a datagram."""
    settings = listener(
        hosts=("127.0.0.1",), protocols=("udp",), service="python:tests.support.handlers:slow"
    )
    running = server.build(Settings(listeners=(settings,)))
    running.start()
    [address] = server.addresses(running)
    asker.sendto(b"x", address)
    wait_event(slow.begun, "the handler")
    return running


def summary(log: FakeLog) -> dict[str, str]:
    """Return the fields of the summary of the only flow."""
    [record] = [each for each in log.taken if each.message_id == FlowEnded.MESSAGE_ID]
    return dict(record.fields)


def test_a_stop_waits_for_answers(
    slow: Slow, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler has begun is answered, while the stop waits for it."""

    def look(seconds: float) -> None:
        slow.gate.set()
        sleep(seconds)

    monkeypatch.setattr("netsrvd.server.sleep", look)
    with datagrams() as asker:
        server.stop(asked_slowly(slow, asker))
        assert asker.recv(10) == b"x"
    assert summary(log)["NETSRVD_DATAGRAMS_SENT"] == "1"


def test_a_stop_does_not_wait_for_ever(
    slow: Slow, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on without a handler that does not return; the datagram counts as unanswered."""
    monkeypatch.setattr("netsrvd.server.ANSWER_SECONDS", 0.05)
    with datagrams() as asker:
        running = asked_slowly(slow, asker)
        running.stop_listening(0.0)
        slow.gate.set()
        eventually(lambda: not running_handlers(), "its thread has ended")
        assert nothing_more(asker)
        server.stop(running)
    assert summary(log)["NETSRVD_DATAGRAMS_SENT"] == "0"


def test_who_does_not_return_is_told_and_not_waited_for(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names the peer; the stop of the listener goes on without the handler."""
    monkeypatch.setattr(handler_datagrams, "STUCK_SECONDS", 0.05)
    gate = threading.Event()
    udp = serving.udp(handler=lambda _: wait_event(gate, "the end"), flow_seconds=0.1)
    with datagrams() as asker:
        asker.sendto(b"x", udp.local)
        stuck = serving.only(HandlerStuck)
        assert stuck.peer_port == asker.getsockname()[1]
        assert stuck.seconds >= 0.05
    serving.stop_listening()
    assert serving.only(FlowEnded).datagrams_sent == 0
    gate.set()
    eventually(lambda: not running_handlers(), "its thread has ended")


def test_a_reload_changes_the_handler(serving: Serving) -> None:
    """To another one, to a service and back; what the old one has begun is still answered."""
    gate, begun = threading.Event(), threading.Event()

    def slow(asked: Datagram) -> bytes:
        begun.set()
        wait_event(gate, "the end")
        return asked.payload

    udp = serving.udp(handler=slow)
    with datagrams() as asker:
        asker.sendto(b"slow", udp.local)
        wait_event(begun, "the handler")
        udp.update(listener(), base.Datagrams(), (), turned)
        assert ask(udp.local, b"abc") == b"cba"
        udp.update(listener(handler_threads=1), base.Datagrams(), (), turned)
        assert ask(udp.local, b"abc") == b"cba"
        gate.set()
        assert asker.recv(10) == b"slow"
    udp.update(listener(), base.Datagrams(), (), None)
    serving.settle()
    eventually(lambda: not running_handlers(), "the threads have ended")


def test_an_answer_for_a_closed_socket_is_counted(serving: Serving) -> None:
    """The socket was closed by a reload while the handler worked."""
    gate, begun = threading.Event(), threading.Event()

    def handler(asked: Datagram) -> bytes:
        begun.set()
        wait_event(gate, "the end")
        return asked.payload

    udp = serving.udp(handler=handler)
    with datagrams() as asker:
        asker.sendto(b"x", udp.local)
        wait_event(begun, "the handler")
        udp.close()
        gate.set()
        eventually(lambda: udp.counters.datagrams_unsent == 1, "it is counted")
