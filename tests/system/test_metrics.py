"""The service `metrics` on a real Debian: its example, promtool and Debian's Prometheus."""

import json

import pytest

from tests.support.installed import CONFIG, is_active
from tests.support.machine import Machine
from tests.support.patience import eventually

EXAMPLE = "/usr/share/doc/netsrvd/examples/metrics.toml"
TARGET = "127.0.0.1:51425"

PROMETHEUS = f"""
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
scrape_configs:
  - job_name: netsrvd
    static_configs:
      - targets: ["{TARGET}"]
"""

RUN = """
mkdir -p /srv/prometheus && cd /srv/prometheus && cat >prometheus.yml
systemd-run --unit=scraper --collect --working-directory=/srv/prometheus prometheus \
    --config.file=prometheus.yml --web.listen-address=127.0.0.1:9090 --log.level=warn
"""

LOAD = "for i in $(seq 25); do printf '%01000d' 0 | nc -N 127.0.0.1 51423; done"


@pytest.fixture(scope="module")
def scraped(installed: Machine) -> Machine:
    """Give a machine on which the example is in force, as its text says."""
    installed.run("cp", EXAMPLE, CONFIG)
    installed.run("netsrvd", "apply")
    return installed


def metrics(machine: Machine, *options: str) -> str:
    """Return what curl gets."""
    return machine.run("curl", "-sSf", *options, f"http://{TARGET}/metrics").stdout


def test_the_package_brings_what_it_needs(installed: Machine) -> None:
    """It recommends h11, and does not need it for anything else."""
    assert "python3-h11" in installed.run("dpkg-query", "-W", "-f${Recommends}", "netsrvd").stdout


def test_promtool_has_nothing_to_say(scraped: Machine) -> None:
    """systemd starts the daemon for the first scrape, in its sandbox."""
    text = metrics(scraped)
    assert is_active(scraped, "netsrvd.service")
    done = scraped.run("promtool", "check", "metrics", input=text)
    assert done.stdout + done.stderr == ""
    assert 'origin="systemd"' in text


def number(machine: Machine, expression: str) -> float | None:
    """Return the value of an expression in Prometheus; None if it has none."""
    url = "http://127.0.0.1:9090/api/v1/query"
    asking = ["curl", "-sfG", url, "--data-urlencode", f"query={expression}"]
    asked = machine.run(*asking, check=False)
    found = json.loads(asked.stdout or "{}").get("data", {}).get("result", [])
    return float(found[0]["value"][1]) if len(found) == 1 else None


def test_prometheus_scrapes_it(scraped: Machine) -> None:
    """Debian's own Prometheus sees the daemon up, and its counters grow by what was sent."""
    accepted = 'netsrvd_connections_accepted_total{listener="echo",protocol="tcp"}'
    received = 'netsrvd_received_bytes_total{listener="echo",protocol="tcp"}'
    scraped.run("sh", "-c", RUN, input=PROMETHEUS)
    try:
        eventually(lambda: number(scraped, "up") == 1, "the first scrape")
        eventually(lambda: number(scraped, accepted) == 0, "its samples")
        scraped.run("sh", "-c", LOAD)
        eventually(lambda: number(scraped, accepted) == 25, "those of the load")
        for metric, grown in ((accepted, 25), (received, 25_000)):
            span = f"max_over_time({metric}[5m]) - min_over_time({metric}[5m])"
            assert number(scraped, span) == grown
            assert (number(scraped, f"rate({metric}[5m])") or 0) > 0
    finally:
        scraped.run("systemctl", "stop", "scraper.service", check=False)
    journal = scraped.journal("-u", "netsrvd", "NETSRVD_LISTENER=metrics")
    assert [each for each in journal if "NETSRVD_PEER_ADDRESS" in each] == []


def test_another_user_may_not_reach_it_from_elsewhere(scraped: Machine) -> None:
    """It listens on loopback alone."""
    listening = scraped.run("ss", "-Hltn", "sport", "=", "51425").stdout.splitlines()
    assert sorted(line.split()[3] for line in listening) == ["127.0.0.1:51425", "[::1]:51425"]
