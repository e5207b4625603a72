"""The daemon's server in the test's process: real sockets and threads, a log that is none."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import pytest

from netsrvd import server, startup
from netsrvd.events import LEVELS, Event
from netsrvd.log.writer import LogWriter
from netsrvd.loop_thread import OnFailure
from netsrvd.server import Server
from netsrvd.services.base import ServerView
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.sockets.activation import ActivatedSocket
from tests.support.logs import FakeLog
from tests.support.patience import eventually
from tests.support.planned import configuration, planned
from tests.support.run import free_port

Kind = TypeVar("Kind", bound=Event)


def nothing() -> None:
    """Wake no main thread."""


def build(
    settings: Settings,
    passed: Sequence[ActivatedSocket] = (),
    *,
    log: str = "stderr",
    wake: Callable[[], None] = nothing,
) -> Server:
    """Return a server that has not started yet, with its sockets open."""
    sockets, _ = startup.open_sockets(configuration(settings), list(passed))
    services = startup.prepare_services(settings, ServerView())
    return Server(settings, sockets, services, 10_000, log, wake)


def addresses(server: Server, protocol: str = "") -> list[tuple[str, int]]:
    """Return the addresses that a server serves, those of one protocol or all."""
    opened = [*server.passed, *server.bound.values()]
    return [each.address() for each in opened if each.protocol == (protocol or each.protocol)]


def stop(server: Server) -> int:
    """Stop a server without a drain; return how many connections were closed."""
    server.stop_listening(0.0)
    closed = server.close_connections()
    server.stop_log()
    return closed


class EventWriter(LogWriter):
    """A log writer that also keeps the events."""

    __slots__ = ("events",)

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        self.events: list[Event] = []

    def put(self, event: Event) -> bool:
        """Keep an event, and hand it over."""
        self.events.append(event)
        return super().put(event)


class Reported:
    """What servers of this process report, from the patch on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log = FakeLog()
        self.writers: list[EventWriter] = []
        patch.setattr(server, "build_log_writer", self._build)

    def _build(self, settings: Settings, log: str, on_failure: OnFailure) -> EventWriter:
        level, limit = LEVELS[settings.log.level], settings.log.queue_records
        waits = settings.log.when_full == "wait"
        made = EventWriter(self.log, level, limit, on_failure, waits=waits)
        self.writers.append(made)
        return made

    @property
    def events(self) -> list[Event]:
        """The events of all servers, one after the other."""
        return [event for writer in self.writers for event in tuple(writer.events)]

    @property
    def kinds(self) -> list[str]:
        """The names of the events' classes."""
        return [type(event).__name__ for event in self.events]

    def all(self, kind: type[Kind]) -> list[Kind]:
        """Return the events of one kind that were reported until now."""
        return [event for event in self.events if isinstance(event, kind)]

    def only(self, kind: type[Kind]) -> Kind:
        """Return the one event of its kind."""
        [event] = self.all(kind)
        return event


def on_loopback(name: str, **changes: Any) -> ListenerSettings:
    """Return a listener of TCP on 127.0.0.1; a port of 0 stands for one that is free."""
    usual: dict[str, Any] = {"port": 0, "hosts": ("127.0.0.1",), "protocols": ("tcp",)}
    return ListenerSettings(name, **usual | changes)


def with_ports(listeners: Iterable[ListenerSettings]) -> tuple[ListenerSettings, ...]:
    """Return listeners that have ports."""
    found, port = [], 0
    for each in listeners:
        port = each.port or free_port(port + 1 if port else 0)
        found.append(each._replace(port=port))
    return tuple(found)


class RunningServer:
    """A server of some listeners. `wakes` counts how often it has woken the main thread."""

    def __init__(
        self, *listeners: ListenerSettings, has_sockets: bool = True, **changes: Any
    ) -> None:
        self.settings = Settings(listeners=with_ports(listeners), **changes)
        self.wakes = 0
        sockets: startup.Sockets = {}
        if has_sockets:
            sockets, _ = startup.open_sockets(configuration(self.settings), [])
        services = startup.prepare_services(self.settings, ServerView())
        most = self.settings.max_connections or 10_000
        self.server = Server(self.settings, sockets, services, most, "stderr", self._wake)
        self._has_ended = False

    def _wake(self) -> None:
        self.wakes += 1

    def start(self) -> None:
        """Start the threads."""
        self.server.start()

    def address(self, name: str, protocol: str = "tcp") -> tuple[str, int]:
        """Return where a listener listens."""
        found = self.server.bound.items()
        [one] = [one for end, one in found if (end.listener, end.protocol) == (name, protocol)]
        return one.address()

    def serves(self, count: int) -> None:
        """Wait until `count` connections are served."""
        eventually(lambda: self.server.live == count, f"{count} connections are served")

    def reload(self, *listeners: ListenerSettings) -> None:
        """Do what the daemon does for SIGHUP."""
        new = Settings(listeners=with_ports(listeners))
        plan = planned(self.settings, new)
        sockets, _ = startup.bind_all(plan.open)
        services = startup.prepare_services(new, ServerView())
        self.server.reload(plan, sockets, [], services, 10_000, new)
        self.settings = new

    def end(self) -> None:
        """Stop everything, unless that was done. May be called twice."""
        if not self._has_ended:
            self._has_ended = True
            stop(self.server)
        assert not self.server.failures

    def has_ended(self) -> None:
        """Take note that the test has stopped everything."""
        self._has_ended = True
