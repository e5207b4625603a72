"""Connections of callers: Varlink messages in, answers out in steps, so that no client waits.

A message is a JSON object that ends in NUL (https://varlink.org/Wire-Format).
"""

import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from math import inf
from typing import Any, Final, Literal, NamedTuple

from netsrvd.contracts import Report
from netsrvd.control.listening import credentials
from netsrvd.event_loop import READ, WRITE, EventLoop
from netsrvd.events.lifecycle import ControlFailed
from netsrvd.tracebacks import described, traceback_of

LONGEST_CALL = 65_536
"""Bytes of a call, with its final NUL."""

MOST_CALLERS = 8
"""Callers at a time. One more ends the connection of the one that has been silent longest."""

SILENT_SECONDS = 1.0
"""How long a caller has at least to send its next call before its place is given to another."""

IDLE_SECONDS = 60.0
"""How long a caller may be silent between two calls."""

STUCK_SECONDS = 10.0
"""How long a caller may take nothing of its answer."""

BUSY_SECONDS = 120.0
"""How long the answers to a caller may take that is never between two calls, however it reads. A
wait for a reload is not meant."""

SWEEP_SECONDS = 5.0

PAUSE_SECONDS = 0.001
"""How long to wait after a step: a look takes a quarter of the loop's time at most."""

SERVICE, INTERFACE = "org.varlink.service", "io.netsrvd"
"""The interfaces: that of every service of Varlink, and ours."""

FAILED = f"{INTERFACE}.Failed"
"""The error of a call in which our own code raised an exception."""

Reply = dict[str, Any]

WAIT: Final = "wait"


class Written:
    """The parameters of the only reply to a call, as JSON: a long one is written in steps."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Answer = Iterator[Reply | Written | list[Reply] | Literal["wait"] | None]
"""Yields the parameters of a reply or of some, None after a step of work without a reply, and WAIT
if the next step is not to be done before `Caller.go_on`. The last reply of several is known by the
end of the answer."""

Methods = Callable[[str, dict[str, Any], "Caller"], Answer]
"""Answers a call of a method; raises CallError, also later."""


class NoCallError(Exception):
    """What a caller sent is no call."""


class Call(NamedTuple):
    """A call as it came."""

    method: str
    parameters: dict[str, Any]
    more: bool
    """The caller takes several replies."""
    oneway: bool
    """The caller wants no reply."""


def read_call(message: bytes) -> Call:
    """Return the call of a message, without its final NUL. Raises NoCallError."""
    try:
        found = json.loads(message)
    except (ValueError, RecursionError):
        raise NoCallError from None
    if not isinstance(found, dict):
        raise NoCallError
    method, parameters = found.get("method"), found.get("parameters")
    parameters = {} if parameters is None else parameters
    if not (isinstance(method, str) and isinstance(parameters, dict)):
        raise NoCallError
    return Call(method, parameters, found.get("more") is True, found.get("oneway") is True)


def compact(value: object) -> str:
    """Return a value as JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def _text(message: Mapping[str, Any]) -> str:
    parameters = message.get("parameters")
    if isinstance(parameters, Written):
        return f'{{"parameters":{parameters.text}}}'
    return compact(message)


class CallError(Exception):
    """The caller gets an error instead of an answer."""

    def __init__(self, name: str, **parameters: object) -> None:
        super().__init__(name)
        self.message = {"error": name, "parameters": parameters}


def invalid(parameter: str) -> CallError:
    """Return the error for a parameter that is unknown or has a wrong value."""
    return CallError(f"{SERVICE}.InvalidParameter", parameter=parameter)


