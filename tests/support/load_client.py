"""Clients that run by themselves inside a machine: `load_client.py MODE COUNT MESSAGES`.

`tcp` and `udp`: COUNT sockets stay open and have message after message echoed, each checked and
timed. `visits`: COUNT clients connect, have MESSAGES messages echoed one after the other, shut down
their side, read to the end and come again.

A line on standard input has them go on for that number of seconds, an empty one until the next
line; then a line of JSON tells what happened meanwhile. When standard input ends they leave, and a
last line tells what each socket that stayed open has sent in all, by its port.
"""

import json
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic

ADDRESS = "127.0.0.1", 51423
PATIENCE_SECONDS = 60
ROUND_SECONDS = 0.01
"""How often a socket that stays open sends a message."""

PAUSE_SECONDS = 0.02
"""How long a visitor waits between two messages, and before it comes again; the last of them waits
twice as long as the first, lest they go in step.
"""

MESSAGE_BYTES = 1000

ORDERS = sys.stdin.buffer.raw
"""Not buffered: select(2) would not see a line that was read along with the one before."""

Figures = dict[str, object]


def message(*words: object) -> bytes:
    """Return a message that no other one is like."""
    return " ".join(map(str, words)).encode().ljust(MESSAGE_BYTES, b".")


def times(took: list[float]) -> Figures:
    """Return how many there were, and how long they took."""
    took.sort()
    at = {"median": 50, "most": 99, "longest": 100} if took else {}
    return {"count": len(took)} | {
        name: took[min(len(took) * percent // 100, len(took) - 1)] for name, percent in at.items()
    }


class Talker:
    """A socket that stays open."""

    def __init__(self, kind: socket.SocketKind) -> None:
        self.sock = socket.socket(socket.AF_INET, kind)
        self.sock.settimeout(PATIENCE_SECONDS)
        self.sock.connect(ADDRESS)
        self.port = self.sock.getsockname()[1]
        self.sent_bytes = 0

    def ask(self) -> None:
        """Send the next message."""
        self.question, self.answer = message(self.port, self.sent_bytes), b""
        self.asked_at = monotonic()
        self.sock.sendall(self.question)
        self.sent_bytes += MESSAGE_BYTES

    def hear(self) -> float:
        """Read what has come; return how long the answer took once it is complete, else 0."""
        self.answer += self.sock.recv(65536)
        took = monotonic() - self.asked_at
        if not self.question.startswith(self.answer or b"the end"):
            raise SystemExit(f"sent {self.question!r}, got {self.answer!r}")
        return took if self.answer == self.question else 0

    def leave(self) -> None:
        """Shut down our side, and see that nothing but the end comes from the other."""
        if self.sock.type == socket.SOCK_STREAM:
            self.sock.shutdown(socket.SHUT_WR)
            if self.sock.recv(1):
                raise SystemExit("more came back than was sent")
        self.sock.close()


class Talk:
    """All sockets that stay open, each with one message on its way at once."""

    def __init__(self, kind: socket.SocketKind, count: int) -> None:
        self.talkers = {each.sock.fileno(): each for each in (Talker(kind) for _ in range(count))}
        self.epoll = select.epoll()
        for descriptor in self.talkers:
            self.epoll.register(descriptor, select.EPOLLIN)

    def go_on(self, ended: Callable[[float], bool]) -> Figures:
        """Send, check and time messages until it has ended."""
        took: list[float] = []
        next_at = monotonic()
        while not ended(max(0, next_at - monotonic())):
            next_at = max(next_at + ROUND_SECONDS, monotonic())
            took += self.round()
        return times(took)

    def round(self) -> Iterator[float]:
        """Have one message of everybody echoed; yield how long each took."""
        for talker in self.talkers.values():
            talker.ask()
        left = len(self.talkers)
        while left:
            ready = self.epoll.poll(PATIENCE_SECONDS)
            if not ready:
                raise SystemExit(f"nothing comes back any more, {left} messages are missing")
            for descriptor, _ in ready:
                if took := self.talkers[descriptor].hear():
                    left -= 1
                    yield took

    def leave(self) -> Figures:
        """End."""
        for talker in self.talkers.values():
            talker.leave()
        return {"bytes": {talker.port: talker.sent_bytes for talker in self.talkers.values()}}


class Visits:
    """Clients that come and go, a thread each. What they find wrong they tell by its name."""

    def __init__(self, count: int, messages: int) -> None:
        self.count, self.messages = count, messages
        self.over = threading.Event()

    def go_on(self, ended: Callable[[float], bool]) -> Figures:
        """Come and go until it has ended."""
        self.over.clear()
        self.took: list[float] = []
        self.faults: list[str] = []
        threads = [threading.Thread(target=self.visitor, args=(n,)) for n in range(self.count)]
        for thread in threads:
            thread.start()
        while not ended(PATIENCE_SECONDS):
            pass
        self.over.set()
        for thread in threads:
            thread.join()
        return times(self.took) | {"faults": self.faults}

    def visitor(self, number: int) -> None:
        """Be one of the clients."""
        pause = PAUSE_SECONDS * (1 + number / self.count)
        while not self.over.wait(pause):
            began = monotonic()
            try:
                sock = socket.create_connection(ADDRESS, PATIENCE_SECONDS)
            except OSError as error:
                self.faults.append(f"refused: {error}")
                continue
            with sock:
                fault = self.exchange(sock, pause)
            if fault:
                self.faults.append(fault)
            else:
                self.took.append(monotonic() - began)

    def exchange(self, sock: socket.socket, pause: float) -> str:
        """Have the messages echoed, to the end; return what is wrong with that, or nothing."""
        try:
            for count in range(self.messages):
                if count:
                    self.over.wait(pause)
                question, answer = message(sock.getsockname(), count, monotonic()), b""
                sock.sendall(question)
                while len(answer) < len(question):
                    piece = sock.recv(65536)
                    if not piece:
                        return "broken: the end came early"
                    answer += piece
                if answer != question:
                    return f"changed: sent {question!r}, got {answer!r}"
            sock.shutdown(socket.SHUT_WR)
            return "changed: more came back" if sock.recv(1) else ""
        except TimeoutError:
            return "silent"
        except OSError as error:
            return f"broken: {error}"

    def leave(self) -> Figures:
        """End; nobody is there."""
        return {}


def ended_by(line: bytes) -> Callable[[float], bool]:
    """Return what waits a while and tells whether it ends, after the seconds in `line` or at the
    next line.
    """
    until = monotonic() + float(line) if line.strip() else None

    def ended(patience: float) -> bool:
        if until is not None:
            patience = min(patience, max(0, until - monotonic()))
        watched = [ORDERS] if until is None else []
        if select.select(watched, [], [], patience)[0]:
            ORDERS.readline()
            return True
        return until is not None and monotonic() >= until

    return ended


def main(mode: str, count: int, messages: int) -> None:
    """Do what standard input says."""
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    load = Talk(kinds[mode], count) if mode in kinds else Visits(count, messages)
    for line in iter(ORDERS.readline, b""):
        print(json.dumps(load.go_on(ended_by(line))), flush=True)
    print(json.dumps(load.leave()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
