"""The service `metrics` on a real Debian: its example, promtool and Debian's Prometheus."""

import json

import pytest

from tests.support.installed import CONFIG, is_active, main_pid, tidy_up
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
    assert main_pid(scraped)
    done = scraped.run("promtool", "check", "metrics", input=text)
    assert done.stdout + done.stderr == ""
    assert 'origin="systemd"' in text


def test_the_names_of_the_hosts_file_are_known(scraped: Machine) -> None:
    """The daemon reads /etc/hosts from within its sandbox; a name that the file lacks has 421."""
    scraped.run("sh", "-c", "echo 127.0.1.1 lab.example.org >>/etc/hosts")
    try:
        scraped.run("systemctl", "restart", "netsrvd.service")
        assert metrics(scraped, "--header", "Host: lab.example.org")
        asked = ["curl", "-sS", "--header", "Host: evil.example.org", f"http://{TARGET}/"]
        assert scraped.run(*asked).stdout.startswith("421 ")
    finally:
        scraped.run("sed", "-i", "/ lab.example.org$/d", "/etc/hosts")


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
            # A scrape may come between the beginning of the last connection and its bytes.
            eventually(lambda span=span, grown=grown: number(scraped, span) == grown, span)
            assert (number(scraped, f"rate({metric}[5m])") or 0) > 0
    finally:
        scraped.run("systemctl", "stop", "scraper.service", check=False)
    journal = scraped.journal("-u", "netsrvd", "NETSRVD_LISTENER=metrics")
    assert [each for each in journal if "NETSRVD_PEER_ADDRESS" in each] == []


def test_another_user_may_not_reach_it_from_elsewhere(scraped: Machine) -> None:
    """It listens on loopback alone."""
    listening = scraped.run("ss", "-Hltn", "sport", "=", "51425").stdout.splitlines()
    assert sorted(line.split()[3] for line in listening) == ["127.0.0.1:51425", "[::1]:51425"]


def test_the_command_prints_all_instances_to_a_member_of_adm(installed: Machine) -> None:
    """Each instance has its unit as a label, as its own scrape has; promtool has nothing to say."""
    installed.run("rm", "-f", CONFIG)
    installed.run("systemctl", "stop", "netsrvd*.socket", "netsrvd.service")
    installed.run("systemctl", "start", "netsrvd@1.socket", "netsrvd@2.socket")
    installed.run("systemctl", "start", "netsrvd@1.service", "netsrvd@2.service")
    installed.run("useradd", "--groups", "adm", "operator-of-lab")
    try:
        done = installed.run("runuser", "-u", "operator-of-lab", "--", "netsrvd", "metrics")
    finally:
        installed.run("systemctl", "stop", "netsrvd@1.socket", "netsrvd@2.socket")
        installed.run("systemctl", "stop", "netsrvd@1.service", "netsrvd@2.service")
        tidy_up(installed)
    for number in (1, 2):
        unit = f"netsrvd@{number}.service"
        assert f'netsrvd_build_info{{unit="{unit}",' in done.stdout
        accepted = f'netsrvd_connections_accepted_total{{unit="{unit}",listener="echo"'
        assert done.stdout.count(accepted) == 1
    checked = installed.run("promtool", "check", "metrics", input=done.stdout)
    assert checked.stdout + checked.stderr == ""


def test_the_command_starts_no_daemon(installed: Machine) -> None:
    """It asks systemd first, and says that none runs."""
    installed.run("systemctl", "stop", "netsrvd.service")
    done = installed.run("netsrvd", "metrics", check=False)
    assert (done.returncode, done.stdout) == (69, "")
    assert "no netsrvd runs" in done.stderr
    assert not is_active(installed, "netsrvd.service")
