"""What an administrator changes on the host while the daemon, whose root is its own, runs."""

from collections.abc import Iterator

import pytest

from tests.support.installed import CLIENT, SERVICE, configure, shown
from tests.support.machine import Machine
from tests.support.patience import eventually

REPLACE = {
    "mv": "cp -a /etc/netsrvd /etc/new; mv /etc/netsrvd /etc/old; mv /etc/new /etc/netsrvd",
    "switched-symlink": (
        "cp -a /etc/netsrvd /etc/new; cp -a /etc/netsrvd /etc/old; rm -r /etc/netsrvd;"
        "ln -s /etc/old /etc/netsrvd; systemctl restart netsrvd; ln -sfn /etc/new /etc/netsrvd"
    ),
    "removed-and-restored": (
        "cp -a /etc/netsrvd /etc/new; rm -r /etc/netsrvd; cp -a /etc/new /etc/netsrvd"
    ),
    "made-later": (
        "mv /etc/netsrvd /etc/old; systemctl restart netsrvd; cp -a /etc/old /etc/netsrvd"
    ),
}


@pytest.fixture
def running(quiet: Machine) -> Iterator[Machine]:
    """Give a machine on which the service runs; put its configuration back in the end."""
    quiet.run("cp", "-a", "/etc/netsrvd", "/etc/kept")
    quiet.run("systemctl", "start", SERVICE)
    yield quiet
    quiet.run("sh", "-ec", "rm -rf /etc/netsrvd /etc/old /etc/new; mv /etc/kept /etc/netsrvd")
    quiet.run("systemctl", "restart", SERVICE)


def is_denied(machine: Machine) -> bool:
    """Return whether the configuration of a test, which denies loopback, is in force."""
    return machine.run("python3", CLIENT, "tcp", input="hello", check=False).returncode != 0


@pytest.mark.parametrize("how", REPLACE)
def test_a_reload_notices_a_replaced_directory(running: Machine, how: str) -> None:
    """A reload fails, says why and names the remedy, instead of reading the old directory; the
    remedy puts the new configuration into force.
    """
    running.run("sh", "-ec", REPLACE[how])
    configure(running, '[listener.echo]\ndeny = "loopback"\n')

    reloaded = running.run("systemctl", "reload", SERVICE, check=False)

    assert reloaded.returncode != 0
    status = shown(running, "StatusText")
    assert status.startswith("Reload failed, the old configuration is in force: /etc/netsrvd: ")
    assert "`systemctl restart`" in status
    running.run("systemctl", "restart", SERVICE)
    assert is_denied(running)
    running.run("systemctl", "reload", SERVICE)


@pytest.mark.parametrize("how", ["mv /srv/quotes /srv/old", "rm -r /srv/quotes"])
def test_a_reload_notices_replaced_quotes(running: Machine, how: str) -> None:
    """The same holds for every directory that a drop-in mounts, and for SIGHUP from any process."""
    drop_in = f"/run/systemd/system/{SERVICE}.d"
    make = "mkdir /srv/quotes; echo %s >/srv/quotes/one"
    running.run("sh", "-ec", f"rm -rf /srv/old; {make % 'first'}; mkdir -p {drop_in}")
    shows = "[Service]\nBindReadOnlyPaths=/srv/quotes\n"
    running.run("sh", "-c", f"cat >{drop_in}/test.conf", input=shows)
    configure(running, '[listener.q]\nservice = "qotd"\nquotes = "/srv/quotes"\nport = 51424\n')
    running.run("systemctl", "daemon-reload")
    running.run("systemctl", "restart", SERVICE)
    running.run("systemctl", "reload", SERVICE)
    running.run("sh", "-ec", f"{how}; {make % 'second'}")

    running.run("systemctl", "kill", "--signal=HUP", SERVICE)

    fault = "Reload failed, the old configuration is in force: /srv/quotes: it has been"
    eventually(lambda: shown(running, "StatusText").startswith(fault), "the failure")
    running.run("systemctl", "restart", SERVICE)
    assert running.run("nc.openbsd", "-d", "127.0.0.1", "51424").stdout.strip() == "second"
    running.run("rm", "-r", drop_in, "/srv/quotes")
    running.run("systemctl", "daemon-reload")


def test_a_reload_reads_a_replaced_drop_in_directory(running: Machine) -> None:
    """A conf.d that was replaced is seen by a reload, for it lies in the directory."""
    running.run("sh", "-ec", "cd /etc/netsrvd; cp -a conf.d new; mv conf.d old; mv new conf.d")
    configure(running, '[listener.echo]\ndeny = "loopback"\n')
    running.run("systemctl", "reload", SERVICE)
    assert is_denied(running)


def test_daytime_follows_the_time_zone_at_a_reload(running: Machine) -> None:
    """After `timedatectl set-timezone` and a reload the service `daytime` has the new time zone."""
    configure(running, '[listener.clock]\nservice = "daytime"\nport = 51424\n')
    running.run("systemctl", "reload", SERVICE)

    for zone, offset in (("Asia/Kolkata", "+05:30"), ("Pacific/Marquesas", "-09:30")):
        running.run("timedatectl", "set-timezone", zone)
        running.run("systemctl", "reload", SERVICE)
        said = running.run("nc.openbsd", "-d", "127.0.0.1", "51424").stdout
        assert said.rstrip().endswith(offset)
