"""Reads the configuration, opens the sockets and builds the log for `server.py`.

It knows the names that the other packages define (services, socket options, access entries), with
which the configuration is checked. Then it adopts and binds sockets, and chooses the log.
"""

import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from netsrvd.access.access_list import checked_entry
from netsrvd.access.source_ports import checked_ports
from netsrvd.config import changes, files
from netsrvd.config.schema import UNUSED, Validators
from netsrvd.errors import ConfigError, DetachError, Fault, SocketError
from netsrvd.events import LEVELS, Event
from netsrvd.events.connections import ConnectionsLimited
from netsrvd.events.lifecycle import SettingIgnored
from netsrvd.events.log import LogFallback
from netsrvd.events.sockets import (
    FamilyMissing,
    Listening,
    NotInForce,
    OptionAdjusted,
)
from netsrvd.log import journal, stderr, syslog
from netsrvd.log.datagram_socket import fault_of
from netsrvd.log.writer import Log, LogWriter
from netsrvd.loop_thread import OnFailure
from netsrvd.services import SERVICES, prepare, reader
from netsrvd.services.base import ServerView, Service
from netsrvd.settings import EVERYWHERE, Endpoint, ListenerSettings, Settings
from netsrvd.sockets import activation, bind, descriptors, options
from netsrvd.sockets.activation import ActivatedSocket, Stored
from netsrvd.sockets.bind import ListeningSocket
from netsrvd.sockets.matching import Listeners, Match, uncovered
from netsrvd.systemd.notify import Notifier
from netsrvd.upgrade import is_replaced

VALIDATORS = Validators(
    service_reader=reader,
    options=options.OPTIONS,
    read_option=options.parse,
    read_access=checked_entry,
    read_ports=checked_ports,
)

LOGS: dict[str, Callable[[], Log]] = {
    "journal": journal.JournalLog,
    "syslog": syslog.SyslogLog,
    "stderr": stderr.StderrLog,
}
LOG_SOCKETS = {"journal": journal.SOCKET, "syslog": syslog.SOCKET}

LARGE = frozenset({"stamp", "echoplus", "metrics"})
"""Services that are imported for those alone that configure them: together they take 0.6 MB."""

Sockets = dict[Endpoint, list[ListeningSocket]]


def read_configuration(path: Path | None) -> files.Configuration:
    """Read and check the configuration; raises ConfigError with all its faults."""
    return files.load(path, VALIDATORS)


class Services(NamedTuple):
    """The service of each listener, by its name, and what services may see of the server."""

    by_name: dict[str, Service]
    server_view: ServerView

    def of(self, listener: ListenerSettings) -> Service:
        """Return the service of a listener; one that is not configured serves nothing."""
        found = self.by_name.get(listener.name)
        return found or prepare("close", listener, self.server_view)

    @property
    def handled(self) -> bool:
        """Whether one of them is a handler."""
        return any(service.handler for service in self.by_name.values())


def prepare_services(
    settings: Settings, server_view: ServerView, sources: files.Sources | None = None
) -> Services:
    """Return the service of each listener; raises ConfigError where one cannot be had.

    Its faults name the place in the files if `sources` are given.
    """
    found: dict[str, Service] = {}
    faults: list[str | Fault] = []
    for listener in settings.listeners:
        try:
            _check_version(listener.service)
            found[listener.name] = prepare(listener.service, listener, server_view)
        except (OSError, ValueError) as error:
            faults.append(_unusable(listener, error, sources))
    if faults:
        raise ConfigError(faults)
    return Services(found, server_view)


def _check_version(service: str) -> None:
    """Raise ValueError for a service that is to be imported from files of another version."""
    if service in LARGE and f"netsrvd.services.{service}" not in sys.modules and is_replaced():
        raise ValueError("netsrvd was upgraded since it started; restart it to add this service")


def _unusable(
    listener: ListenerSettings, error: Exception, sources: files.Sources | None
) -> str | Fault:
    """Return the fault of a service that cannot be had.

    What a service raises begins with the key that is at fault, unless that is `service` itself.
    """
    text = f"service {listener.service}: {error}"
    if sources is None:
        return f"listener {listener.name}: {text}"
    table = ("listener", listener.name)
    words = str(error).split(maxsplit=1)
    key = words[0].rstrip(":") if words else ""
    return sources.fault(text, (*table, key), (*table, "service"))


