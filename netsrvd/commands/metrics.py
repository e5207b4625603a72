"""`netsrvd metrics`: prints the metrics of the daemons of this host once.

They are those that the service `metrics` gives, for the textfile collector of node_exporter.
"""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from netsrvd.commands.daemons import Found, asking, find
from netsrvd.counters import ByReason, Counters, Gauges, RunFigures, definitions
from netsrvd.errors import ControlError
from netsrvd.escapes import escaped
from netsrvd.metrics import of
from netsrvd.services import exposition
from netsrvd.services.shown import Family
from netsrvd.snapshot import Address, ListenerFigures, Snapshot


def run(arguments: argparse.Namespace) -> int:
    """Print the metrics of all daemons that run; those of instances have the label `unit`.

    Raises UsageError and ControlError, with nothing printed, if one of them does not answer or none
    runs.
    """
    running = [each for each in find(arguments.control) if each.is_running]
    if not running:
        raise ControlError("no netsrvd runs")
    shape = exposition.OPENMETRICS if arguments.openmetrics else exposition.PROMETHEUS
    families = _merged([_families(each) for each in running])
    sys.stdout.write(b"".join(exposition.pieces(families, shape)).decode())
    return os.EX_OK


def _families(found: Found) -> list[Family]:
    with asking(found) as daemon:
        status = _printable(daemon.call("Status"))
    unit = found.name if "@" in found.name and found.name.endswith(".service") else ""
    return list(of(snapshot(status), unit))


def _printable(value: Any) -> Any:
    """Return a part of a reply, which may be another program's, with its texts escaped."""
    if isinstance(value, dict):
        return {escaped(name): _printable(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_printable(each) for each in value]
    return escaped(value) if isinstance(value, str) else value


def _merged(daemons: Iterable[Iterable[Family]]) -> Iterator[Family]:
    """Yield each metric once, with the samples of all daemons: the format wants them together."""
    by_name: dict[str, Family] = {}
    for family in (each for families in daemons for each in families):
        before = by_name.get(family.name)
        samples = [*before.samples, *family.samples] if before else family.samples
        by_name[family.name] = family._replace(samples=samples)
    yield from by_name.values()


def snapshot(status: dict[str, Any]) -> Snapshot:
    """Return the figures in an answer to `io.netsrvd.Status`."""
    listeners = [
        ListenerFigures(
            each["name"],
            each["service"],
            each["protocol"],
            tuple(Address(**address) for address in each["addresses"]),
            Counters(**_known(Counters, each["counters"])),
            Gauges(**_known(Gauges, each["gauges"])),
        )
        for each in status["listeners"]
    ]
    run = RunFigures(**_known(RunFigures, status["run"]))
    totals = Counters(**_known(Counters, status["totals"]))
    return Snapshot(status["version"], run, tuple(listeners), Counters(), totals)


def _known(kind: type[Counters | Gauges | RunFigures], figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that are defined here: the daemon may be of another version."""
    return {
        each.name: ByReason(figures[each.name]) if each.label else figures[each.name]
        for each in definitions(kind)
        if figures.get(each.name) is not None
    }
