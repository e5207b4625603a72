"""Scrapes: what a client of the service `metrics` gets, and a real Prometheus that scrapes it."""

import http.client
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.balancers import balancer, server
from tests.support.patience import SECONDS, eventually

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by the name of the sample and its labels."""

PROMETHEUS = """
global:
  scrape_interval: {interval}
  scrape_timeout: {interval}
  evaluation_interval: 100ms
rule_files: [{rules}]
scrape_configs:
  - job_name: netsrvd
    static_configs:
      - targets: ["{target}"]
"""


def get(port: int, path: str = "/metrics", **headers: str) -> http.client.HTTPResponse:
    """Return the answer to a GET request, with its body read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        return answer
    finally:
        connection.close()


def scrape(port: int) -> Samples:
    """Return all samples; the strict parser of OpenMetrics has read them."""
    return samples(get(port, **OPENMETRICS).body.decode())  # type: ignore[attr-defined]


def samples(text: str) -> Samples:
    """Return the samples of a text in OpenMetrics."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples of a name that have these labels."""
    wanted = set(labels.items())
    found = [each for (of, having), each in samples.items() if of == name and wanted <= having]
    assert found, f"there is no {name} with {labels}"
    return sum(found)


def promtool_complaints(text: bytes) -> str:
    """Return what `promtool check metrics` says of a text; nothing if all is well."""
    done = subprocess.run(
        [server("promtool"), "check", "metrics"], input=text, capture_output=True, check=False
    )
    said = (done.stdout + done.stderr).decode()
    return said or ("" if done.returncode == 0 else f"status {done.returncode}")


class Prometheus:
    """A Prometheus that runs, by the port of its API."""

    def __init__(self, port: int) -> None:
        self._port = port

    def query(self, expression: str) -> list[Mapping[str, Any]]:
        """Return the vector that an expression is now."""
        arguments = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{arguments}"
        try:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                found: list[Mapping[str, Any]] = json.load(answer)["data"]["result"]
        except OSError:  # it does not listen yet
            return []
        return found

    def number(self, expression: str) -> float | None:
        """Return the one value that an expression has now; None if it has none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if len(found) == 1 else None

    def wait(self, expression: str, wanted: float) -> None:
        """Return when an expression has this value."""
        eventually(lambda: self.number(expression) == wanted, f"{expression} == {wanted}")


@contextmanager
def prometheus(
    folder: Path, port: int, target: str, rules: Path | str = "", interval: str = "100ms"
) -> Iterator[Prometheus]:
    """Run Prometheus, which scrapes a target at this interval and has no sample of a scrape that
    takes longer, until the end of the block. It evaluates the rules of a file ten times a second.
    """
    configuration = folder / "prometheus.yml"
    configuration.write_text(PROMETHEUS.format(target=target, rules=rules, interval=interval))
    argv: list[str | Path] = [
        server("prometheus"),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with balancer(folder, argv):
        yield Prometheus(port)
