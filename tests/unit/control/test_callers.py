"""netsrvd.control.callers"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from netsrvd.control import callers
from netsrvd.control.callers import (
    IDLE_SECONDS,
    MOST_CALLERS,
    PAUSE_SECONDS,
    STUCK_SECONDS,
    Answer,
    Callers,
)
from netsrvd.event_loop import READ, EventLoop
from netsrvd.events.lifecycle import ControlFailed
from tests.support.reports import Failures, Reports

CALL = b'{"method":"a.B","more":true}\0'


class Stage:
    """Callers, in the test's thread: it says when a turn is."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self.loop = EventLoop("test", Failures())
        self.reports = Reports()
        self.listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.listening.bind(str(path))
        self.listening.listen(99)
        self.listening.setblocking(False)
        self.loop.add(self.listening.fileno(), self)  # type: ignore[arg-type]
        self.replies = 3
        self.steps = 0
        self.raised: Exception | None = None
        self.callers = Callers(self.listening, self.loop, self.answer, self.reports)
        self._stack = stack
        self._path = str(path)

    def answer(self, method: str, parameters: dict[str, Any], caller: object) -> Answer:
        for number in range(self.replies):
            self.steps += 1
            if self.raised:
                raise self.raised
            yield {"number": number}

    def connect(self, now: float = 0.0) -> tuple[socket.socket, Any]:
        """Return a client and its caller."""
        client = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(5)
        client.connect(self._path)
        before = {*self.callers._callers}
        self.accept(now)
        new = {*self.callers._callers} - before
        return client, self.callers._callers[new.pop()] if new else None

    def call(self, answer: Callable[..., Answer]) -> tuple[socket.socket, Any]:
        """Return a client that has made a call, which is answered so, and its caller."""
        client, caller = self.connect()
        self.callers.methods = answer
        client.sendall(CALL)
        caller.on_ready(READ, 0.0)
        return client, caller

    def accept(self, now: float) -> None:
        """Have the next client accepted if there is room."""
        if self.callers.make_room(now):
            self.callers.accept(self.listening.accept()[0], now)

    def turn(self, now: float = 0.0) -> float:
        return self.callers.run_due(now)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        made = Stage(stack, tmp_path / "socket")
        yield made
        made.callers.close_all()
        made.loop.join(0)


def messages(client: socket.socket) -> list[dict[str, Any]]:
    """Return what a client has been sent."""
    client.setblocking(False)
    return [json.loads(each) for each in client.recv(65_536).split(b"\0") if each]


def test_a_turn_is_one_step_of_one_answer(stage: Stage) -> None:
    """However many callers there are: the answers take turns."""
    both = [stage.connect() for _ in range(2)]
    for client, caller in both:
        client.sendall(CALL)
        caller.on_ready(READ, 0.0)
    counts = []
    for _ in range(6):
        stage.turn()
        counts.append(stage.steps)
    assert counts == [0, 0, 1, 2, 3, 4]
    while stage.turn() <= PAUSE_SECONDS:
        pass
    for client, _ in both:
        found = messages(client)
        assert [each["parameters"]["number"] for each in found] == [0, 1, 2]
        assert [each.get("continues", False) for each in found] == [True, True, False]


def test_no_step_is_done_for_a_caller_that_does_not_read(stage: Stage) -> None:
    """It goes on when what was sent has been taken; until then nothing more is kept."""
    client, caller = stage.connect()
    stage.replies = 100_000
    client.sendall(CALL)
    caller.on_ready(READ, 0.0)
    while not caller.outbox:
        stage.turn()
    steps = stage.steps
    for _ in range(10):
        stage.turn()
    assert stage.steps == steps
    assert len(caller.outbox) < 100
    client.recv(1 << 20)
    caller.on_ready(callers.WRITE, 0.0)
    stage.turn()
    assert stage.steps > steps


def test_who_is_stuck_or_silent_is_disconnected(stage: Stage) -> None:
    """After their times, and not before."""
    client, stuck = stage.connect()
    silent_client, _ = stage.connect()
    stage.replies = 100_000
    client.sendall(CALL)
    stuck.on_ready(READ, 0.0)
    while not stuck.outbox:
        stage.turn()
    stage.turn(STUCK_SECONDS - 0.1)
    assert len(stage.callers._callers) == 2
    stage.turn(STUCK_SECONDS + callers.SWEEP_SECONDS)
    assert len(stage.callers._callers) == 1
    stage.turn(IDLE_SECONDS + 2 * callers.SWEEP_SECONDS)
    assert not stage.callers._callers
    assert silent_client.recv(1) == b""


