"""netsrvd.listeners.datagram: its bookkeeping, on a batch that is none; tests/wire has the rest"""

import errno
import socket
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace

import pytest

from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import FlowBegan, FlowEnded, FlowRefused, ReceiveTrouble
from netsrvd.listeners.datagram import PASSING_ERRORS, PEER_ERRORS, Receiver
from netsrvd.services.echo import Datagrams
from netsrvd.settings import ListenerSettings
from tests.support.listening import failure
from tests.support.reports import Failures, Reports

SETTINGS = ListenerSettings("lab", flow_seconds=30.0)


@dataclass
class Letter:
    """One datagram of a test: from whom, how long, and what becomes of its answer."""

    peer: str
    size: int = 10
    truncated: bool = False
    error: int = 0


@dataclass
class FakeBatch:
    """A batch of what the test puts into it. An envelope is the peer's host."""

    letters: list[Letter] = field(default_factory=list)
    error: OSError | None = None
    sent: list[int] = field(default_factory=list)
    redirected: list[tuple[str, int]] = field(default_factory=list)

    def receive(self, descriptor: int) -> int:
        if self.error:
            raise self.error
        return len(self.letters)

    def envelopes(self, count: int) -> list[bytes]:
        return [letter.peer.encode() for letter in self.letters]

    def lengths(self, count: int) -> list[int]:
        return [letter.size for letter in self.letters]

    def truncated(self, count: int) -> list[int]:
        return [index for index, letter in enumerate(self.letters) if letter.truncated]

    def peer(self, envelope: bytes) -> tuple[str, int]:
        return envelope.decode(), 40_000

    def asked(self, envelope: bytes) -> str:
        return "fe80::9" if envelope.startswith(b"fe80") else "192.0.2.9"

    def local(self, envelope: bytes) -> str:
        return "0.0.0.0" if envelope == b"192.0.2.77" else self.asked(envelope)

    def reply_as_received(self, count: int) -> None:
        assert count == len(self.letters)

    def pin(self, index: int, envelope: bytes) -> None:
        self.redirected.append(("pin", index))

    def answer_from_asked(self, index: int, envelope: bytes) -> None:
        self.redirected.append(("from asked", index))

    def send(self, descriptor: int, start: int, stop: int) -> int:
        """Take answers up to the first that has an error."""
        for index in range(start, stop):
            if self.letters[index].error:
                if index == start:
                    raise failure(self.letters[index].error)
                return index - start
            self.sent.append(index)
        return stop - start


class Gate:
    """Refuses one host, until it is told otherwise."""

    def __init__(self, refused: str = "192.0.2.66") -> None:
        self.refused = refused

    def refusal(self, host: str) -> tuple[str, str] | None:
        return ("access", "rule") if host == self.refused else None

    def datagram_refusal(self, host: str, asked: str, local: str) -> tuple[str, str] | None:
        return self.refusal(host)


class Post:
    """A receiver whose thread is this one."""

    def __init__(self, sock: socket.socket) -> None:
        self.reports, self.batch = Reports(), FakeBatch()
        self.receiver = Receiver(
            sock, SETTINGS, Gate(), Datagrams(), self.reports, Failures(), payload_bytes=64
        )
        self.receiver._batch = self.batch  # type: ignore[assignment]

    def deliver(self, *letters: Letter, now: float = 100.0) -> list[int]:
        """Receive these datagrams; return the indexes of those that were answered."""
        self.batch.letters, self.batch.sent = list(letters), []
        self.receiver._serve(0, now)
        return self.batch.sent

    def ended(self) -> dict[str, FlowEnded]:
        """Return the summaries so far, by the peers' hosts."""
        found = [event for event in self.reports.events if isinstance(event, FlowEnded)]
        return {event.peer_address: event for event in found}


@pytest.fixture
def post() -> Iterator[Post]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        made = Post(sock)
        yield made
        made.receiver.duty.join()


