"""Datagrams that a handler answers, in threads of its own."""

import threading
from typing import Any

import pytest

from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import FlowEnded
from netsrvd.events.handlers import HandlerStuck
from netsrvd.events.refusals import Refused
from netsrvd.listeners import datagram
from netsrvd.listeners.handlers import answerer
from netsrvd.listeners.handlers.answerer import FAILURES_TOLD, WAITING_PER_THREAD, Datagram
from netsrvd.services import base
from tests.support.patience import SECONDS, eventually
from tests.support.peers import datagrams, nothing_more
from tests.support.serving import Serving, answered, listener
from tests.support.waiting import wait_end, wait_event


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

    receiver = serving.udp(handler=handler)
    with datagrams() as asker:
        asker.sendto(b"abc", receiver.local)
        assert asker.recv(10) == b"cba"
        peer = asker.getsockname()
    assert seen == [Datagram(b"abc", peer, receiver.local, "echo")]
    assert seen[0].protocol == "udp"
    serving.stop_listening()
    ended = serving.only(FlowEnded)
    assert (ended.datagrams_received, ended.datagrams_sent, ended.bytes_sent) == (1, 1, 3)
    counters = receiver.counters
    assert (counters.datagrams_sent, counters.bytes_sent, counters.datagrams_unsent) == (1, 3, 0)


@pytest.mark.parametrize(
    ("floor", "answer", "sent"),
    [(0, b"longer", b"lon"), (5, b"longer", b"longe"), (9, bytearray(b"longer"), b"longer")],
)
def test_an_answer_is_no_longer_than_it_may_be(
    serving: Serving, floor: int, answer: Any, sent: bytes
) -> None:
    """It is cut to the length of what was asked, or to `reply_floor`, as that of any service."""
    receiver = serving.udp(handler=lambda _: answer, reply_floor_bytes=floor)
    assert ask(receiver.local, b"abc") == sent
    eventually(lambda: receiver.counters.bytes_sent == len(sent), "it is counted")


def test_long_answers_count(serving: Serving) -> None:
    """Those of handlers as well: the budget is of what is sent."""
    limits = {"reply_rate": 1, "reply_floor_bytes": 512, "unlimited": ()}
    receiver = serving.udp(handler=lambda _: bytes(512), **limits)
    answers = 0
    with datagrams() as asker:
        while not serving.so_far(Refused):
            asker.sendto(b"x", receiver.local)
            eventually(
                lambda n=answers: receiver.counters.datagrams_sent > n or serving.so_far(Refused)
            )
            answers += 1
            assert answers < 200
    assert 65_536 - 512 <= receiver.counters.bytes_sent <= 65_536 + 512 + SECONDS
    assert serving.only(Refused).reason == "budget"


def test_a_handler_may_be_silent(serving: Serving) -> None:
    """None is no answer, an empty one is an empty datagram."""
    receiver = serving.udp(handler=lambda it: it.payload or None)
    with datagrams() as asker:
        asker.sendto(b"", receiver.local)
        asker.sendto(b"x", receiver.local)
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

    receiver = serving.udp(handler=handler)
    with datagrams() as asker:
        asker.sendto(b"bad", receiver.local)
        failed = serving.only(ServiceFailed)
        asker.sendto(b"x", receiver.local)
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

    receiver = serving.udp(handler=handler)
    with datagrams() as asker:
        for _ in range(100):
            asker.sendto(b"x", receiver.local)
        eventually(lambda: receiver.counters.datagrams_unsent == 100, "all are counted")
    assert FAILURES_TOLD <= len(serving.so_far(ServiceFailed)) <= 3 * FAILURES_TOLD


