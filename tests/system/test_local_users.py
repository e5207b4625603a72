"""What another user of the host can do to the service, and cannot."""

import pytest

from netsrvd.events.lifecycle import Reloaded
from netsrvd.events.sockets import PortShared
from tests.support.installed import (
    NOBODY,
    SERVICE,
    as_nobody,
    configure,
    main_pid,
    shown,
    talk,
    wait_records,
)
from tests.support.machine import Machine
from tests.support.patience import eventually
from tests.support.strangers import FILL_QUEUES, HOLD_UDP_PORT, TAKE_UDP_PORT

INSTANCE = "netsrvd@lab.service"


@pytest.mark.parametrize("unit", [SERVICE, INSTANCE])
def test_a_local_user_cannot_keep_the_service_from_reloading(quiet: Machine, unit: str) -> None:
    """The user finds nothing to connect to, and `systemctl reload` goes on working."""
    try:
        if unit == INSTANCE:
            quiet.run("systemctl", "stop", "netsrvd.socket")
        quiet.run("systemctl", "start", unit)
        pid = main_pid(quiet, unit)
        assert as_nobody(quiet, FILL_QUEUES, pid) == "0"
        quiet.run("systemctl", "reload", unit)
        assert len(wait_records(quiet, pid, Reloaded)) == 1
        configure(quiet, "nonsense = 1\n")
        assert quiet.run("systemctl", "reload", unit, check=False).returncode != 0
        assert "nonsense = 1: unknown key" in shown(quiet, "StatusText", unit)
    finally:
        quiet.run("systemctl", "stop", INSTANCE, "netsrvd@lab.socket")


def test_an_ordinary_user_reloads_a_daemon_of_its_own(quiet: Machine) -> None:
    """In the foreground and off the terminal; another user may not, and nothing is left behind."""
    quiet.run("systemctl", "stop", "netsrvd.socket")
    quiet.run("tee", "/srv/own.toml", input="")
    run = "mkdir -p /srv/own && chown nobody /srv/own && exec setpriv --reuid=65534 --regid=65534"
    run += " --clear-groups netsrvd run --config /srv/own.toml --detach --log journal"
    quiet.run("sh", "-c", f"{run} --pid-file /srv/own/pid")
    pid = quiet.run("cat", "/srv/own/pid").stdout.strip()
    quiet.run(*NOBODY, "netsrvd", "reload", pid)
    quiet.run("netsrvd", "reload", pid)
    other = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--"]
    denied = quiet.run(*other, "netsrvd", "reload", pid, check=False)
    assert denied.returncode == 64
    assert "ask as root" in denied.stderr
    assert quiet.run("sh", "-c", "ls -d /tmp/netsrvd* || true").stdout == ""
    assert talk(quiet, "tcp", "hello") == "hello"
    quiet.run("kill", pid)
    eventually(lambda: quiet.run("test", "-e", "/srv/own/pid", check=False).returncode, "its end")


def test_the_udp_port_is_anybodys_before_the_first_start(quiet: Machine) -> None:
    """Systemd's socket lets another user bind the same port. The daemon reports that, and its first
    start ends it for good: also while it does not run later.
    """
    quiet.run("systemctl", "restart", "netsrvd.socket")
    assert as_nobody(quiet, TAKE_UDP_PORT, "127.0.0.1", "51423") == "bound"
    unit = ["--unit=stranger", "--uid=nobody", "--property=Type=exec"]
    hold = ["python3", "-c", HOLD_UDP_PORT, "127.0.0.1", "51423"]
    quiet.run("systemd-run", *unit, *hold)
    eventually(lambda: quiet.journal("--unit", "stranger.service", "MESSAGE=bound"), "its socket")
    quiet.run("systemctl", "start", SERVICE)
    pid = main_pid(quiet)
    [told] = wait_records(quiet, pid, PortShared)
    assert told["NETSRVD_OTHER_ADDRESS"] == "127.0.0.1"
    quiet.run("systemctl", "stop", "stranger.service")
    quiet.run("systemctl", "stop", SERVICE)
    assert as_nobody(quiet, TAKE_UDP_PORT, "127.0.0.1", "51423") == "EADDRINUSE"


def test_root_reloads_a_daemon_that_has_given_root_up(quiet: Machine) -> None:
    """Its files and descriptors are closed to the user that it has become; the reload works."""
    quiet.run("systemctl", "stop", "netsrvd.socket")
    quiet.run("tee", "/srv/own.toml", input="")
    options = ["--config", "/srv/own.toml", "--user", "nobody", "--log", "journal"]
    quiet.run("netsrvd", "run", "--detach", *options, "--pid-file", "/run/own.pid")
    pid = quiet.run("cat", "/run/own.pid").stdout.strip()
    quiet.run("netsrvd", "reload", pid)
    denied = quiet.run(*NOBODY, "netsrvd", "reload", pid, check=False)
    assert denied.returncode == 64
    assert "ask as root" in denied.stderr
    assert talk(quiet, "tcp", "hello") == "hello"
    quiet.run("kill", pid)
    eventually(lambda: not quiet.run("ps", "-p", pid, check=False).stdout.count(pid), "its end")
