"""`netsrvd check` on a real Debian: it judges as netsrvd.service will, and so will the service."""

import json
from collections.abc import Iterator

import pytest

from netsrvd.events.lifecycle import Reloaded, ReloadFailed
from tests.support.installed import CONFIG, SERVICE, configure, main_pid, shown, wait_records
from tests.support.machine import Machine

QUOTES = '[listener.echo]\nservice = "qotd"\nquotes = "/srv/quotes"\n'
MODULE = "/usr/local/lib/netsrvd/lab.py"
HANDLER = '[listener.echo]\nservice = "python:lab:serve"\n'
MAKE_HANDLER = (
    f"mkdir -p {MODULE.rpartition('/')[0]}; echo 'def serve(_): ...' > {MODULE}; "
    f"chmod 640 {MODULE}; echo '{HANDLER}' > {CONFIG}"
)
DROP_IN = f"/run/systemd/system/{SERVICE}.d/test.conf"

UNREADABLE = {
    "a drop-in without permission": (
        f"umask 027; echo 'workers = 1' > {CONFIG}",
        f"{CONFIG}: the user of netsrvd.service may not read {CONFIG} (mode 0640): chmod o+r",
    ),
    "a folder without permission": (
        f"echo 'workers = 1' > {CONFIG}; chmod o-rx /etc/netsrvd/conf.d",
        "the user of netsrvd.service may not read /etc/netsrvd/conf.d (mode 0750): chmod o+rx",
    ),
    "a drop-in that leads outside": (
        f"echo 'workers = 1' > /srv/out.toml; ln -s /srv/out.toml {CONFIG}",
        f"{CONFIG}: netsrvd.service does not see /srv",
    ),
    "quotes elsewhere": (
        f"echo A quote. > /srv/quotes; echo '{QUOTES}' > {CONFIG}",
        f'{CONFIG}:3: listener.echo.quotes = "/srv/quotes": netsrvd.service does not see /srv',
    ),
    "a handler without permission": (
        MAKE_HANDLER,
        f'{CONFIG}:2: listener.echo.service = "python:lab:serve": the user of netsrvd.service may',
    ),
    "a FIFO": (
        f"mkfifo {CONFIG}",
        f"{CONFIG}: cannot be read: it is a FIFO; only regular files are read",
    ),
}
"""What makes a file unreadable for the service, and what is said of it."""


@pytest.fixture
def clean(quiet: Machine) -> Iterator[Machine]:
    """A machine on which the test's files and permissions are undone in the end."""
    yield quiet
    quiet.run("rm", "-rf", CONFIG, "/srv/out.toml", "/srv/quotes", MODULE, DROP_IN)
    quiet.run("chmod", "755", "/etc/netsrvd/conf.d")
    quiet.run("systemctl", "daemon-reload")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_it_finds_what_only_the_service_would_find(clean: Machine, kind: str) -> None:
    """As root, who may read everything, `check` names the file that the service cannot read; and
    the service does not start by it.
    """
    script, words = UNREADABLE[kind]
    clean.run("sh", "-ec", script)
    done = clean.run("netsrvd", "check", check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert words in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[-1] == "netsrvd: not valid: 1 fault"
    assert clean.run("systemctl", "start", SERVICE, check=False).returncode != 0
    assert shown(clean, "ExecMainStatus") == "78"


def test_what_the_service_can_read_is_valid(clean: Machine) -> None:
    """The verdict says whose eyes it was; a drop-in of the unit that shows more is honoured."""
    clean.run("sh", "-ec", UNREADABLE["quotes elsewhere"][0])
    clean.run("mkdir", "-p", DROP_IN.rpartition("/")[0])
    clean.run("sh", "-ec", f"echo '[Service]\nBindReadOnlyPaths=/srv/quotes' > {DROP_IN}")
    clean.run("systemctl", "daemon-reload")
    last = clean.run("netsrvd", "check").stdout.splitlines()[-1]
    assert last.startswith("# valid: 2 files, read as netsrvd.service would, serves echo (qotd, ")
    assert json.loads(clean.run("netsrvd", "check", "--json").stdout)["as_service"] is True
    clean.run("systemctl", "start", SERVICE)
    main_pid(clean)


def test_a_unit_without_its_own_user_and_root_is_judged_as_it_is(clean: Machine) -> None:
    """Where a drop-in takes the sandbox away, `check` says no more than is true."""
    clean.run("sh", "-ec", UNREADABLE["quotes elsewhere"][0])
    clean.run("mkdir", "-p", DROP_IN.rpartition("/")[0])
    clean.run("sh", "-ec", f"printf '[Service]\nRootDirectory=\nWorkingDirectory=/\n' > {DROP_IN}")
    clean.run("systemctl", "daemon-reload")
    clean.run("netsrvd", "check")
    clean.run("systemctl", "start", SERVICE)
    main_pid(clean)


def test_without_a_unit_it_says_that_it_did_not_look(clean: Machine) -> None:
    """Where systemd knows no netsrvd.service, or does not run, nothing is promised of it."""
    note = "# not tried as netsrvd.service would read it: "
    clean.run("systemctl", "mask", "--runtime", SERVICE)
    try:
        found = clean.run("netsrvd", "check").stdout
        assert f"{note}there is no such unit\n" in found
    finally:
        clean.run("systemctl", "unmask", "--runtime", SERVICE)
    hidden = "mount -t tmpfs tmpfs /run/systemd && exec netsrvd check"
    found = clean.run("unshare", "--mount", "sh", "-c", hidden).stdout
    assert f"{note}systemd does not manage this host\n" in found


def test_a_reload_is_not_held_up_by_a_fifo(clean: Machine) -> None:
    """It fails at once, the daemon serves on, and the journal has the reason once."""
    clean.run("systemctl", "start", SERVICE)
    pid = main_pid(clean)
    clean.run("mkfifo", CONFIG)
    assert clean.run("systemctl", "reload", SERVICE, check=False).returncode != 0
    assert main_pid(clean) == pid
    [record] = wait_records(clean, pid, ReloadFailed)
    assert "it is a FIFO" in record["MESSAGE"]
    own = f"_SYSTEMD_INVOCATION_ID={shown(clean, 'InvocationID')}"
    told = [each for each in clean.journal(own) if "it is a FIFO" in each["MESSAGE"]]
    assert len(told) == 1


def test_reload_finds_the_daemons(clean: Machine) -> None:
    """Without a PID it reloads what systemd runs; where nothing runs it says so."""
    clean.run("systemctl", "stop", SERVICE)
    done = clean.run("netsrvd", "reload", check=False)
    assert done.returncode == 69
    assert done.stderr.startswith("netsrvd: systemd runs neither netsrvd.service nor an instance")
    clean.run("systemctl", "start", SERVICE)
    pid = main_pid(clean)
    configure(clean, "[log]\nlevel = 'debug'\n")
    assert clean.run("netsrvd", "reload").stderr == ""
    [record] = wait_records(clean, pid, Reloaded)
    assert "log.level" in record["MESSAGE"]
    configure(clean, "wrkers = 1\n")
    done = clean.run("netsrvd", "reload", check=False)
    assert done.returncode == 78
    assert done.stderr.startswith(f"netsrvd: netsrvd.service: {CONFIG}:1: wrkers = 1: unknown key")
