"""netsrvd.listeners.inlet: its bookkeeping, on a batch that is none; tests/wire has the rest"""

import errno
import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import pytest

from netsrvd.admission.sources import Limits, Source
from netsrvd.counters import Counters
from netsrvd.events.connections import ServiceFailed
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.events.refusals import Refused
from netsrvd.listeners import desk as desk_module
from netsrvd.listeners import inlet as module
from netsrvd.listeners.contracts import Client
from netsrvd.listeners.desk import Desk
from netsrvd.listeners.inlet import Inlet
from netsrvd.listeners.refusals import Refusals
from netsrvd.services.echo import Datagrams
from netsrvd.settings import ListenerSettings
from tests.support.listening import failure
from tests.support.reports import Reports

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
    silent: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)

    def receive(self, descriptor: int) -> int:
        if self.error:
            raise self.error
        return len(self.letters)

    def envelopes(self, count: int) -> tuple[bytes, ...]:
        return tuple(letter.peer.encode() for letter in self.letters)

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

    def payload(self, index: int) -> memoryview:
        return memoryview(bytes([index not in self.silent]))

    def reply(self, index: int, answer: bytes, floor_bytes: int) -> int:
        self.answers[index] = min(len(answer), max(self.letters[index].size, floor_bytes))
        return self.answers[index]

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
    """Refuses one host; another one may ask once and no more."""

    def __init__(self, refused: str = "192.0.2.66") -> None:
        self.refused = refused
        self.inside: list[str] = []
        self.once = Source("192.0.2.11", Limits(1, 1))

    def update(self, settings: ListenerSettings, own_ports: Collection[int]) -> None:
        raise NotImplementedError

    def refusal(
        self, peer: tuple[str, int], asked: str, local: str, proxy: tuple[str, int] | None
    ) -> tuple[str, str] | None:
        return ("access", "rule") if peer[0] == self.refused else None

    def is_proxy(self, host: str) -> bool:
        raise NotImplementedError

    def is_unlogged(self, host: str) -> bool:
        return False

    def enter(self, host: str) -> Source:
        self.inside.append(host)
        return self.once if host == "192.0.2.11" else Source(host, None)

    def leave(self, name: str) -> None:
        self.inside.remove(name)

    def rule(self, reason: str) -> str:
        return f"rule of {reason}"


class Post:
    """An inlet whose thread is this one."""

    def __init__(self, sock: socket.socket) -> None:
        self.reports, self.batch, self.counters = Reports(), FakeBatch(), Counters()
        self.gate = Gate()
        refusals = Refusals(self.reports, SETTINGS, "udp")
        self.desk = Desk(SETTINGS, Datagrams(), self.gate, refusals, self.counters, self.reports)
        self.inlet = Inlet(sock, self.desk, payload_bytes=64)
        self.inlet.batch = self.batch  # type: ignore[assignment]

    def deliver(self, *letters: Letter, now: float = 100.0) -> list[int]:
        """Receive these datagrams; return the indexes of those that were answered."""
        self.batch.letters, self.batch.sent = list(letters), []
        self.inlet.serve(now)
        return self.batch.sent

    def ended(self) -> dict[str, FlowEnded]:
        """Return the summaries so far, by the peers' hosts."""
        found = [event for event in self.reports.events if isinstance(event, FlowEnded)]
        return {event.peer_address: event for event in found}


@pytest.fixture
def post() -> Iterator[Post]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        yield Post(sock)


def test_a_peer_has_a_record_when_it_comes_and_one_when_it_is_silent(post: Post) -> None:
    """However many datagrams come there are two records, the second with the sums."""
    for now in (100.0, 101.0, 102.5):
        assert post.deliver(Letter("192.0.2.1", 7), Letter("192.0.2.1", 0), now=now) == [0, 1]
    assert post.reports.kinds == ["FlowBegan"]
    post.inlet.sweep(132.4)
    assert post.reports.kinds == ["FlowBegan"]
    post.inlet.sweep(140.0)
    [ended] = post.ended().values()
    assert (ended.reason, ended.seconds) == ("silent", 2.5)
    assert (ended.datagrams_received, ended.datagrams_sent) == (6, 6)
    assert (ended.bytes_received, ended.bytes_sent) == (21, 21)
    assert len(post.inlet.flows) == 0


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
    post.inlet.end_all("stop")
    ended = post.ended()
    assert ended["192.0.2.2"].datagrams_truncated == 1
    assert [each.datagrams_sent for each in ended.values()] == [1, 0, 1]
    counters = post.counters
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
    post.inlet.end_all("stop")
    ended = post.ended()
    assert ended["192.0.2.2"].error == "EPERM: Operation not permitted"
    assert (ended["192.0.2.2"].datagrams_sent, ended["192.0.2.2"].datagrams_unsent) == (0, 1)
    assert ended["192.0.2.1"].error == ""
    assert post.counters.datagrams_unsent == 2
    assert post.counters.bytes_sent == 20


