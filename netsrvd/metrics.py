"""The metrics of a snapshot: what the service `metrics` and `netsrvd metrics` print.

Labels are names of listeners, their own addresses, protocols and reasons, and the unit of one of
several instances: never a peer.
"""

import os
from collections.abc import Iterable, Iterator
from itertools import groupby

from netsrvd.counters import Definition
from netsrvd.services.shown import Family, Labels
from netsrvd.snapshot import Sample, Served, Snapshot, samples, steps

UNIT = "NETSRVD_UNIT"
"""The environment variable with the unit of one of several instances (systemd/netsrvd@.service)."""


def families(server: Served) -> Iterator[Family | None]:
    """Yield None for each step in which the figures of a server are taken, then all metrics."""
    snapshot = yield from steps(server)
    yield from of(snapshot, unit())


def unit() -> str:
    """Return the unit of this daemon if it is one of several instances, else nothing."""
    return os.environ.get(UNIT, "")


def of(snapshot: Snapshot, instance_unit: str) -> Iterator[Family]:
    """Yield the metrics of a snapshot, those of an instance with its unit."""
    instance: Labels = (("unit", instance_unit),) if instance_unit else ()
    yield from _facts(snapshot, instance)
    for definition, found in groupby(samples(snapshot), _definition):
        of_all = [((*instance, *each.labels.items()), each.value) for each in found]
        yield Family(definition.metric, definition.kind, definition.help, of_all)


def _definition(sample: Sample) -> Definition:
    return sample.definition


def _facts(snapshot: Snapshot, instance: Labels) -> Iterator[Family]:
    """Yield what is no figure: versions, services and addresses."""
    yield _info("build", "The version of netsrvd.", [(*instance, ("version", snapshot.version))])
    services, addresses = [], []
    for each in snapshot.listeners:
        name = *instance, ("listener", each.name), ("protocol", each.protocol)
        services.append((*name, ("service", each.service)))
        for one in each.addresses:
            where = ("address", one.host), ("port", str(one.port)), ("origin", one.origin)
            addresses.append((*name, *where))
    yield _info("listener", "The service of a listener.", services)
    yield _info("socket", "The addresses of a listener, and who bound them.", addresses)


def _info(name: str, text: str, facts: Iterable[Labels]) -> Family:
    return Family(f"netsrvd_{name}_info", "info", text, [(labels, 1) for labels in facts])
