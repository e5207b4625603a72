"""netsrvd.house, on parts that are none; tests/wire and tests/process have real ones"""

import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

from netsrvd import assembly, house
from netsrvd.config import changes
from netsrvd.counters import Counters
from netsrvd.events import DEBUG
from netsrvd.events.life import ThreadFailed, VisitImpossible
from netsrvd.events.sockets import ListeningEnded
from netsrvd.house import House
from netsrvd.listeners.connection import Connection
from netsrvd.listeners.inherited import Inherited
from netsrvd.listeners.proxies.lobby import Guest
from netsrvd.services.base import Present
from netsrvd.services.echo import Stream
from netsrvd.settings import Endpoint, ListenerSettings, LogSettings, Settings
from netsrvd.sockets.bind import Opened
from tests.support.listening import FakeSocket
from tests.support.logs import FakeLog
from tests.support.patience import SECONDS, eventually
from tests.support.planned import planned
from tests.support.waiting import wait_end

ONE = ListenerSettings("one", protocols=("tcp",), hosts=("127.0.0.1",), port=1)
TWO = ListenerSettings("two", protocols=("tcp",), hosts=("127.0.0.1",), port=2)
SETTINGS = Settings(listeners=(ONE, TWO), workers=2)


class FakeDuty:
    """A thread that is none; what is done with it is noted."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.name, self._steps = name, steps

    def start(self) -> None:
        self._steps.append(f"start {self.name}")

    def settle(self, seconds: float) -> bool:
        self._steps.append(f"settle {self.name}")
        return True

    def join(self, seconds: float) -> bool:
        self._steps.append(f"join {self.name}")
        return True


class FakeMover:
    """An acceptor that is none."""

    def __init__(self, name: str, steps: list[str]) -> None:
        self.duty = FakeDuty(name, steps)
        self.counters = Counters(accepted=1)
        self.settings: ListenerSettings
        self.answers: list[bool | None] = []
        self.waiting: list[Guest] = []
        self._steps = steps

    def opening(self, sock: object, addresses: object) -> Callable[[], None]:
        return lambda: self._steps.append(f"open {self.duty.name}")

    def close(self, sock: object) -> None:
        self._steps.append(f"close {self.duty.name}")

    def stop(self, left: list[Guest] | None = None) -> None:
        self._steps.append(f"stop {self.duty.name}")
        if left is not None:
            left += self.waiting

    def pause(self, *, paused: bool) -> None:
        self._steps.append(f"{'pause' if paused else 'resume'} {self.duty.name}")

    def adopt(self, connection: Connection) -> None:
        self._steps.append(f"adopt {connection.identity} {self.duty.name}")

    def adopt_guest(self, guest: Guest) -> None:
        self._steps.append(f"adopt guest {guest.peer[0]} {self.duty.name}")

    def is_answering(self) -> bool | None:
        self._steps.append(f"visit {self.duty.name}")
        return self.answers.pop(0) if self.answers else True


class Site:
    """A house whose acceptors and log are none; its workers and its reporter are real."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.log = FakeLog()
        self.woken: list[bool] = []
        self.ports: list[Any] = []
        patch.setitem(assembly.LOGS, "stderr", lambda: self.log)
        patch.setattr(house, "Acceptor", FakeMover)
        patch.setattr(house, "build_mover", self.build_mover)
        patch.setattr(house, "update_mover", self.update_mover)
        wanted = changes.endpoints(SETTINGS, ())
        sockets = self.opened(wanted)
        self.house = House(
            SETTINGS,
            sockets,
            self.services(SETTINGS),
            100,
            "stderr",
            lambda: self.woken.append(True),
        )

    def build_mover(self, protocol: str, listener: ListenerSettings, *more: Any) -> FakeMover:
        self.ports.append(more[4])
        return FakeMover(listener.name, self.steps)

    def services(self, settings: Settings) -> assembly.Services:
        return assembly.prepare_services(settings, Present())

    def update_mover(self, mover: FakeMover, listener: ListenerSettings, *_: object) -> None:
        self.steps.append(f"update {mover.duty.name}")
        mover.settings = listener

    def opened(self, endpoints: changes.Endpoints) -> assembly.Sockets:
        sock: Any = FakeSocket()
        return {
            end: [Opened(sock, end.protocol, listener, "bound")]
            for end, listener in endpoints.items()
        }

    def end(self) -> None:
        """End the real threads."""
        self.house.stop_workers()
        self.house.stop_reporting()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Site(monkeypatch)
    yield made
    made.end()


