"""What the status page shows of a snapshot. No text of it is the address of a client."""

from collections.abc import Iterator
from time import localtime, strftime, time
from typing import Protocol

from netsrvd.addresses import shown
from netsrvd.counters import ByReason
from netsrvd.metrics import unit
from netsrvd.run_state import RunNotes
from netsrvd.services.shown import Fact, Overview, Table
from netsrvd.snapshot import ListenerFigures, Served, Snapshot, steps
from netsrvd.units import span

BAD_LAG_SECONDS = 0.1
"""Clients notice a loop that is as late as this."""


class Noted(Served, Protocol):
    """What is read of the server, besides what a snapshot reads."""

    notes: RunNotes


def overview(server: Noted) -> Iterator[Overview | None]:
    """Yield None for each step in which the figures of a server are taken, then what is shown."""
    snapshot = yield from steps(server)
    yield of(snapshot, server.notes, time(), unit())


def of(snapshot: Snapshot, notes: RunNotes, now: float, instance: str) -> Overview:
    """Return what is shown of a snapshot; `instance` is its unit, empty if there is one daemon."""
    return Overview(
        title=f"netsrvd {instance}".strip(),
        at=now,
        start=snapshot.run.start_time,
        at_text=_time(now),
        facts=_facts(snapshot, notes, now),
        series=_series(snapshot),
        tables=[
            Table(
                "listeners", "Listeners", LISTENER_COLUMNS, 4, map(_listener, snapshot.listeners)
            ),
            Table("refusals", "Refused", REASON_COLUMNS, 3, _by_reason(snapshot, REFUSED)),
            Table("ended", "Ended", REASON_COLUMNS, 3, _by_reason(snapshot, ENDED)),
        ],
    )


LISTENER_COLUMNS = (
    *("Listener", "Service", "Protocol", "Addresses"),
    *("Live", "Limit", "Total", "Refused", "Lost", "Received, bytes", "Sent, bytes"),
)
"""`Total` are connections or datagrams; `Lost` are those that accept(2) or the kernel dropped, that
were truncated, or that had no answer."""

REASON_COLUMNS = ("Listener", "Protocol", "Reason", "Times")

REFUSED = "refused", "datagrams_refused"
ENDED = "closed", "flows_ended"
"""The counters by reason, of connections and of datagrams or flows."""


def _facts(snapshot: Snapshot, notes: RunNotes, now: float) -> list[Fact]:
    run = snapshot.run
    live = sum(each.gauges.connections for each in snapshot.listeners)
    flows = sum(each.gauges.flows_live for each in snapshot.listeners)
    lost, problems = run.log_records_lost, notes.problems
    lag = max(run.tcp_lag, run.udp_lag)
    configuration = f"In force since {_time(run.reload_success_time)}"
    if notes.fault:
        configuration = f"The last reload failed: {notes.fault}"
    return [
        Fact("version", "Version", snapshot.version),
        Fact("since", "Runs since", f"{_time(run.start_time)} ({span(now - run.start_time)})"),
        Fact("configuration", "Configuration", configuration, bool(notes.fault)),
        Fact("problems", "Not in force", "; ".join(problems) or "Nothing", bool(problems)),
        Fact(
            "live",
            "Connections",
            f"{_number(live)} of {_number(run.connections_limit)}",
            live >= run.connections_limit,
        ),
        Fact("flows", "UDP flows", _number(flows)),
        Fact("records", "Log records", _number(run.log_records)),
        Fact("lost", "Log records lost", _number(lost), lost > 0),
        Fact("lag", "Loop lag", f"{1000 * lag:.1f} ms", lag >= BAD_LAG_SECONDS),
    ]


def _series(snapshot: Snapshot) -> dict[str, float]:
    totals = snapshot.totals
    return {
        "connections": sum(each.gauges.connections for each in snapshot.listeners),
        "accepted": totals.accepted,
        "datagrams": totals.datagrams_received,
        "received": totals.bytes_received,
        "sent": totals.bytes_sent,
        "refused": totals.refused.total + totals.datagrams_refused.total,
    }


def _listener(found: ListenerFigures) -> tuple[str, ...]:
    counters, gauges = found.counters, found.gauges
    if found.protocol == "tcp":
        live, limit, total = gauges.connections, gauges.connections_limit, counters.accepted
        refused, lost = counters.refused.total, counters.accept_errors
    else:
        live, limit, total = gauges.flows_live, 0, counters.datagrams_received
        refused = counters.datagrams_refused.total
        lost = counters.datagrams_dropped + counters.datagrams_truncated + counters.datagrams_unsent
    return (
        *(found.name, found.service, found.protocol, ", ".join(_addresses(found))),
        *(_number(live), _number(limit) if limit else "", _number(total), _number(refused)),
        *(_number(lost), _number(counters.bytes_received), _number(counters.bytes_sent)),
    )


def _addresses(found: ListenerFigures) -> Iterator[str]:
    for each in found.addresses:
        origin = " (systemd)" if each.origin == "systemd" else ""
        yield f"{shown(each.host, each.port)}{origin}"


def _by_reason(snapshot: Snapshot, names: tuple[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield a row for each reason that was counted."""
    for each in snapshot.listeners:
        counts: ByReason = getattr(each.counters, names[each.protocol == "udp"])
        for reason, count in counts.items():
            if count:
                yield each.name, each.protocol, reason, _number(count)


def _number(count: float) -> str:
    return f"{count:,}"


def _time(at: float) -> str:
    return strftime("%Y-%m-%d %H:%M:%S %z", localtime(at))