def test_who_reads_slowly_is_disconnected_in_the_end(stage: Stage) -> None:
    """However little it takes each time: no place is taken for good. One that pauses between its
    calls stays.
    """
    client, slow = stage.connect()
    patient_client, patient = stage.connect()
    stage.replies = 100_000
    client.sendall(CALL)
    slow.on_ready(READ, 0.0)
    now = 0.0
    while now < callers.BUSY_SECONDS:
        assert slow.sock.fileno() >= 0, now
        while not slow.outbox:
            stage.turn(now)
        client.recv(65_536)
        stage.replies = 1
        patient_client.sendall(CALL)
        patient.on_ready(READ, now)
        while patient.is_busy:
            stage.turn(now)
        assert messages(patient_client)
        now += STUCK_SECONDS / 2
        slow.on_ready(callers.WRITE, now)
    stage.turn(now + callers.SWEEP_SECONDS)
    assert slow.sock.fileno() == -1
    assert list(stage.callers._callers.values()) == [patient]


def test_who_waits_for_a_reload_is_not_disconnected(stage: Stage) -> None:
    """However long it takes; no step is done meanwhile, and the answer comes when it goes on."""

    def answer(*_: object) -> Answer:
        stage.steps += 1
        yield callers.WAIT
        yield {"number": 1}

    client, caller = stage.call(answer)
    for now in (0.0, 1.0, IDLE_SECONDS, 10 * callers.BUSY_SECONDS):
        stage.turn(now)
    assert (stage.steps, caller.is_waiting) == (1, True)
    caller.go_on()
    while caller.is_busy:
        stage.turn(10 * callers.BUSY_SECONDS)
    [found] = messages(client)
    assert found["parameters"] == {"number": 1}


def test_who_has_waited_for_a_reload_that_failed_is_one_like_any_other(stage: Stage) -> None:
    """After its answer it may be silent for as long as others."""

    def answer(*_: object) -> Answer:
        yield callers.WAIT
        raise callers.CallError("a.Failed")

    client, caller = stage.call(answer)
    stage.turn()
    stage.turn()
    assert caller.is_waiting
    caller.go_on()
    stage.turn()
    assert messages(client) == [{"error": "a.Failed", "parameters": {}}]
    stage.turn(IDLE_SECONDS + callers.SWEEP_SECONDS)
    assert caller.sock.fileno() == -1


def test_a_stop_cuts_off_no_result_of_a_reload(stage: Stage) -> None:
    """What is known by then is sent before the connection is closed."""

    def answer(*_: object) -> Answer:
        yield callers.WAIT
        yield {"number": 1}

    client, caller = stage.call(answer)
    stage.turn()
    stage.turn()
    caller.go_on()
    stage.callers.close_all()
    assert messages(client) == [{"parameters": {"number": 1}}]


def test_a_caller_that_leaves_while_it_waits_is_forgotten(stage: Stage) -> None:
    """Its place is another's at once, and an answer that comes later does no harm."""

    def answer(*_: object) -> Answer:
        yield callers.WAIT

    client, caller = stage.call(answer)
    stage.turn()
    stage.turn()
    client.close()
    for descriptor, events in stage.loop._epoll.poll(0):
        assert descriptor == caller.sock.fileno()
        caller.on_ready(events, 0.0)
    assert not stage.callers._callers
    caller.go_on()
    stage.turn()


def test_a_reply_may_be_written_already(stage: Stage) -> None:
    """It is sent as it is."""

    def answer(*_: object) -> Answer:
        yield None
        yield callers.Written('{"number":7}')

    client, caller = stage.call(answer)
    while caller.is_busy:
        stage.turn()
    assert messages(client) == [{"parameters": {"number": 7}}]


def test_callers_that_are_answered_keep_their_place(stage: Stage) -> None:
    """While all are being answered no other one is accepted: it waits in the queue."""
    for _ in range(MOST_CALLERS):
        client, caller = stage.connect()
        client.sendall(CALL)
        caller.on_ready(READ, 0.0)
        caller.step()
    waiting, nothing = stage.connect()
    assert nothing is None
    for caller in list(stage.callers._callers.values())[:1]:
        stage.callers.close(caller)
    stage.accept(0.0)
    assert len(stage.callers._callers) == MOST_CALLERS
    waiting.sendall(CALL)


