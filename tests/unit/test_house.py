"""netsrvd.house, on parts that are none; tests/wire and tests/process have real ones"""

from dataclasses import replace
from typing import Any

import pytest

from netsrvd import assembly, house
from netsrvd.config import changes
from netsrvd.counters import Counters
from netsrvd.events import DEBUG
from netsrvd.events.life import ThreadFailed
from netsrvd.events.sockets import ListeningEnded
from netsrvd.house import House
from netsrvd.services.base import Present
from netsrvd.settings import Endpoint, ListenerSettings, LogSettings, Settings
from netsrvd.sockets.bind import Opened
from tests.support.listening import FakeSocket
from tests.support.logs import FakeLog
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
        self._steps = steps

    def open(self, sock: object) -> None:
        self._steps.append(f"open {self.duty.name}")

    def close(self, sock: object) -> None:
        self._steps.append(f"close {self.duty.name}")

    def stop(self) -> None:
        self._steps.append(f"stop {self.duty.name}")


class Site:
    """A house whose acceptors and log are none; its workers and its reporter are real."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.steps: list[str] = []
        self.log = FakeLog()
        self.woken: list[bool] = []
        self.ports: list[Any] = []
        patch.setitem(assembly.LOGS, "stderr", lambda: self.log)
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
    site.house.stop_listening()
    assert site.steps == ["stop one", "stop two", "join one", "join two"]
    assert site.house.stop_workers() == 0
    assert site.woken
    assert site.house.drained


def test_a_reload_closes_keeps_and_opens(site: Site) -> None:
    """What is new is opened before anything is closed, what is gone is stopped and told, what stays
    is updated and has taken note before the workers hear of it; at last what is new starts.
    """
    site.house.start()
    site.steps.clear()
    new = ListenerSettings("new", protocols=("tcp",), hosts=("127.0.0.1",), port=3)
    stricter = replace(TWO, allow=())
    settings = Settings(listeners=(stricter, new), log=LogSettings(level="debug"))
    plan = changes.plan(SETTINGS, settings, ())
    site.house.apply(plan, site.opened(plan.open), site.services(settings), 100, settings)
    assert site.steps == [
        *("open new", "close one", "settle one", "stop one", "join one"),
        *("update two", "settle two", "start new"),
    ]
    assert site.house.reporter.level == DEBUG
    assert [duty.name for duty in site.house.duties()][:2] == ["two", "new"]
    site.end()
    assert site.log.texts == [ListeningEnded("one", "tcp", "127.0.0.1", 51423).text()]


def test_a_listener_of_two_sockets_is_updated_once(site: Site) -> None:
    """Its thread gets the new settings once, however many addresses it serves."""
    both = replace(TWO, hosts=("127.0.0.1", "::1"))
    before, after = Settings(listeners=(both,)), Settings(listeners=(replace(both, allow=()),))
    plan = changes.plan(before, after, ())
    assert len(plan.keep) == 2
    site.steps.clear()
    site.house.apply(plan, {}, site.services(after), 100, after)
    assert site.steps.count("update two") == 1


def test_reloads_without_end_cost_nothing(site: Site) -> None:
    """What a closed listener counted stays in the sums, and its port is used again."""
    plans = [changes.plan(SETTINGS, Settings(listeners=(TWO,)), ())]
    plans.append(changes.plan(Settings(listeners=(TWO,)), SETTINGS, ()))
    services = site.services(SETTINGS)
    for plan in plans * 5:
        site.house.apply(plan, site.opened(plan.open), services, 100, SETTINGS)
    assert site.house.counters().accepted == 2 + 5
    assert len({id(port) for port in site.ports}) == 2


def test_a_listener_that_moves_keeps_its_thread(site: Site) -> None:
    """A second address goes to the thread that is there; when the first one closes, the thread
    goes on with what it has counted.
    """
    moved = replace(ONE, hosts=("127.0.0.2",))
    before, after = Settings(listeners=(ONE, TWO)), Settings(listeners=(moved, TWO))
    site.steps.clear()
    plan = changes.plan(before, after, ())
    site.house.apply(plan, site.opened(plan.open), site.services(after), 100, after)
    assert site.steps[:3] == ["open one", "close one", "settle one"]
    assert "stop one" not in site.steps
    assert site.house.counters().accepted == 2


def test_sums_are_those_of_all_threads(site: Site) -> None:
    """The status line counts every thread."""
    site.house.workers[0].counters.bytes_sent = 3
    site.house.workers[1].counters.bytes_sent = 4
    assert site.house.counters() == Counters(accepted=2, bytes_sent=7)
    assert (site.house.connections, site.house.flows) == (0, 0)


def test_what_systemd_passed_is_known(site: Site) -> None:
    """Endpoints without a port are those that a reload must not bind."""
    assert site.house.adopted == set()
    site.house._open(site.opened({Endpoint("one", "udp"): ONE}))
    assert site.house.adopted == {("one", "udp")}


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


def test_every_connection_has_an_id_of_its_own() -> None:
    """Ids are unique on this host, also across restarts."""
    identify = house._identities()
    ids = [identify() for _ in range(3)]
    assert len({*ids}) == 3
    [prefix] = {each.partition("-")[0] for each in ids}
    assert int(prefix, 16) > 1_700_000_000_000
