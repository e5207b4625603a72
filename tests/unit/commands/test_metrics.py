"""netsrvd.commands.metrics: one text for the daemons of a host"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from netsrvd.commands import metrics
from netsrvd.commands.daemons import Found
from netsrvd.counters import Counters, Gauges, RunFigures
from netsrvd.errors import ControlError

RUNS = Found("netsrvd@1.service", "/run/1", is_running=True)
RUNS_TOO = Found("netsrvd@2.service", "/run/2", is_running=True)
STANDS = Found("netsrvd@3.service", "/run/3", is_running=False)
SINGLE = Found("netsrvd.service", "/run/0", is_running=True)


def status(accepted: int) -> dict[str, Any]:
    """Return an answer to `Status`, with a figure of a version that is not known here."""
    counters = {**vars(Counters(accepted=accepted)), "later": 1}
    return {
        "version": "1.0",
        "totals": {},
        "run": vars(RunFigures()),
        "listeners": [
            {
                "name": "lab",
                "service": "echo",
                "protocol": "tcp",
                "addresses": [{"host": "::1", "port": 7, "origin": "bound", "problem": ""}],
                "counters": counters,
                "gauges": {**vars(Gauges()), "flows_live": None},
            }
        ],
    }


@pytest.fixture
def daemons(monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    """The daemons of the host; each has accepted as many connections as its path has in digits."""
    here: list[Found] = []

    @contextmanager
    def asking(found: Found) -> Iterator[Any]:
        class Daemon:
            def call(self, _method: str) -> dict[str, Any]:
                return status(int(found.path.rpartition("/")[2]))

        yield Daemon()

    monkeypatch.setattr(metrics, "find", lambda _: here)
    monkeypatch.setattr(metrics, "asking", asking)
    return here


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert metrics.run(argparse.Namespace(control=None, openmetrics=False)) == 0
    return capsys.readouterr().out.splitlines()


def test_each_metric_stands_once_with_the_samples_of_all(
    daemons: list[Found], capsys: pytest.CaptureFixture[str]
) -> None:
    """Instances have their units as labels; one that does not run is left out."""
    daemons += [RUNS, RUNS_TOO, STANDS]
    lines = printed(capsys)
    helps = [line for line in lines if line.startswith("# HELP")]
    assert len(helps) == len({*helps}) > 20
    name = "netsrvd_connections_accepted_total"
    assert [line for line in lines if line.startswith(name)] == [
        f'{name}{{unit="netsrvd@{number}.service",listener="lab",protocol="tcp"}} {number}'
        for number in (1, 2)
    ]
    assert not [line for line in lines if "later" in line]


def test_a_single_daemon_has_no_unit(
    daemons: list[Found], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its metrics are those of a scrape."""
    daemons += [SINGLE]
    lines = printed(capsys)
    assert 'netsrvd_build_info{version="1.0"} 1' in lines
    assert not [line for line in lines if "unit=" in line]


def test_none_that_runs_is_an_error(daemons: list[Found]) -> None:
    """Nothing is printed."""
    daemons += [STANDS]
    with pytest.raises(ControlError, match="no netsrvd runs"):
        metrics.run(argparse.Namespace(control=None, openmetrics=False))