def test_a_refused_peer_is_told_with_its_rule(post: Post) -> None:
    """It has one record that says why, no flow, and no place in the table of flows."""
    for _ in range(3):
        post.deliver(Letter("192.0.2.66"), Letter("192.0.2.66"))
    [refused] = post.reports.events
    assert refused == Refused(
        *("lab", "echo", "udp", "192.0.2.66", 40_000, "192.0.2.9", post.inlet.local[1]),
        *("192.0.2.66", "access", "rule"),
    )
    assert post.inlet.flows == {}
    assert post.counters.datagrams_refused == 6
    assert post.gate.inside == []


def test_what_exceeds_a_limit_is_refused(post: Post) -> None:
    """Of a peer beyond its limits the datagrams within are answered; the others are counted in its
    flow, and told once as a refusal of its source.
    """
    assert post.deliver(Letter("192.0.2.11"), Letter("192.0.2.2"), Letter("192.0.2.11")) == [0, 1]
    assert post.deliver(Letter("192.0.2.11")) == []
    assert post.reports.kinds == ["FlowBegan", "FlowBegan", "Refused"]
    refused = post.reports.events[-1]
    assert isinstance(refused, Refused)
    assert (refused.source, refused.reason) == ("192.0.2.11", "rate")
    assert refused.rule == "rule of rate"
    post.inlet.end_all("stop")
    flow = post.ended()["192.0.2.11"]
    assert (flow.datagrams_received, flow.datagrams_refused, flow.datagrams_sent) == (3, 2, 1)
    assert (flow.bytes_received, flow.bytes_sent) == (30, 10)
    assert (post.counters.datagrams_refused, post.counters.datagrams_sent) == (2, 2)
    assert post.counters.bytes_sent == 20