def test_more_than_may_wait_are_refused(serving: Serving) -> None:
    """While all threads are busy some datagrams wait; the others are refused, counted and told."""
    gate, begun = threading.Event(), threading.Event()

    def handler(asked: Datagram) -> bytes:
        begun.set()
        wait_event(gate, "the end")
        return asked.payload

    receiver = serving.udp(handler=handler, handler_threads=1)
    with datagrams() as asker:
        asker.sendto(b"x", receiver.local)
        wait_event(begun, "the handler")
        for _ in range(WAITING_PER_THREAD + 3):
            asker.sendto(b"x", receiver.local)
        refused = serving.only(Refused)
        assert (refused.reason, refused.protocol) == ("busy", "udp")
        waiting = f"1 of handler_threads = 1 are busy and {WAITING_PER_THREAD} wait"
        assert refused.rule == waiting
        eventually(lambda: receiver.counters.datagrams_refused == 3, "three are refused")
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

    receiver = serving.udp(handler=handler, handler_threads=2)
    with datagrams() as asker:
        asker.sendto(b"slow", receiver.local)
        assert ask(receiver.local, b"quick") == b"quick"
        gate.set()
        assert asker.recv(10) == b"slow"


def test_a_stop_waits_for_answers(serving: Serving) -> None:
    """What a handler has begun is answered; one that does not return is not waited for."""
    gate, begun = threading.Event(), threading.Event()

    def handler(asked: Datagram) -> bytes:
        begun.set()
        wait_event(gate, "the end")
        return asked.payload

    receiver = serving.udp(handler=handler)
    with datagrams() as asker:
        asker.sendto(b"x", receiver.local)
        wait_event(begun, "the handler")
        receiver.stop()
        gate.set()
        assert asker.recv(10) == b"x"
    assert receiver.duty.join(SECONDS)
    assert serving.only(FlowEnded).datagrams_sent == 1


def test_who_does_not_return_is_told_and_not_waited_for(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names the peer; the stop goes on without the handler."""
    monkeypatch.setattr(answerer, "STUCK_SECONDS", 0.05)
    monkeypatch.setattr(datagram, "LAST_SECONDS", 0.05)
    gate = threading.Event()
    receiver = serving.udp(handler=lambda _: wait_event(gate, "the end"), flow_seconds=0.1)
    with datagrams() as asker:
        asker.sendto(b"x", receiver.local)
        stuck = serving.only(HandlerStuck)
        assert stuck.peer_port == asker.getsockname()[1]
        assert stuck.seconds >= 0.05
    serving.stop_listening()
    assert serving.only(FlowEnded).datagrams_sent == 0
    gate.set()
    [hand] = receiver.mover._desk.answerer.crew._busy
    wait_end(hand.duty)


def test_a_reload_changes_the_handler(serving: Serving) -> None:
    """To another one, to a service and back; what the old one has begun is still answered."""
    gate, begun = threading.Event(), threading.Event()

    def slow(asked: Datagram) -> bytes:
        begun.set()
        wait_event(gate, "the end")
        return asked.payload

    receiver = serving.udp(handler=slow)
    with datagrams() as asker:
        asker.sendto(b"slow", receiver.local)
        wait_event(begun, "the handler")
        receiver.update(listener(), base.Datagrams(), (), turned)
        assert ask(receiver.local, b"abc") == b"cba"
        receiver.update(listener(handler_threads=1), base.Datagrams(), (), turned)
        assert ask(receiver.local, b"abc") == b"cba"
        gate.set()
        assert asker.recv(10) == b"slow"
    receiver.update(listener(), base.Datagrams(), (), None)
    answered(receiver.duty)
    eventually(
        lambda: not [each for each in threading.enumerate() if each.name.startswith("handler")],
        "the threads have ended",
    )


def test_an_answer_for_a_closed_socket_is_counted(serving: Serving) -> None:
    """The socket was closed by a reload while the handler worked."""
    gate, begun = threading.Event(), threading.Event()

    def handler(asked: Datagram) -> bytes:
        begun.set()
        wait_event(gate, "the end")
        return asked.payload

    receiver = serving.udp(handler=handler)
    with datagrams() as asker:
        asker.sendto(b"x", receiver.local)
        wait_event(begun, "the handler")
        [inlet] = receiver.mover._inlets.values()
        receiver.close(inlet.sock)
        answered(receiver.duty)
        gate.set()
        eventually(lambda: receiver.counters.datagrams_unsent == 1, "it is counted")