def test_those_who_take_clients_start_last(site: Site) -> None:
    """The log starts first, then the workers, then who hands them their clients."""
    names = [duty.name for duty in site.house.duties()]
    assert names == ["one", "two", "worker 1", "worker 2", "reporter"]
    assert site.steps == ["open one", "open two"]
    site.house.start()
    assert site.steps[2:] == ["start two", "start one"]
    assert all(duty.join(0) is False for duty in site.house.duties()[2:])


def test_a_stop_asks_all_before_it_waits_for_any(site: Site) -> None:
    """Nobody new is taken; then the workers are asked to tell when they are empty."""
    site.house.start()
    site.steps.clear()
    site.house.stop_listening(0.0)
    assert site.steps == ["stop one", "stop two", "join one", "join two"]
    assert site.house.stop_workers() == 0
    assert site.woken
    assert site.house.drained


def test_a_reload_closes_keeps_and_opens(site: Site) -> None:
    """What is new is started before anything is closed, what is gone is stopped and told, what
    stays is updated and has taken note before the workers hear of it; at last what is new is
    served.
    """
    site.house.start()
    site.steps.clear()
    new = ListenerSettings("new", protocols=("tcp",), hosts=("127.0.0.1",), port=3)
    stricter = TWO._replace(allow=())
    settings = Settings(listeners=(stricter, new), log=LogSettings(level="debug"))
    plan = planned(SETTINGS, settings)
    site.house.apply(plan, site.opened(plan.open), [], site.services(settings), 100, settings)
    assert site.steps == [
        *("start new", "close one", "settle one", "stop one", "join one"),
        *("update two", "settle two", "settle new", "open new"),
        *("settle two", "settle new"),
    ]
    assert site.house.reporter.level == DEBUG
    assert [duty.name for duty in site.house.duties()][:2] == ["two", "new"]
    site.end()
    assert site.log.texts == [ListeningEnded("one", "tcp", "127.0.0.1", 51423).text()]


def test_an_address_that_the_kernel_lacks_can_be_closed(site: Site) -> None:
    """Without IPv6 a listener on all addresses has sockets of IPv4 alone, and goes all the same."""
    everywhere = ListenerSettings("all", protocols=("tcp",), port=4)
    one, both = Settings(listeners=(ONE,)), Settings(listeners=(ONE, everywhere))
    opening = {end: each for end, each in planned(one, both, ()).open.items() if end.host != "::"}
    plan = planned(both, one, ())
    assert len(plan.close) == 2
    site.house._services = site.services(both)
    site.house._open(site.opened(opening))
    site.house.apply(plan, {}, [], site.services(one), 100, one)
    assert ("stop all" in site.steps, "update one" in site.steps) == (True, True)
    assert not [end for end in site.house._sockets if end.listener == "all"]


def test_a_listener_of_two_sockets_is_updated_once(site: Site) -> None:
    """Its thread gets the new settings once, however many addresses it serves."""
    both = TWO._replace(hosts=("127.0.0.1", "::1"))
    before, after = Settings(listeners=(both,)), Settings(listeners=(both._replace(allow=()),))
    plan = planned(before, after, ())
    assert len(plan.keep) == 2
    site.steps.clear()
    site.house.apply(plan, {}, [], site.services(after), 100, after)
    assert site.steps.count("update two") == 1


def test_reloads_without_end_cost_nothing(site: Site) -> None:
    """What a closed listener counted stays in the sums, and its port is used again."""
    plans = [planned(SETTINGS, Settings(listeners=(TWO,)), ())]
    plans.append(planned(Settings(listeners=(TWO,)), SETTINGS, ()))
    services = site.services(SETTINGS)
    for plan in plans * 5:
        site.house.apply(plan, site.opened(plan.open), [], services, 100, SETTINGS)
    assert site.house.counters().accepted == 2 + 5
    assert len({id(port) for port in site.ports}) == 2


def test_a_listener_that_moves_keeps_its_thread(site: Site) -> None:
    """A second address goes to the thread that is there; when the first one closes, the thread
    goes on with what it has counted.
    """
    moved = ONE._replace(hosts=("127.0.0.2",))
    before, after = Settings(listeners=(ONE, TWO)), Settings(listeners=(moved, TWO))
    site.steps.clear()
    plan = planned(before, after)
    site.house.apply(plan, site.opened(plan.open), [], site.services(after), 100, after)
    assert site.steps[:2] == ["close one", "settle one"]
    assert site.steps[-3:] == ["open one", "settle one", "settle two"]
    assert "stop one" not in site.steps
    assert site.house.counters().accepted == 2


def test_sums_are_those_of_all_threads(site: Site) -> None:
    """The status line counts every thread."""
    site.house.staff.workers[0].counters.bytes_sent = 3
    site.house.staff.workers[1].counters.bytes_sent = 4
    assert site.house.counters() == Counters(accepted=2, bytes_sent=7)
    assert (site.house.connections, site.house.flows) == (0, 0)


