"""The figures of a run: each is defined once, by one line of `Counters`, `Gauges` or `RunFigures`.

The last record of a run, status, metrics and docs/monitoring.md are made from these definitions. A
figure that has no line here is an error of mypy where it is counted.
"""

from collections.abc import Iterable
from typing import Any, Self, cast

TCP, UDP = "tcp", "udp"
BOTH = TCP, UDP

CLOSED_REASONS = (
    *("client", "reset", "idle", "write", "age", "drain", "finished", "network", "access"),
    "error",
)
"""Reasons of the end of a connection; `events.connections.Closed` says what they mean."""

REFUSED_REASONS = (
    *("access", "source", "rate", "configuration", "descriptors"),
    *("proxy-header", "proxy-long", "proxy-late"),
)
"""Reasons to refuse a connection; `events.refusals.Refused` says what they mean."""

UNANSWERED_REASONS = (
    *("access", "rate", "bytes", "budget", "port", "configuration", "destination", "sender"),
    *("busy", "packet", "proxy-header", "proxy-long"),
)
"""Reasons to refuse a datagram, from the same list."""

ENDED_REASONS = "silent", "full", "stop", "reload"
"""Reasons of the end of a flow; `events.flows.FlowEnded` says what they mean."""


class ByReason(dict[str, int]):
    """Counts by the value of one label. A value that is new begins at 0."""

    __slots__ = ()

    def __missing__(self, value: str) -> int:
        """Return 0."""
        return 0

    @property
    def total(self) -> int:
        """The sum of all counts."""
        return sum(self.values())


class Definition:
    """What is known of a figure besides its value."""

    __slots__ = (
        "help",
        "is_float",
        "kind",
        "label",
        "metric",
        "name",
        "protocols",
        "unit",
        "values",
    )

    def __init__(
        self,
        metric: str,
        unit: str,
        text: str,
        kind: str,
        *,
        protocols: tuple[str, ...] = (),
        label: str = "",
        values: tuple[str, ...] = (),
        is_float: bool = False,
    ) -> None:
        self.name = ""
        """The attribute that has the value."""
        self.metric = f"netsrvd_{metric}"
        """The name of the metric; that of a counter ends in `_total`."""
        self.unit = unit
        """What is counted or measured."""
        self.help = text
        self.kind = kind
        """`counter`, which only grows during a run, or `gauge`."""
        self.protocols = protocols
        """The protocols whose listeners have the figure; empty for a figure of the whole run."""
        self.label = label
        """The label that tells the counts of a `ByReason` apart; empty for a single number."""
        self.is_float = is_float
        """True for a measured value, False for a number."""
        self.values = values
        """The values of the label that are counted from the start."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name of the attribute."""
        self.name = name

    def new(self) -> float | ByReason:
        """Return the value with which a run begins."""
        return ByReason(dict.fromkeys(self.values, 0)) if self.label else 0


def _counter(metric: str, unit: str, text: str, protocols: tuple[str, ...]) -> int:
    """Define a number that grows. It is an int in objects of the class that it is defined in."""
    definition = Definition(f"{metric}_total", unit, text, "counter", protocols=protocols)
    return cast("int", definition)


def _by_reason(
    metric: str, unit: str, text: str, protocols: tuple[str, ...], values: tuple[str, ...]
) -> ByReason:
    """Define numbers that grow, one for each reason."""
    name = f"{metric}_total"
    definition = Definition(
        name, unit, text, "counter", protocols=protocols, label="reason", values=values
    )
    return cast("ByReason", definition)


def _gauge(metric: str, unit: str, text: str, protocols: tuple[str, ...] = ()) -> int:
    """Define a number that rises and falls."""
    return cast("int", Definition(metric, unit, text, "gauge", protocols=protocols))


def _measure(metric: str, unit: str, text: str) -> float:
    """Define a measured value."""
    return cast("float", Definition(metric, unit, text, "gauge", is_float=True))


def _total(metric: str, unit: str, text: str) -> int:
    """Define a number of the whole run that grows."""
    return cast("int", Definition(f"{metric}_total", unit, text, "counter"))


class _Figures:
    """Figures by the names of their definitions: attributes of the object."""

    def __init__(self, **figures: float | ByReason) -> None:
        defined = {each.name: each.new() for each in definitions(type(self))}
        vars(self).update(defined, **figures)

    def __eq__(self, other: object) -> bool:
        """Return whether all figures are the same."""
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment] # it changes

    def __repr__(self) -> str:
        """Return the figures."""
        return f"{type(self).__name__}({vars(self)})"