def test_a_peer_has_a_record_when_it_comes_and_one_when_it_is_silent(post: Post) -> None:
    """However many datagrams come there are two records, the second with the sums."""
    for now in (100.0, 101.0, 102.5):
        assert post.deliver(Letter("192.0.2.1", 7), Letter("192.0.2.1", 0), now=now) == [0, 1]
    assert post.reports.kinds == ["FlowBegan"]
    post.receiver._sweep(132.4)
    assert post.reports.kinds == ["FlowBegan"]
    post.receiver._sweep(140.0)
    [ended] = post.ended().values()
    assert (ended.reason, ended.seconds) == ("silent", 2.5)
    assert (ended.datagrams_received, ended.datagrams_sent) == (6, 6)
    assert (ended.bytes_received, ended.bytes_sent) == (21, 21)
    assert post.receiver.flows == 0


def test_what_is_not_answered_is_left_out_of_the_batch(post: Post) -> None:
    """Refused peers and truncated datagrams get nothing; the others get theirs, in their order."""
    sent = post.deliver(
        Letter("192.0.2.66"),
        Letter("192.0.2.1"),
        Letter("192.0.2.2", truncated=True),
        Letter("192.0.2.66", truncated=True),
        Letter("192.0.2.3"),
    )
    assert sent == [1, 4]
    post.receiver._sum_up()
    ended = post.ended()
    assert (ended["192.0.2.66"].datagrams_refused, ended["192.0.2.66"].datagrams_truncated) == (
        2,
        0,
    )
    assert ended["192.0.2.2"].datagrams_truncated == 1
    assert [each.datagrams_sent for each in ended.values()] == [0, 1, 0, 1]
    counters = post.receiver.counters
    assert (counters.datagrams_received, counters.datagrams_sent) == (5, 2)
    assert (counters.datagrams_refused, counters.datagrams_truncated) == (2, 1)
    assert (counters.bytes_received, counters.bytes_sent) == (50, 20)


def test_an_error_of_sending_concerns_one_peer(post: Post) -> None:
    """The answers before and after it are sent; the peer's summary names the error."""
    sent = post.deliver(
        Letter("192.0.2.1"),
        Letter("192.0.2.2", error=errno.EPERM),
        Letter("192.0.2.3", error=errno.EMSGSIZE),
        Letter("192.0.2.4"),
    )
    assert sent == [0, 3]
    post.receiver._sum_up()
    ended = post.ended()
    assert ended["192.0.2.2"].error == "EPERM: Operation not permitted"
    assert (ended["192.0.2.2"].datagrams_sent, ended["192.0.2.2"].datagrams_unsent) == (0, 1)
    assert ended["192.0.2.1"].error == ""
    assert post.receiver.counters.datagrams_unsent == 2
    assert post.receiver.counters.bytes_sent == 20


def test_a_refused_peer_is_told_with_its_rule(post: Post) -> None:
    """The record of a flow that is not answered says why."""
    post.deliver(Letter("192.0.2.66"))
    [refused] = post.reports.events
    assert isinstance(refused, FlowRefused)
    assert (refused.reason, refused.rule) == ("access", "rule")


def test_some_answers_are_redirected(post: Post) -> None:
    """Link-local answers are pinned to their interface; an unknown source is filled in."""
    post.deliver(Letter("192.0.2.1"), Letter("fe80::1"), Letter("192.0.2.77"))
    assert post.batch.redirected == [("pin", 1), ("from asked", 2)]


def test_peers_cannot_make_the_table_grow(post: Post) -> None:
    """Beyond `max_flows` the peer that has been known for longest is summed up."""
    post.receiver._update(replace(SETTINGS, max_flows=2), Gate(), Datagrams())
    assert post.deliver(*(Letter(f"192.0.2.{number}") for number in (1, 2, 3))) == [0, 1, 2]
    assert [event.reason for event in post.ended().values()] == ["full"]
    assert [*post.ended()] == ["192.0.2.1"]
    assert post.receiver.flows == 2