def test_what_systemd_passed_is_known(site: Site) -> None:
    """Endpoints without a port are those that a reload must not bind."""
    assert site.house.passed == []
    site.house._open(site.opened({Endpoint("one", "udp"): ONE}))
    assert [(one.listener.name, one.protocol) for one in site.house.passed] == [("one", "udp")]
    assert {end.protocol for end in site.house.bound} == {"tcp"}


def test_a_failed_thread_is_told_and_wakes_the_daemon(site: Site) -> None:
    """Its traceback goes to the log and to whoever ends the process."""
    site.house.start()
    site.house.failed("worker 1", ZeroDivisionError("a bug"))
    assert site.woken == [True]
    [failure] = site.house.failures
    assert "worker 1 failed: ZeroDivisionError('a bug')" in failure
    assert failure.endswith("ZeroDivisionError: a bug\n")
    site.house.stop_reporting()
    expected = ThreadFailed("worker 1", "ZeroDivisionError('a bug')", "").text()
    assert site.log.texts == [expected]
    wait_end(site.house.reporter.duty)


# --- connections that come from elsewhere, and go -----------------------------------------------


class Clients:
    """Connections of the process before, with a client at the far end of each."""

    def __init__(self) -> None:
        self.far: list[socket.socket] = []

    def connection(self, listener: str = "one") -> Connection:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.settimeout(SECONDS)
        self.far.append(far)
        settings, now = ListenerSettings(listener), monotonic()
        name = f"b-{len(self.far)}"
        return Connection(near, name, ("::1", 1), ("::1", 7), settings, Stream, list, now)

    def answered(self) -> list[bool]:
        """Return who of them is served."""
        for far in self.far:
            far.sendall(b"x")
        return [far.recv(1) == b"x" for far in self.far]


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    for far in made.far:
        far.close()


def inherited(connections: Iterable[Connection], guests: Sequence[Guest] = ()) -> Inherited:
    """Return what a process left that had these."""
    return Inherited([*connections], [*guests], 0, 0.5, [])


def test_a_listener_adopts_its_own(site: Site, clients: Clients) -> None:
    """Each connection goes to the acceptor whose listener has let it in."""
    site.steps.clear()
    connections = [clients.connection(name) for name in ("two", "one")]
    site.house.adopt(inherited(connections))
    assert site.steps == ["adopt b-1 two", "adopt b-2 one"]
    for connection in connections:
        connection.sock.close()


def test_whose_listener_is_gone_goes_on(site: Site, clients: Clients) -> None:
    """The workers have them in turn; each takes a place, there or not, and gives it back."""
    site.house._places.resize(2)
    site.house.adopt(inherited(clients.connection("old") for _ in range(3)))
    site.house.start()
    assert clients.answered() == [True] * 3
    assert [worker.live for worker in site.house.staff.workers] == [2, 1]
    assert not site.house._places.take()
    for far in clients.far:
        far.close()
    eventually(lambda: site.house.connections == 0, "all have left")
    site.house.settle()
    assert [site.house._places.take() for _ in range(3)] == [True, True, False]


def test_a_guest_goes_to_its_listener(site: Site) -> None:
    """Where that is gone nobody can judge whom its proxy would name: it is closed."""
    site.steps.clear()
    pairs = [socket.socketpair() for _ in range(2)]
    here, gone = (
        Guest(near, name, ("10.0.0.1", 443), 1.0)
        for name, (near, _) in zip(("two", "old"), pairs, strict=True)
    )
    site.house.adopt(inherited((), [here, gone]))
    assert site.steps == ["adopt guest 10.0.0.1 two"]
    assert here.sock.fileno() >= 0
    assert gone.sock.fileno() == -1
    for near, far in pairs:
        near.close()
        far.close()


@pytest.mark.parametrize("keeps", [True, False])
def test_who_stops_gets_the_guests_or_has_them_turned_away(site: Site, keeps: bool) -> None:  # noqa: FBT001
    """Those of all listeners, in the list that it gave."""
    waiting: list[Any] = [object(), object()]
    for mover, guest in zip(site.house._movers.values(), waiting, strict=True):
        mover.waiting = [guest]  # type: ignore[union-attr]
    left: list[Any] = []
    site.house.stop_listening(0.0, left if keeps else None)
    assert left == (waiting if keeps else [])


def test_handlers_can_be_stopped_alone(site: Site) -> None:
    """The listeners that have one, for which nobody new is taken; the stop of all may follow."""
    services = site.house._services.by_name
    services["two"] = services["two"]._replace(handler=print)
    site.steps.clear()
    site.house.stop_handling(0.0, [])
    assert site.steps == ["stop two", "join two"]


