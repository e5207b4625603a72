"""`netsrvd probe` as a test runs it: in a namespace, with its JSON read."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.support import probes
from tests.support.impairment.truth import Truth
from tests.support.namespaces import Namespace


@dataclass(frozen=True)
class Probed:
    """What a run said."""

    status: int
    report: dict[str, Any]
    """The whole of its JSON."""

    @property
    def target(self) -> dict[str, Any]:
        """The only target."""
        [target] = self.report["targets"]
        return target

    @property
    def figures(self) -> dict[str, Any]:
        """The statistics of the only target."""
        return self.target["statistics"]

    @property
    def trips(self) -> list[dict[str, Any]]:
        """The round trips of the only stream of the only target, in the order of sending."""
        [stream] = self.target["streams"]
        return stream["round_trips"]

    def of_state(self, state: str) -> set[int]:
        """Return the sequence numbers of the probes of which this became."""
        return {each["sequence"] for each in self.trips if each["state"] == state}


def probe(space: Namespace, *arguments: str, planted: str = "") -> Probed:
    """Run the command in a namespace to its end, with `--json`, after Python code `planted`."""
    with space.entered():
        ended = probes.probe("--json", *arguments, planted=planted)
    assert ended.stdout, ended.stderr
    return Probed(ended.returncode, json.loads(ended.stdout))


def differences_ns(probed: Probed, truth: Truth) -> Iterator[int]:
    """Yield by how much longer than truly each round trip is said to have been.

    Those are left out that have no packet of their own on the way back: TCP may put several answers
    into one segment.
    """
    true = {each.echo_sequence: each.ns for each in truth.echoes()}
    for trip in probed.trips:
        ns = true.get(trip["sequence"])
        if trip["state"] == "received" and ns is not None:
            yield trip["round_trip_ns"] - ns
