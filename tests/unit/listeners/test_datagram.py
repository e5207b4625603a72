"""netsrvd.listeners.datagram: what it makes of errors and of time; tests/wire has the rest"""

import errno
import socket
from collections.abc import Iterator
from math import inf

import pytest

from netsrvd.admission.datagrams import DatagramGate
from netsrvd.events.flows import FlowsUntold, ReceiveTrouble
from netsrvd.listeners.accept_errors import OWN_ERRORS
from netsrvd.listeners.datagram import PEER_ERRORS, Receiver
from netsrvd.listeners.inlet import Inlet
from netsrvd.services.echo import Datagrams
from netsrvd.settings import ListenerSettings
from tests.support.listening import failure
from tests.support.patience import SECONDS, eventually
from tests.support.reports import Failures, Reports
from tests.support.waiting import wait_end

SETTINGS = ListenerSettings("lab", flow_seconds=30.0)


class Post:
    """A receiver whose thread is this one, with one real socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.reports = Reports()
        gate = DatagramGate(SETTINGS, (), lambda _: False)
        self.receiver = Receiver(SETTINGS, gate, Datagrams(), self.reports, Failures())
        self.receiver.open(sock)
        self.receiver.duty.mailbox.deliver()
        [self.inlet] = self.receiver._inlets.values()


@pytest.fixture
def post() -> Iterator[Post]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        made = Post(sock)
        yield made
        made.receiver.stop()
        wait_end(made.receiver.duty)


def fail(post: Post, patch: pytest.MonkeyPatch, number: int, now: float = 100.0) -> None:
    """Have the next look at the socket fail."""

    def serve(self: Inlet, now: float) -> None:
        raise failure(number)

    with patch.context() as context:
        context.setattr(Inlet, "serve", serve)
        post.receiver._serve(post.inlet, now)


@pytest.mark.parametrize("number", sorted({*errno.errorcode} - OWN_ERRORS), ids=errno.errorcode.get)
def test_a_passing_error_of_receiving_is_told_once(
    post: Post, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No error but those of a bug ends the loop; one that earlier answers met does not pause it."""
    for now in (100.0, 100.2):
        fail(post, monkeypatch, number, now)
    [trouble] = post.reports.events
    assert isinstance(trouble, ReceiveTrouble)
    assert (trouble.local_address, trouble.local_port) == post.inlet.local
    assert bool(trouble.pause_ms) == (number not in PEER_ERRORS)
    assert post.receiver._trouble.pausing(100.2) == (number not in PEER_ERRORS)
    assert not any(vars(post.receiver.counters).values())


@pytest.mark.parametrize("number", [errno.EBADF, errno.ENOTSOCK, errno.EFAULT])
def test_other_errors_of_receiving_end_the_thread(
    post: Post, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What speaks of the socket itself is a bug."""
    with pytest.raises(OSError, match=rf"\[Errno {number}\]"):
        fail(post, monkeypatch, number)


def test_the_loop_sleeps_while_there_is_nothing_to_do(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without flows and trouble it waits for ever; with flows for the sweep."""
    receiver, inlet = post.receiver, post.inlet
    assert receiver._due_at == inf
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"x", inlet.local)
        receiver._serve(inlet, 100.0)
    assert receiver._due_at == 105.0
    fail(post, monkeypatch, errno.ENOMEM)
    assert receiver._due_at == pytest.approx(100.1)
    receiver._look_around(105.1)
    assert receiver._due_at == pytest.approx(110.1)
    receiver._look_around(131.0)
    assert receiver.flows == 0
    assert receiver._due_at == inf


def test_flows_without_records_are_told_together(post: Post) -> None:
    """The next look around tells how many there were, once."""
    post.receiver._desk.flows_untold = 7
    post.receiver._sweep_at = 0.0
    for _ in range(2):
        post.receiver._look_around(100.0)
    assert post.reports.events == [FlowsUntold("lab", 7)]


def test_a_socket_may_be_closed_alone(post: Post) -> None:
    """Its flows are summed up with the reload as their reason; the thread goes on without it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.sendto(b"x", post.inlet.local)
        post.receiver._serve(post.inlet, 100.0)
    post.receiver.close(post.inlet.sock)
    post.receiver.duty.mailbox.deliver()
    assert post.reports.kinds == ["FlowBegan", "FlowEnded"]
    assert post.inlet.sock.fileno() < 0
    assert post.receiver.flows == 0


def test_a_pause_leaves_what_comes_in_the_buffer(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it lasts the sockets are not looked at; what came meanwhile is answered after it."""
    receiver = post.receiver
    receiver.duty.start()
    receiver.pause(paused=True)
    for _ in range(2):
        assert receiver.duty.settle(SECONDS)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.settimeout(SECONDS)
        peer.sendto(b"x", post.inlet.local)
        for _ in range(3):
            assert receiver.duty.settle(SECONDS)
        assert receiver.counters.datagrams_received == 0
        receiver.pause(paused=False)
        eventually(lambda: receiver.counters.datagrams_received == 1, "the datagram")
