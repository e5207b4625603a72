"""The way of docs/monitoring.md from nothing to an alert, typed on a real Debian."""

import re
import textwrap

import pytest

from tests.support.documents import ROOT
from tests.support.installed import CONFIG
from tests.support.machine import Machine
from tests.support.patience import eventually

SECTION = re.compile(r"^## From nothing to an alert\n(.*?)^## ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^   ```\n(.*?)^   ```$", re.MULTILINE | re.DOTALL)
CONFIGURATION = "/etc/prometheus/prometheus.yml"


def blocks() -> list[list[str]]:
    """Return the lines of each block of commands of the section."""
    found = SECTION.search((ROOT / "docs/monitoring.md").read_text())
    assert found
    return [textwrap.dedent(block).splitlines() for block in BLOCK.findall(found[1])]


def typed(machine: Machine, lines: list[str]) -> str:
    """Type commands; return what they print."""
    return machine.run("bash", "-o", "pipefail", "-ec", "\n".join(lines)).stdout


@pytest.fixture
def watched(installed: Machine) -> Machine:
    """Give a machine on which the service of Prometheus may start."""
    installed.run("rm", "-f", CONFIG)
    installed.run("systemctl", "unmask", "prometheus.service")
    return installed


def test_the_way_to_an_alert(watched: Machine) -> None:
    """Prometheus scrapes netsrvd after these commands, and the alert fires after a reload that
    fails; it ends after one that succeeds.
    """
    metrics, prometheus, alert = blocks()
    assert "netsrvd_build_info{" in typed(watched, metrics)

    *setting_up, restart, is_up = prometheus
    typed(watched, setting_up)
    watched.run("sed", "-i", "s/: 15s/: 1s/", CONFIGURATION)  # as the test is less patient
    typed(watched, [restart])
    up = 'up{instance="localhost:51425", job="netsrvd"} => 1 '
    eventually(lambda: up in asked(watched, is_up), "it is scraped")

    fault, failing_reload, firing, remedy, reload = alert
    assert asked(watched, firing) == ""
    typed(watched, [fault, failing_reload])
    eventually(lambda: 'alertname="NetsrvdReloadFailed"' in asked(watched, firing), "it fires")
    typed(watched, [remedy, reload])
    eventually(lambda: asked(watched, firing) == "", "it is over")
    assert up in asked(watched, is_up)
    watched.run("systemctl", "stop", "prometheus.service")


def asked(machine: Machine, command: str) -> str:
    """Return what a query prints; nothing as long as Prometheus does not listen."""
    return machine.run("bash", "-c", command, check=False).stdout.strip("\n")
