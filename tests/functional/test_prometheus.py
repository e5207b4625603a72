"""The examples for users of Prometheus: alert rules and a dashboard, with a real Prometheus."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.functional.conftest import Start
from tests.support.balancers import server
from tests.support.clients import answer
from tests.support.patience import eventually
from tests.support.peers import connect, exchange
from tests.support.run import Run, echo, free_port
from tests.support.scraping import Prometheus, prometheus

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "packaging/examples/prometheus"
RULES = EXAMPLES / "netsrvd.rules.yml"
RULE_TESTS = ROOT / "tests/data/prometheus/netsrvd.rules.test.yml"
DASHBOARD = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
DOCUMENT = ROOT / "docs/monitoring.md"

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    f"{panel['title']} {panel['id']}{target['refId']}": target["expr"]
    for panel in PANELS
    for target in panel["targets"]
}
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.*), (?P<label>\w+)\)")
GRAFANA = {"$__rate_interval": "1m", "$job": "netsrvd", "$instance": ".*", "$listener": ".*"}
"""What Grafana puts in the place of its variables, where all instances are chosen."""


class Scene(NamedTuple):
    """A daemon after a load, and a Prometheus that has scraped it."""

    run: Run
    server: Prometheus


@pytest.fixture
def scene(start: Start, port: int, tmp_path: Path) -> Iterator[Scene]:
    """Start both; send connections and datagrams, some of which are refused."""
    scraped = free_port(port + 1)
    metrics = {"service": "metrics", "host": ["127.0.0.1"], "port": scraped}
    listeners: Any = echo(port)["listener"]
    listeners["echo"] |= {"deny": ["127.0.0.66"]}
    run = start({"listener": {**listeners, "metrics": metrics}})
    listens = free_port(scraped + 1)
    with prometheus(tmp_path, listens, f"127.0.0.1:{scraped}", RULES) as found:
        found.wait("up", 1)
        with connect(("127.0.0.1", port)) as sock:
            assert exchange(sock, [b"x" * 1000]) == b"x" * 1000
        assert answer(port, b"y" * 100) == b"y" * 100
        refused(port)
        found.wait('sum(netsrvd_connections_refused_total{reason="access"})', 1)
        found.wait("count_over_time(up[1m]) > bool 3", 1)  # a rate needs two samples
        yield Scene(run, found)


def refused(port: int) -> None:
    """Connect from an address that is not admitted."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.66", 0))
        sock.connect(("127.0.0.1", port))
        try:
            assert sock.recv(1) == b""
        except ConnectionResetError:
            return


def filled_in(query: str) -> str:
    """Return a query of the dashboard as Grafana sends it."""
    for name, value in GRAFANA.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def test_alert_rules_fire_when_they_should(tmp_path: Path) -> None:
    """promtool accepts the rules; each fires when it should, and none does for a daemon that is
    well.
    """
    for path in (RULES, RULE_TESTS, EXAMPLES / "prometheus.yml"):
        shutil.copy(path, tmp_path)
    promtool = server("promtool")
    for command in (
        ["check", "rules", "--lint=all", "--lint-fatal", RULES.name],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", RULE_TESTS.name],
    ):
        done = subprocess.run(
            [promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> set[str]:
    """Return the names of all alerts."""
    return {*re.findall(r"- alert: (\w+)", RULES.read_text())}


def test_each_alert_has_a_test_and_a_line() -> None:
    """promtool tests that each alert fires and that it does not, and the document explains it."""
    text = RULE_TESTS.read_text()
    firing = re.findall(r"- alertname: (\w+)\n.*\n +exp_alerts:\n", text)
    silent = re.findall(r"\{alertname: (\w+), .*exp_alerts: \[\]\}", text)
    assert {*firing} == {*silent} == alerts()
    explained = re.findall(r"^\| `(Netsrvd\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert {*explained} == alerts()


def test_each_query_of_the_dashboard_returns_something(scene: Scene) -> None:
    """Each query of each panel, and each variable, has values after a short run."""
    assert len(QUERIES) > 20
    for query_name, query in QUERIES.items():
        expression = filled_in(query)
        eventually(lambda: scene.server.query(expression), query_name)  # noqa: B023
    for name in ("job", "instance", "listener"):
        found = LABEL_VALUES.fullmatch(filled_in(VARIABLES[name]["definition"]))
        assert found, name
        selector = found["selector"]  # a scrape that takes too long leaves it without values
        rows = eventually(lambda: scene.server.query(selector), selector)  # noqa: B023
        values = {each["metric"].get(found["label"]) for each in rows}
        assert None not in values
    assert values == {"echo", "metrics"}


def test_the_rules_ask_for_metrics_that_exist(scene: Scene) -> None:
    """Each metric that a rule names is one of the daemon's."""
    for metric in {*re.findall(r"\b(?:netsrvd_\w+|up)\b", RULES.read_text())}:
        eventually(lambda: scene.server.query(metric), metric)  # noqa: B023


def test_an_alert_fires(scene: Scene) -> None:
    """No alert is active after the load; a reload that fails makes the one for it fire, and the
    next one that succeeds ends it.
    """
    firing = 'ALERTS{alertstate="firing"}'
    assert scene.server.query(firing) == []
    good = scene.run.config.read_text()
    scene.run.reload("nonsense")
    [alert] = eventually(lambda: scene.server.query(firing), "an alert fires")
    assert alert["metric"]["alertname"] == "NetsrvdReloadFailed"
    scene.run.reload(good)
    eventually(lambda: not scene.server.query(firing), "it is over")


def test_panels_do_not_overlap() -> None:
    """Each panel has a title, a description, an id of its own and a place of its own."""
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(places) == len({*places})
    assert max(x for x, _ in places) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["title"] and panel["description"] for panel in PANELS)
