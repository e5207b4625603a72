"""What `netsrvd probe` can do stands in its manual and its completions."""

import json
import re
from pathlib import Path

import pytest

from netsrvd import arguments
from netsrvd.probe import json_form, report
from netsrvd.probe.settings import Settings
from netsrvd.probe.statistics import Limit
from netsrvd.probe.targets import Target
from netsrvd.probe.trips import State, Stream

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "packaging/man/netsrvd-probe.1"
COMPLETIONS = sorted((ROOT / "packaging/completions").glob("*/*"))


def options() -> list[str]:
    """Return the long options of the command."""
    top = arguments.parser()
    [commands] = [each.choices for each in top._actions if isinstance(each.choices, dict)]
    actions = commands["probe"]._actions
    return [action.option_strings[-1] for action in actions if action.option_strings]


@pytest.mark.parametrize("path", COMPLETIONS, ids=lambda path: path.parent.name)
def test_completions_have_every_option(path: Path) -> None:
    """Each shell completes all options of the command."""
    text = path.read_text()
    missing = [
        word
        for word in options()
        if not re.search(rf"(--|-l ){re.escape(word.removeprefix('--'))}\b", text)
    ]
    assert missing == []


def keys(value: object) -> set[str]:
    """Return all keys of nested objects, but not those that are values counted."""
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    inner = set().union(*(keys(each) for name, each in value.items() if name != "configuration"))
    return {*value} | inner


def test_manual_has_every_member_of_the_object() -> None:
    """netsrvd-probe(1) names each member of the JSON object."""
    stream = Stream(Target("192.0.2.1", ("192.0.2.1", 862)), 100)
    for reflected in (1, 2):
        trip = stream.begin(1, 1)
        trip.received_ns = trip.reflector_sent_ns = trip.reflector_received_ns = reflected
        trip.remote_clock = (1, 2)
        trip.connect_ns, trip.other_address, trip.truncated, trip.damaged = 1, "a", True, True
        trip.error = "none"
        stream.receive(trip)
        stream.receive(trip)
        assert trip.state is State.RECEIVED
    settings = Settings()
    targets = report.targets(settings, [stream])
    found = report.Report(settings, 0.0, 1.0, False, 0.0, [targets[0]._replace(limit=Limit(1, 2))])
    shown = json_form.shape(found)
    json.dumps(shown)
    manual = {*re.findall(r"\w+", MANUAL.read_text())}
    assert keys(shown) - manual == set()