class Counters(_Figures):
    """What one listener has counted by one protocol since the start of the run.

    Its event loop writes; any thread may read a slightly old figure.
    """

    accepted = _counter("connections_accepted", "connections", "Connections served.", (TCP,))
    restored = _counter(
        "connections_restored", "connections", "Connections of the process before.", (TCP,)
    )
    refused = _by_reason(
        "connections_refused", "connections", "Connections refused.", (TCP,), REFUSED_REASONS
    )
    closed = _by_reason(
        "connections_closed", "connections", "Connections that ended.", (TCP,), CLOSED_REASONS
    )
    accept_errors = _counter("accept_errors", "errors", "Errors of accept(2).", (TCP,))
    proxy_late = _counter("proxy_late", "connections", "PROXY headers that came too late.", (TCP,))
    proxy_long = _counter("proxy_long", "headers", "PROXY headers that were too long.", BOTH)
    proxy_wrong = _counter("proxy_wrong", "headers", "PROXY headers that were invalid.", BOTH)
    proxy_probes = _counter(
        "proxy_probes", "connections", "Connections of proxies that closed without data.", (TCP,)
    )
    flows = _counter("flows_begun", "flows", "Flows that began.", (UDP,))
    flows_ended = _by_reason("flows_ended", "flows", "Flows that ended.", (UDP,), ENDED_REASONS)
    datagrams_received = _counter("datagrams_received", "datagrams", "Datagrams received.", (UDP,))
    datagrams_sent = _counter("datagrams_sent", "datagrams", "Answers sent.", (UDP,))
    datagrams_refused = _by_reason(
        "datagrams_refused", "datagrams", "Datagrams refused.", (UDP,), UNANSWERED_REASONS
    )
    datagrams_truncated = _counter(
        "datagrams_truncated", "datagrams", "Datagrams of which a part was lost.", (UDP,)
    )
    datagrams_unsent = _counter(
        "datagrams_unsent",
        "datagrams",
        "Answers that failed, in the service or in the network.",
        (UDP,),
    )
    datagrams_dropped = _counter(
        "datagrams_dropped",
        "datagrams",
        "Datagrams that the kernel dropped, its buffer full.",
        (UDP,),
    )
    receive_errors = _counter("receive_errors", "errors", "Errors of recvmmsg(2).", (UDP,))
    bytes_received = _counter("received_bytes", "bytes", "Payload received.", BOTH)
    bytes_sent = _counter("sent_bytes", "bytes", "Payload sent.", BOTH)

    def __add__(self, other: Self) -> Self:
        """Return the sums, a new object."""
        return type(self)(
            **{name: _sum(value, vars(other)[name]) for name, value in vars(self).items()}
        )

    def copy(self) -> Self:
        """Return the figures as they are now, in an object that does not change (any thread)."""
        return type(self)(
            **{
                name: ByReason(value) if isinstance(value, ByReason) else value
                for name, value in vars(self).items()
            }
        )


def _sum(one: Any, two: Any) -> int | ByReason:
    if not isinstance(one, ByReason):
        return int(one + two)
    return ByReason({name: one[name] + two[name] for name in [*one, *(two.keys() - one)]})


class Gauges(_Figures):
    """What one listener has by one protocol now."""

    connections = _gauge("connections", "connections", "Connections that are served.", (TCP,))
    connections_pending = _gauge(
        "connections_pending", "connections", "Connections whose PROXY header is awaited.", (TCP,)
    )
    connections_limit = _gauge(
        "listener_connections_limit", "connections", "Its max_connections.", (TCP,)
    )
    flows_live = _gauge("flows", "flows", "Flows that have not ended.", (UDP,))


class RunFigures(_Figures):
    """What is known of the whole run. The main thread writes; any thread may read."""

    start_time = _measure("start_time_seconds", "seconds since 1970", "When the run began.")
    connections_limit = _gauge(
        "connections_limit", "connections", "The limit of all listeners together."
    )
    connections_lost = _total("connections_lost", "connections", "Connections that a restart lost.")
    reload_successful = _gauge(
        "config_last_reload_successful", "boolean", "1 if the last reload succeeded, or none was."
    )
    reload_success_time = _measure(
        "config_last_reload_success_timestamp_seconds",
        "seconds since 1970",
        "When the configuration in force was read.",
    )
    settings_not_in_force = _gauge(
        "config_settings_not_in_force", "settings", "Settings that passed sockets do not carry out."
    )
    log_records = _total("log_records", "records", "Log records written.")
    log_records_lost = _total("log_records_lost", "records", "Log records lost.")
    tcp_lag = _measure(
        "tcp_loop_lag_seconds",
        "seconds",
        "How late the TCP loop turned at most in the last minute.",
    )
    udp_lag = _measure(
        "udp_loop_lag_seconds",
        "seconds",
        "How late the UDP loop turned at most in the last minute.",
    )


def definitions(figures: type[_Figures]) -> tuple[Definition, ...]:
    """Return the definitions of a class of figures, in their order."""
    return tuple(each for each in vars(figures).values() if isinstance(each, Definition))


REASONS = "_reasons"
"""Ends the name of the field of a record that has the counts by reason."""


def recorded() -> Iterable[str]:
    """Return the names of the fields of a record that has all counters."""
    for each in definitions(Counters):
        yield each.name
        if each.label:
            yield each.name + REASONS


def fields(counters: Counters) -> dict[str, int | str]:
    """Return all counters as the fields of a record."""
    found: dict[str, int | str] = {}
    for name, value in vars(counters).items():
        if isinstance(value, ByReason):
            found[name] = value.total
            found[name + REASONS] = " ".join(f"{key}={n}" for key, n in value.items() if n)
        else:
            found[name] = value
    return found