class Caller:
    """One connection. Owned by the event loop; `Callers` runs the steps of its answer."""

    __slots__ = (
        *("_callers", "_more", "_oneway", "_pending", "active_at", "answer", "free_at"),
        *("_watched", "inbox", "is_waiting", "outbox", "sock", "uid"),
    )

    def __init__(self, callers: "Callers", sock: socket.socket, uid: int, now: float) -> None:
        self.sock = sock
        self.uid = uid
        """The user of the caller (SO_PEERCRED); in a user namespace all but root are 65534."""
        self.active_at = now
        self.free_at = now
        """When it was last without a call to be answered."""
        self.inbox = bytearray()
        self.outbox = memoryview(b"")
        self.answer: Answer | None = None
        self.is_waiting = False
        """Whether the next step waits for `go_on`."""
        self._pending: Reply | Written | None = None
        """A reply that waits until it is known whether it is the last one."""
        self._more = self._oneway = False
        self._watched = READ
        self._callers = callers

    @property
    def wants_more(self) -> bool:
        """Whether the caller takes several replies."""
        return self._more

    @property
    def is_busy(self) -> bool:
        """Whether a call has come whose answer has not been sent in full."""
        return self.answer is not None or bool(self.outbox) or b"\0" in self.inbox

    def go_on(self) -> None:
        """Do the next step of an answer that has yielded WAIT."""
        self._callers.go_on(self)

    def on_ready(self, events: int, now: float) -> None:
        """Send what is left, or receive a call."""
        self.active_at = now
        if not self.is_busy:
            self.free_at = now
        try:
            if self.outbox:
                self._send(b"")
            elif events & READ and not self.is_busy:
                data = self.sock.recv(LONGEST_CALL - len(self.inbox))
                self.inbox += data
                if not data or (len(self.inbox) == LONGEST_CALL and b"\0" not in self.inbox):
                    self._callers.close(self)
                    return
            elif events & ~READ:
                self._callers.close(self)
                return
        except BlockingIOError:
            return
        except OSError:
            self._callers.close(self)
            return
        self._watch()
        self._callers.go_on(self)

    def _watch(self) -> None:
        """Have the loop wait for room, for the next call, or, during an answer, for neither.

        What a caller sends meanwhile waits in its socket.
        """
        events = WRITE if self.outbox else 0 if self.is_busy else READ
        if events != self._watched:
            self._watched = events
            self._callers.watch(self, events)

    def step(self) -> bool:
        """Do one step of an answer, or begin that of the next call; return whether there was any.

        Raises OSError if the caller has gone, NoCallError if what it sent is no call.
        """
        was_any = self._step()
        self._watch()
        return was_any

    def _step(self) -> bool:
        if self.outbox:
            return False
        if self.answer is None:
            return self._begin()
        try:
            reply = next(self.answer)
        except StopIteration:
            self._end({"parameters": self._pending or {}})
            return True
        except CallError as error:
            self._end(error.message)
            return True
        except Exception as error:  # noqa: BLE001 - a mistake of ours costs one caller its answer
            self._callers.report(ControlFailed(described(error), traceback_of(error)))
            self._end({"error": FAILED, "parameters": {"reason": described(error)}})
            return True
        self.is_waiting = reply == WAIT
        if reply != WAIT:
            self._keep_last(reply)
        return not self.is_waiting

    def _keep_last(self, found: Reply | Written | list[Reply] | None) -> None:
        """Send the replies before the last one, which may be the last of all."""
        replies: list[Reply | Written] = [self._pending] if self._pending is not None else []
        replies += found if isinstance(found, list) else [found] if found is not None else []
        if replies:
            self._pending = replies.pop()
            self._put(*({"parameters": each, "continues": True} for each in replies))

    def _begin(self) -> bool:
        """Begin the answer to the next call, if a whole one has come."""
        message, end, rest = bytes(self.inbox).partition(b"\0")
        if not end:
            return False
        self.inbox = bytearray(rest)
        call = read_call(message)
        self._more, self._oneway = call.more, call.oneway
        try:
            self.answer = self._callers.methods(call.method, call.parameters, self)
        except CallError as error:
            self._end(error.message)
        return True

    def _end(self, message: dict[str, Any]) -> None:
        self.answer = self._pending = None
        self.is_waiting = False
        self._put(message)

    def _put(self, *messages: dict[str, Any]) -> None:
        if messages and not self._oneway:
            texts = map(_text, messages)
            self._send("".join(f"{text}\0" for text in texts).encode())

    def _send(self, data: bytes) -> None:
        """Send, and keep what the socket does not take; no step is done until that is sent."""
        left = self.outbox or memoryview(data)
        try:
            sent = self.sock.send(left, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        self.outbox = left[sent:]


class Callers:
    """All callers of one control socket. Owned by the event loop.

    One step of one answer is done at a time, with a pause after it. At the limit no caller is
    accepted whose place would have to be taken from one that is being answered, or was just now.
    """

    __slots__ = (
        "_callers",
        "_is_listening",
        "_listening",
        "_loop",
        "_step_at",
        "_steps",
        "_sweep_at",
        "methods",
        "report",
    )

    def __init__(
        self, listening: socket.socket, loop: EventLoop, methods: Methods, report: Report
    ) -> None:
        self.methods = methods
        self.report = report
        self._listening = listening
        self._loop = loop
        self._callers: dict[int, Caller] = {}
        self._steps: deque[Caller] = deque()
        """Those whose answers have something to do."""
        self._step_at = 0.0
        """When the pause after the last step ends."""
        self._is_listening = True
        self._sweep_at = inf

    def make_room(self, now: float) -> bool:
        """Return whether one more caller may be accepted; end the silence of another one for it."""
        if len(self._callers) < MOST_CALLERS:
            return True
        silent = [
            each
            for each in self._callers.values()
            if not each.is_busy and now - each.active_at >= SILENT_SECONDS
        ]
        if not silent:
            self._is_listening = False
            self._loop.modify(self._listening.fileno(), 0)
            self._sweep_at = min(self._sweep_at, now + SILENT_SECONDS)
            self._loop.call_at(self._sweep_at, self)
            return False
        self.close(min(silent, key=lambda each: each.active_at))
        return True

    def accept(self, sock: socket.socket, now: float) -> None:
        """Serve a caller that has been accepted."""
        sock.setblocking(False)
        caller = Caller(self, sock, credentials(sock)[1], now)
        try:
            self._loop.add(sock.fileno(), caller)
        except OSError:  # fs.epoll.max_user_watches
            sock.close()
            return
        self._callers[sock.fileno()] = caller
        if self._sweep_at == inf:
            self._sweep_at = now + SWEEP_SECONDS
            self._loop.call_at(self._sweep_at, self)

    def watch(self, caller: Caller, events: int) -> None:
        """Watch a caller for room, or for its next call."""
        with suppress(OSError):
            self._loop.modify(caller.sock.fileno(), events)

    def go_on(self, caller: Caller) -> None:
        """Do the steps of a caller's answer, each after a pause."""
        if caller not in self._steps:
            self._steps.append(caller)
        self._loop.call_at(self._step_at, self)

    def run_due(self, now: float) -> float:
        """Do one step; close those that are silent or stuck."""
        if self._steps:
            self._step(self._steps.popleft(), now)
            self._step_at = now + PAUSE_SECONDS
        if now >= self._sweep_at:
            self._sweep(now)
        return min(self._step_at, self._sweep_at) if self._steps else self._sweep_at

    def _step(self, caller: Caller, now: float) -> None:
        if caller.sock.fileno() < 0:
            return
        try:
            if caller.step():
                self._steps.append(caller)
                caller.active_at = now
        except (OSError, NoCallError):
            self.close(caller)
        except Exception as error:  # noqa: BLE001 - a mistake of ours costs one caller its answer
            self.report(ControlFailed(described(error), traceback_of(error)))
            self.close(caller)

    def _sweep(self, now: float) -> None:
        for caller in list(self._callers.values()):
            if caller.is_waiting:
                continue
            limit = STUCK_SECONDS if caller.outbox else IDLE_SECONDS
            is_stuck = caller.is_busy and now - caller.free_at >= BUSY_SECONDS
            if is_stuck or now - caller.active_at >= limit:
                self.close(caller)
        self._listen_again()
        self._sweep_at = now + SWEEP_SECONDS if self._callers else inf

    def _listen_again(self) -> None:
        if not self._is_listening:
            self._is_listening = True
            self._loop.modify(self._listening.fileno(), READ)

    def close(self, caller: Caller) -> None:
        """Close a caller's connection."""
        self._callers.pop(caller.sock.fileno(), None)
        self._loop.remove(caller.sock.fileno())
        caller.answer = None
        caller.sock.close()
        self._listen_again()

    def close_all(self) -> None:
        """Close all connections; a result of a reload that is known is sent before."""
        for caller in list(self._callers.values()):
            if caller in self._steps:
                with suppress(OSError, NoCallError):
                    caller.step()  # its result
                    caller.step()  # the end of the answer
            self.close(caller)
