"""A house and a service manager that only note what they are told."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from netsrvd.config import changes
from netsrvd.counters import Counters
from tests.support.reports import Reports


class FakeHouse:
    """A house without threads."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps
        self.report = Reports()
        self.reporter = SimpleNamespace(lost=5)
        self.failures: list[str] = []
        self.staff = self
        self.workers, self.all = [object()], ()
        self.bound_sockets: list[Any] = []
        self.passed: list[Any] = []
        self.bound: list[Any] = []
        self.connections = self.flows = self.guests = 0
        self.all_duties = [SimpleNamespace(pulse=0, ping=self.pinged)]
        self.pings: list[int] = []
        self.start_error: Exception | None = None
        self.is_adopted = True
        self.visits: list[bool] = []
        self.came = 0
        self.fixed = self.handled = 0
        """How many connections no other process could go on with, and how many are of handlers."""
        self.waiting: list[Any] = []
        """Those who wait for the headers of their proxies."""
        self.moved = 0
        self.accepted = 9

    @property
    def is_empty(self) -> bool:
        return not (self.connections or self.guests)

    @property
    def drained(self) -> bool:
        return not self.connections

    def pinged(self, number: int) -> None:
        self.pings.append(number)

    def counters(self) -> Counters:
        return Counters(accepted=self.accepted, refused=2, bytes_sent=3)

    def duties(self) -> list[Any]:
        return self.all_duties

    def failed(self, name: str, error: BaseException) -> None:
        self.failures.append(f"thread {name} failed: {error!r}\n")

    def start(self, *, paused: bool) -> None:
        assert paused
        self.steps.append("start")
        if self.start_error:
            raise self.start_error

    def apply(self, plan: changes.Plan, *_: object) -> None:
        self.steps.append(f"apply {','.join(plan.changed)}")

    def progress(self) -> int:
        return self.moved

    def seen(self) -> int:
        return self.came

    def is_answering(self) -> bool:
        self.steps.append("visit")
        return self.visits.pop(0) if self.visits else True

    def look_at_interfaces(self) -> None:
        """Do nothing: it has no sockets."""

    def pause(self) -> None:
        self.steps.append("pause")

    def resume(self) -> None:
        self.steps.append("resume")

    def settle(self) -> None:
        self.steps.append("settle")

    def adopt(self, inherited: Any) -> None:
        self.steps.append(f"adopt {len(inherited.connections)}")
        self.connections += len(inherited.connections)

    def movable(self) -> list[Any]:
        count = self.connections - self.fixed - self.handled
        return [SimpleNamespace(backlog=None) for _ in range(count)]

    def surrender(self) -> list[Any]:
        self.steps.append("surrender")
        given = self.movable()
        self.connections = self.fixed + self.handled
        return given

    def readmit(self, connections: list[Any]) -> None:
        self.steps.append("readmit")
        self.connections += len(connections)

    def stop_listening(self, drain_seconds: float, left: list[Any] | None = None) -> None:
        self.steps.append("stop listening" if left is None else "stop listening, keep guests")
        if left is not None:
            left += self.waiting

    def stop_handling(self, drain_seconds: float, left: list[Any]) -> None:
        self.steps.append("stop handling")

    def stop_workers(self) -> int:
        self.steps.append("stop workers")
        return self.connections

    def stop_reporting(self) -> None:
        self.steps.append("stop reporting")


class FakeNotifier:
    """A service manager that notes what it is told."""

    watchdog_seconds = 0.0
    store_room = 0

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *text: self.steps.append(f"{name} {' '.join(map(str, text))}".strip()[:40])