def test_new_settings_are_for_known_peers_too(post: Post) -> None:
    """Peers who are judged differently now are summed up and begin anew; others go on."""
    post.deliver(Letter("192.0.2.1"), Letter("192.0.2.2"))
    post.receiver._update(replace(SETTINGS, name="new"), Gate("192.0.2.2"), Datagrams())
    assert {peer: event.reason for peer, event in post.ended().items()} == {"192.0.2.2": "reload"}
    assert post.deliver(Letter("192.0.2.1"), Letter("192.0.2.2")) == [0]
    assert post.reports.kinds == ["FlowBegan", "FlowBegan", "FlowEnded", "FlowRefused"]


class Broken(Datagrams):
    """A service with a bug."""

    def answer(self, batch: object, count: int) -> None:
        raise ZeroDivisionError("a bug")


def test_a_bug_in_a_service_leaves_one_batch_unanswered(post: Post) -> None:
    """The traceback is reported, everything of the batch is counted once, and the loop goes on."""
    post.receiver._update(SETTINGS, Gate(), Broken())
    letters = [Letter("192.0.2.1"), Letter("192.0.2.66"), Letter("192.0.2.2", truncated=True)]
    assert post.deliver(*letters) == []
    assert post.reports.kinds == ["FlowBegan", "FlowRefused", "FlowBegan", "ServiceFailed"]
    failed = post.reports.events[-1]
    assert isinstance(failed, ServiceFailed)
    assert "a bug" in failed.traceback
    post.receiver._sum_up()
    assert [each.datagrams_sent for each in post.ended().values()] == [0, 0, 0]
    assert post.receiver.counters.datagrams_unsent == 2
    assert post.receiver.counters.datagrams_sent == 0
    post.receiver._update(SETTINGS, Gate(), Datagrams())
    assert post.deliver(Letter("192.0.2.1")) == [0]


@pytest.mark.parametrize("number", sorted(PEER_ERRORS | PASSING_ERRORS), ids=errno.errorcode.get)
def test_a_passing_error_of_receiving_is_told_once(post: Post, number: int) -> None:
    """Errors that earlier answers met, or a shortage, do not end the loop; a shortage pauses it."""
    post.batch.error = failure(number)
    for now in (100.0, 100.2):
        post.receiver._serve(0, now)
    [trouble] = post.reports.events
    assert isinstance(trouble, ReceiveTrouble)
    assert bool(trouble.pause_ms) == (number in PASSING_ERRORS)
    assert post.receiver._trouble.pausing(100.2) == (number in PASSING_ERRORS)
    assert not any(astuple(post.receiver.counters))


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOTSOCK, errno.EFAULT])
def test_other_errors_of_receiving_end_the_thread(post: Post, number: int) -> None:
    """What speaks of the socket itself is a bug."""
    post.batch.error = failure(number)
    with pytest.raises(OSError, match=rf"\[Errno {number}\]"):
        post.receiver._serve(0, 100.0)


def test_a_wake_up_for_nothing_is_nothing(post: Post) -> None:
    """A datagram with a bad checksum may wake the loop and be gone."""
    assert post.deliver() == []
    assert post.reports.events == []


def test_the_loop_sleeps_while_there_is_nothing_to_do(post: Post) -> None:
    """Without flows and trouble it waits for ever; with flows for the sweep; congested, briefly."""
    receiver = post.receiver
    assert receiver._patience_ms(100.0) is None
    post.deliver(Letter("192.0.2.1"))
    assert receiver._patience_ms(100.0) == pytest.approx(5000, abs=2)
    post.batch.error = failure(errno.ENOMEM)
    receiver._serve(0, 100.0)
    assert receiver._patience_ms(100.0) == pytest.approx(100, abs=2)
    post.reports.congested = True
    assert receiver._patience_ms(100.0) == 20


def test_the_end_sums_up_what_is_left(post: Post) -> None:
    """Flows that are live when the daemon stops have their summary."""
    post.deliver(Letter("192.0.2.1"))
    post.receiver._sum_up()
    assert isinstance(post.reports.events[0], FlowBegan)
    assert post.ended()["192.0.2.1"].reason == "stop"