def open_sockets(
    configuration: files.Configuration, passed: list[ActivatedSocket], stored: Sequence[Stored] = ()
) -> tuple[Sockets, list[Event]]:
    """Adopt what systemd passed and bind what no passed socket serves; or nothing at all.

    `stored` are the sockets that the process before bound. Those that this one would bind in the
    same way are taken instead, the others are closed. A listener whose passed sockets the files
    contradict is served as far as its own sockets can be bound. Returns the sockets and what is to
    be reported about them. Raises ActivationError or SocketError, with nothing left open but what
    systemd passed.
    """
    settings, named = configuration.settings, configuration.named
    adopted = activation.adopt(passed, settings.listeners, named)
    sockets: Sockets = {}
    for opened in adopted:
        sockets.setdefault(Endpoint(opened.listener.name, opened.protocol), []).append(opened)
    wanted = changes.endpoints(settings, served(adopted))
    share = activation.shares_ports(adopted)
    kept = _take_stored(stored, wanted, share=share) if stored else {}
    try:
        missing = {end: listener for end, listener in wanted.items() if end not in kept}
        bound, notes = bind_all(missing, may_fail=keys_of(adopted), share=share)
    except BaseException:
        close_bound(kept)
        raise
    notes = _opened(sockets) + problems_of(adopted, configuration) + _opened(kept) + notes
    return sockets | kept | bound, notes


def _take_stored(stored: Iterable[Stored], wanted: changes.Endpoints, *, share: bool) -> Sockets:
    """Return the sockets of the descriptor store that go on; close the others, there as well.

    Systemd has a descriptor of each until FDSTOREREMOVE=1, which keeps its port taken.
    """
    from netsrvd.sockets import kept  # noqa: PLC0415 - most starts have none

    taken, others = kept.match(stored, wanted, share=share)
    kept.close(others)
    if others:
        notifier = Notifier()
        for _, name in others:
            notifier.fdstore_remove(name)
        with suppress(OSError):  # if it does not answer, the bind says what is in its way
            notifier.barrier()
        notifier.close()
    return {endpoint: [opened] for endpoint, opened in taken.items()}


def keys_of(passed: Iterable[ListeningSocket]) -> set[tuple[str, str]]:
    """Return the listeners and protocols that these sockets are for."""
    return {(one.listener.name, one.protocol) for one in passed}


def served(passed: Iterable[ListeningSocket]) -> set[tuple[str, str]]:
    """Return the listeners and protocols that these sockets serve."""
    return {(one.listener.name, one.protocol) for one in passed if one.serves}


def rematched(
    passed: Iterable[ListeningSocket], configuration: files.Configuration
) -> list[ListeningSocket]:
    """Return passed sockets as another configuration has them; nothing of them changes yet.

    One that is for another listener now has a descriptor of its own: see `close_moved`. Raises
    SocketError where there is none.
    """
    known = Listeners(configuration.settings.listeners, configuration.named)
    found: list[ListeningSocket] = []
    for one in passed:
        to = known.match(activation.facts(one.sock, one.name))
        moves = to.listener.name != one.listener.name
        try:
            sock = one.sock.dup() if moves else one.sock
        except OSError as error:
            close_moved(passed, found)
            raise SocketError(
                f"a socket of systemd's cannot change its listener: {error}"
            ) from error
        new = one._replace(
            sock=sock, listener=to.listener, addresses=to.addresses, problem=to.problem
        )
        found.append(new)
    return found


def close_moved(before: Iterable[ListeningSocket], after: Iterable[ListeningSocket]) -> None:
    """Close the descriptors that `rematched` has made."""
    for old, new in zip(before, after, strict=False):
        if new.sock is not old.sock:
            new.sock.close()


def problems_of(
    passed: Iterable[ListeningSocket], configuration: files.Configuration
) -> list[NotInForce]:
    """Return the settings that the sockets passed by systemd do not put into force."""
    passed = list(passed)
    found = [
        NotInForce(one.listener.name, one.protocol, one.problem) for one in passed if one.problem
    ]
    matched = [
        (activation.facts(one.sock, one.name), Match(one.listener, one.addresses)) for one in passed
    ]
    missing = uncovered(configuration.settings.listeners, configuration.named, matched)
    return found + [
        NotInForce(listener.name, protocol, text) for listener, protocol, text in missing
    ]


def bind_all(
    wanted: changes.Endpoints,
    may_fail: Collection[tuple[str, str]] = (),
    *,
    share: bool = False,
) -> tuple[Sockets, list[Event]]:
    """Open the sockets of all endpoints; or none, and raise SocketError.

    What cannot be bound of a listener and protocol in `may_fail` is only reported. With `share`
    other instances of the daemon may bind the same ports (SO_REUSEPORT). Returns the sockets and
    what is to be reported about them.
    """
    sockets: Sockets = {}
    failed: dict[Event, None] = {}
    try:
        for endpoint, listener in wanted.items():
            name, protocol = listener.name, endpoint.protocol
            try:
                sockets[endpoint] = [bind.open_endpoint(endpoint, listener, share=share)]
            except bind.FamilyMissingError as error:
                failed[FamilyMissing(name, protocol, str(error))] = None
            except SocketError as error:
                if (name, protocol) not in may_fail:
                    raise
                failed[NotInForce(name, protocol, _not_bound(error, listener))] = None
    except BaseException:
        close_bound(sockets)
        raise
    return sockets, [*failed, *_opened(sockets)]