def test_a_mistake_of_ours_costs_one_answer(stage: Stage) -> None:
    """The caller gets an error, the log has the traceback, and the next call is answered."""
    client, caller = stage.connect()
    stage.raised = KeyError("mistake")
    client.sendall(CALL)
    caller.on_ready(READ, 0.0)
    while stage.turn() <= PAUSE_SECONDS:
        pass
    [found] = messages(client)
    assert found["error"] == "io.netsrvd.Failed"
    [event] = stage.reports.wait_for(ControlFailed)
    assert "mistake" in event.text()
    stage.raised = None
    client.sendall(CALL)
    caller.on_ready(READ, 0.0)
    while stage.turn() <= PAUSE_SECONDS:
        pass
    assert len(messages(client)) == 3


def test_a_oneway_call_has_no_reply(stage: Stage) -> None:
    """The next call has one."""
    client, caller = stage.connect()
    client.sendall(b'{"method":"a.B","oneway":true}\0' + CALL)
    caller.on_ready(READ, 0.0)
    while stage.turn() <= PAUSE_SECONDS:
        pass
    assert len(messages(client)) == 3
    assert stage.steps == 6


def test_some_replies_are_sent_at_once(stage: Stage) -> None:
    """An answer may give several in a step; only the last of all has none that follows it."""

    def answer(*_: object) -> Answer:
        yield [{"number": 0}, {"number": 1}]
        yield []
        yield None
        yield [{"number": 2}]

    client, _ = stage.call(answer)
    while stage.turn() <= PAUSE_SECONDS:
        pass
    found = messages(client)
    assert [each["parameters"]["number"] for each in found] == [0, 1, 2]
    assert [each.get("continues", False) for each in found] == [True, True, False]


def test_a_call_that_comes_during_an_answer_does_not_hurry_it(stage: Stage) -> None:
    """It is not read before the answer has ended, and no step is done without its pause."""
    client, caller = stage.connect()
    client.sendall(CALL)
    caller.on_ready(READ, 0.0)
    stage.turn()
    client.sendall(CALL)
    assert stage.loop._epoll.poll(0) == []
    stage.callers.go_on(caller)
    assert stage.loop._deadlines[stage.callers] >= PAUSE_SECONDS


def test_any_number_of_calls_may_be_sent_at_once(stage: Stage) -> None:
    """The limit is that of one call: what has no room waits in the socket."""
    client, caller = stage.connect()
    stage.replies = 1
    client.setblocking(False)
    call, calls = b'{"method":"a.B","parameters":{"text":"%b"}}\0' % (b"x" * 1000), 100
    left, answers = call * calls, 0
    while answers < calls:
        if left:
            with suppress(BlockingIOError):
                left = left[client.send(left) :]
        for descriptor, events in stage.loop._epoll.poll(0):
            if descriptor == caller.sock.fileno():
                caller.on_ready(events, 0.0)
        stage.turn()
        assert caller.sock.fileno() >= 0
        assert len(caller.inbox) <= callers.LONGEST_CALL
        with suppress(BlockingIOError):
            answers += client.recv(65_536).count(b"\0")


def test_a_call_that_has_come_keeps_its_place(stage: Stage) -> None:
    """Callers that were just accepted, or whose answer has not begun, are ended for no other."""
    clients = [stage.connect() for _ in range(MOST_CALLERS)]
    for client, caller in clients:
        client.sendall(CALL)
        caller.on_ready(READ, 0.0)
    assert not stage.callers.make_room(callers.SILENT_SECONDS)
    while any(caller.is_busy for _, caller in clients):
        stage.turn()
    assert not stage.callers.make_room(callers.SILENT_SECONDS / 2)
    assert [len(messages(client)) for client, _ in clients] == [3] * MOST_CALLERS


def test_a_caller_that_waits_is_accepted_when_the_answers_have_ended(stage: Stage) -> None:
    """It does not wait until one of the others ends its connection."""
    clients = [stage.connect() for _ in range(MOST_CALLERS)]
    for client, caller in clients:
        client.sendall(CALL)
        caller.on_ready(READ, 0.0)
    assert stage.connect()[1] is None
    assert stage.loop._epoll.poll(0) == []
    while any(caller.is_busy for _, caller in clients):
        stage.turn()
    stage.turn(2 * callers.SILENT_SECONDS)
    assert [each for each, _ in stage.loop._epoll.poll(0)] == [stage.listening.fileno()]
    stage.accept(2 * callers.SILENT_SECONDS)
    assert len(stage.callers._callers) == MOST_CALLERS