def test_who_is_surrendered_is_served_by_nobody(site: Site, clients: Clients) -> None:
    """Until it is readmitted; those of all workers are, but not one that is about to end."""
    site.house.adopt(inherited(clients.connection("old") for _ in range(5)))
    site.house.start()
    assert clients.answered() == [True] * 5
    ends, *_ = site.house.clients()
    ends.parts_at = monotonic() + SECONDS
    assert len(site.house.staff.movable()) == 4
    given = site.house.staff.surrender()
    assert (len(given), site.house.connections) == (4, 1)
    assert len({one.identity for one in given} - {ends.identity}) == 4
    ends.parts_at = 0.0
    site.house.readmit(given)
    assert site.house.connections == 5
    assert clients.answered() == [True] * 5


def test_who_is_readmitted_is_drained(site: Site, clients: Clients) -> None:
    """A stop whose handover failed waits for them: at once, there is no moment without them."""
    site.house.adopt(inherited(clients.connection("old") for _ in range(3)))
    site.house.start()
    assert clients.answered() == [True] * 3
    site.house.stop_listening(0.0)
    given = site.house.staff.surrender()
    assert site.house.drained
    site.house.readmit(given)
    assert not site.house.drained
    assert site.house.connections == 3


def test_progress_is_whatever_moves(site: Site, clients: Clients) -> None:
    """A byte that comes or goes, and an end, change the number, and nothing else does."""
    site.house.adopt(inherited(clients.connection("old") for _ in range(2)))
    site.house.start()
    seen = [site.house.progress()]
    assert clients.answered() == [True] * 2
    site.house.settle()
    seen.append(site.house.progress())
    assert seen[1] == seen[0] + 4
    assert site.house.progress() == seen[1]
    clients.far[0].close()
    eventually(lambda: site.house.counters().closed == 1, "the end of one")
    site.house.settle()
    assert site.house.progress() > seen[1]


def test_a_house_is_empty_when_nobody_has_a_place(site: Site) -> None:
    """Who is about to be taken has one already, and so has who waits for the header of a proxy."""
    assert site.house.is_empty
    site.house._places.take()
    assert not site.house.is_empty
    site.house._places.resize(0)
    site.house._places.resize(50)
    assert not site.house.is_empty
    site.house._places.give_back()
    assert site.house.is_empty


def test_what_was_seen_is_who_came(site: Site) -> None:
    """Connections and datagrams, served or refused; who was adopted came to somebody else."""
    one, two = site.house._movers.values()
    one.counters, two.counters = Counters(accepted=1, refused=2), Counters(datagrams_received=4)
    assert site.house.seen() == 7
    site.house.staff.workers[0].counters.closed = 9
    assert site.house.seen() == 7


# --- a pause, and visits ------------------------------------------------------------------------


def test_a_pause_is_over_when_all_have_heard_of_it(site: Site) -> None:
    """Twice: what a thread had seen before it heard of it, it takes before it hears it again."""
    site.house.start()
    site.steps.clear()
    site.house.pause()
    assert site.steps == ["pause one", "pause two", "settle one", "settle two"] * 2
    site.steps.clear()
    site.house.resume()
    assert site.steps == ["resume one", "resume two"]


def test_one_listener_a_call_is_visited(site: Site) -> None:
    """In turn; the daemon is well while all that could be reached answer."""
    site.house.start()
    site.steps.clear()
    assert [site.house.is_answering() for _ in range(3)] == [True] * 3
    assert site.steps == ["visit one", "visit two", "visit one"]
    two = site.house._movers["two", "tcp"]
    two.answers = [False]  # type: ignore[union-attr]
    assert not site.house.is_answering()


def test_a_visit_that_is_impossible_is_told(site: Site) -> None:
    """Once, and then that listener is left alone."""
    site.house.start()
    one = site.house._movers["one", "tcp"]
    one.answers = [False]  # type: ignore[union-attr]
    assert [site.house.is_answering() for _ in range(3)] == [True] * 3
    site.end()
    assert site.log.texts == [VisitImpossible("one").text()]


def test_only_systemd_starts_it_again(site: Site) -> None:
    """All sockets are systemd's, or the daemon is not adopted; without any it is not, either."""
    assert not site.house.is_adopted
    site.house._sockets = {}
    assert not site.house.is_adopted
    site.house._open(site.opened({Endpoint("one", "udp"): ONE}))
    assert site.house.is_adopted
    site.house._open(site.opened({Endpoint("one", "tcp", "::1", 7): ONE}))
    assert not site.house.is_adopted