def test_verdicts_are_remembered_within_bounds(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused peers cannot make the memory grow, and each of their datagrams is counted."""
    monkeypatch.setattr(module, "STRANGERS_KEPT", 3)
    for _ in range(2):
        for number in range(10):
            post.gate.refused = f"192.0.2.{number}"
            post.deliver(Letter(post.gate.refused))
            assert len(post.inlet._strangers) <= 3
    assert post.counters.datagrams_refused == 20
    assert len(post.reports.events) == 10


def test_forged_senders_cannot_flood_the_log(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many new flows a second have records; the others are answered, and counted."""
    monkeypatch.setattr(desk_module, "FLOW_RECORDS", 2)
    for second in (100.0, 101.0):
        letters = [Letter(f"10.0.{int(second)}.{number}") for number in range(5)]
        assert post.deliver(*letters, now=second) == [0, 1, 2, 3, 4]
    post.inlet.end_all("stop")
    assert post.reports.kinds.count("FlowBegan") == post.reports.kinds.count("FlowEnded") == 4
    assert post.desk.flows_untold == 6
    assert post.counters.flows == 10
    assert post.gate.inside == []


def test_some_answers_are_redirected(post: Post) -> None:
    """Link-local answers are pinned to their interface; an unknown source is filled in."""
    post.deliver(Letter("192.0.2.1"), Letter("fe80::1"), Letter("192.0.2.77"))
    assert post.batch.redirected == [("pin", 1), ("from asked", 2)]


def test_peers_cannot_make_the_table_grow(post: Post) -> None:
    """Beyond `max_flows` the peer that has been known for longest is summed up."""
    post.desk.settings = SETTINGS._replace(max_flows=2)
    assert post.deliver(*(Letter(f"192.0.2.{number}") for number in (1, 2, 3))) == [0, 1, 2]
    assert [event.reason for event in post.ended().values()] == ["full"]
    assert [*post.ended()] == ["192.0.2.1"]
    assert len(post.inlet.flows) == 2


def test_new_settings_are_for_known_peers_too(post: Post) -> None:
    """Peers who are refused now are summed up; who was refused is judged anew; others go on."""
    post.deliver(Letter("192.0.2.1"), Letter("192.0.2.2"), Letter("192.0.2.66"))
    post.desk.settings, post.gate.refused = SETTINGS._replace(name="new"), "192.0.2.2"
    post.inlet.rejudge()
    assert {peer: event.reason for peer, event in post.ended().items()} == {"192.0.2.2": "reload"}
    assert post.deliver(Letter("192.0.2.1"), Letter("192.0.2.2"), Letter("192.0.2.66")) == [0, 2]
    assert post.reports.kinds == [
        *("FlowBegan", "FlowBegan", "Refused", "FlowEnded", "Refused", "FlowBegan"),
    ]


class Broken(Datagrams):
    """A service with a bug."""

    as_received = False

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes:
        raise ZeroDivisionError("a bug")


class Talker(Datagrams):
    """A service that answers some."""

    as_received, reply_floor_bytes = False, 4

    def answer(self, payload: memoryview, client: Client, at: float) -> bytes | None:
        if client.peer[0] == "192.0.2.9":
            raise ZeroDivisionError("a bug")
        assert at > 1e9
        return b"a long answer" if payload[0] else None


def test_a_service_makes_answers_of_its_own(post: Post) -> None:
    """Each is cut to what was asked or to a floor; none is no error, and each is counted as it is;
    a bug leaves the one datagram without an answer.
    """
    post.desk.service = Talker()
    letters = [
        Letter("192.0.2.1", size=8),
        Letter("192.0.2.2", size=0),
        Letter("192.0.2.1", size=20),
    ]
    letters += [Letter("192.0.2.9", size=9), Letter("192.0.2.1", size=1)]
    post.batch.silent = {1}
    assert post.deliver(*letters) == [0, 2, 4]
    assert post.batch.answers == {0: 8, 2: 13, 4: 4}
    post.inlet.end_all("stop")
    one, two, nine = (post.ended()[f"192.0.2.{host}"] for host in (1, 2, 9))
    assert (one.datagrams_sent, one.bytes_received, one.bytes_sent) == (3, 29, 25)
    assert (two.datagrams_sent, two.bytes_sent, two.datagrams_unsent) == (0, 0, 0)
    assert (nine.datagrams_sent, nine.bytes_sent, nine.datagrams_unsent) == (0, 0, 1)
    assert (post.counters.datagrams_sent, post.counters.bytes_sent) == (3, 25)
    assert post.counters.datagrams_unsent == 1


def test_a_setting_raises_the_floor(post: Post) -> None:
    """`reply_floor` lets all of an answer out, and a lower one takes nothing from the service's."""
    post.desk.service = Talker()
    for floor, size in ((0, 4), (2, 4), (10, 10), (100, 13)):
        post.desk.settings = SETTINGS._replace(reply_floor_bytes=floor)
        post.deliver(Letter("192.0.2.1", size=1))
        assert post.batch.answers.pop(0) == size


def test_a_bug_in_a_service_leaves_datagrams_unanswered(post: Post) -> None:
    """The traceback of the first of a batch is reported, each is counted, and the loop goes on."""
    post.desk.service = Broken()
    letters = [Letter("192.0.2.1"), Letter("192.0.2.66"), Letter("192.0.2.2", truncated=True)]
    assert post.deliver(*letters) == []
    assert post.reports.kinds == ["FlowBegan", "Refused", "FlowBegan", "ServiceFailed"]
    failed = post.reports.events[-1]
    assert isinstance(failed, ServiceFailed)
    assert "a bug" in failed.traceback
    post.inlet.end_all("stop")
    assert [each.datagrams_sent for each in post.ended().values()] == [0, 0]
    assert (post.counters.datagrams_unsent, post.counters.datagrams_truncated) == (1, 1)
    assert post.counters.datagrams_sent == 0
    post.desk.service = Datagrams()
    assert post.deliver(Letter("192.0.2.1")) == [0]


def test_a_wake_up_for_nothing_is_nothing(post: Post) -> None:
    """A datagram with a bad checksum may wake the loop and be gone."""
    assert post.deliver() == []
    assert post.reports.events == []


def test_the_end_sums_up_what_is_left(post: Post) -> None:
    """Flows that are live when the daemon stops have their summary."""
    post.deliver(Letter("192.0.2.1"))
    post.inlet.end_all("stop")
    assert isinstance(post.reports.events[0], FlowBegan)
    assert post.ended()["192.0.2.1"].reason == "stop"