def bind_again(plan: changes.Plan, *, share: bool) -> tuple[Sockets, list[Event]]:
    """Open the sockets that a reload needs; or none, and raise SocketError.

    What could not be bound before is tried once more, and only reported if it cannot.
    """
    sockets, notes = bind_all(plan.open, share=share)
    again = {(end.listener, end.protocol) for end in plan.retry}
    found, others = bind_all(plan.retry, again, share=share)
    notes += [note for note in others if not isinstance(note, FamilyMissing)]
    return sockets | found, notes


def _not_bound(error: SocketError, listener: ListenerSettings) -> str:
    """Return the problem of an endpoint; both families of all addresses have the same one."""
    problem = str(error).removeprefix(f"listener {listener.name}: ")
    for host in () if listener.hosts else EVERYWHERE:
        problem = problem.replace(f" {host} port ", " port ")
    return problem


def close_bound(sockets: Sockets) -> None:
    """Close what was bound. What systemd passed stays open, for `activation.drain_and_close`."""
    for opened in itertools.chain.from_iterable(sockets.values()):
        if opened.origin == "bound":
            opened.sock.close()


def ignored_settings(configuration: files.Configuration) -> list[Event]:
    """Return the settings of the files that are no longer used."""
    sources = configuration.sources
    return [
        SettingIgnored(".".join(key), str(sources.fault("it is not used any more; remove it", key)))
        for key in UNUSED
        if key in sources.origins
    ]


def connection_limit(settings: Settings, sockets: int) -> tuple[int, list[Event]]:
    """Return how many connections may be live at once, and what is to be reported about that.

    Raises SocketError where there are too few descriptors for any.
    """
    handled = [each for each in settings.listeners if each.service not in SERVICES]
    handlers = sum(each.handler_threads * len(each.protocols) for each in handled)
    budget = descriptors.budget(settings, sockets, handlers)
    if budget.connections == budget.configured:
        return budget.connections, []
    return budget.connections, [
        ConnectionsLimited(budget.configured, budget.connections, budget.descriptors)
    ]


def choose_log(target: str, *, detached: bool) -> tuple[str, list[Event]]:
    """Return the log to be used for a configured target, and what is to be reported about it.

    `auto` is the journal under systemd, syslog off the terminal, standard error otherwise. An
    absent log is replaced by the next one that is there; raises DetachError if there is none.
    Where systemd discards standard error nothing replaces it: the records wait for it to come.
    """
    descriptor = _stderr_descriptor()
    is_discarded = stderr.is_discarded(descriptor)
    if target == "auto":
        under_systemd = is_discarded or stderr.is_journal(descriptor)
        target = "syslog" if detached else "journal" if under_systemd else "stderr"
    faults: dict[str, str] = {}
    for name in dict.fromkeys((target, "journal", "syslog", "stderr")):
        if name == "stderr" and is_discarded:
            return target, []
        fault = faults[name] = _fault_of_log(name, detached=detached)
        if not fault:
            return name, [] if name == target else [LogFallback(target, name, faults[target])]
    reasons = "; ".join(faults[name] for name in LOG_SOCKETS)
    raise DetachError(
        f"there is neither syslog nor a journal to write to ({reasons}); run without --detach"
    )


def _fault_of_log(name: str, *, detached: bool) -> str:
    """Return why a log cannot be written to, an empty text if it can."""
    if name == "stderr":
        return "it is closed" if detached else ""
    return fault_of(LOG_SOCKETS[name], or_stream=name == "syslog")


def _stderr_descriptor() -> int:
    """Return the descriptor of standard error, which need not be a file (`StderrToLog`)."""
    try:
        return sys.stderr.fileno() if sys.stderr else 2
    except OSError:
        return -1


def build_log_writer(settings: Settings, log: str, on_failure: OnFailure) -> LogWriter:
    """Build what writes to the log of this name."""
    return LogWriter(
        LOGS[log](),
        LEVELS[settings.log.level],
        settings.log.queue_records,
        on_failure,
        waits=settings.log.when_full == "wait",
    )


def own_udp_ports(opened: Iterable[ListeningSocket]) -> frozenset[int]:
    """Return the ports on which datagrams are answered."""
    return frozenset(one.address()[1] for one in opened if one.protocol == "udp" and one.serves)


def _opened(sockets: Sockets) -> list[Event]:
    found: list[Event] = []
    for opened in (one for all_of in sockets.values() for one in all_of if one.serves):
        listener, where = opened.listener, opened.address()
        service, protocol = listener.service, opened.protocol
        found.append(Listening(listener.name, service, protocol, *where, opened.origin))
        found += [OptionAdjusted(listener.name, protocol, *each) for each in opened.adjustments]
    return found
