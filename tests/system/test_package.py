"""What administrators do with the package on a real Debian, in the order in which they do it."""

import re
import subprocess
from pathlib import Path

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.flows import FlowBegan
from netsrvd.events.lifecycle import Ready, Reloaded, ReloadFailed, Starting, Stopped
from tests.support import examples
from tests.support.installed import (
    CLIENT,
    CONFIG,
    configure,
    is_active,
    shown,
    talk,
)
from tests.support.loads import Load, visited
from tests.support.machine import Machine
from tests.support.manuals import Page, pages
from tests.support.patience import eventually


def records(machine: Machine, *args: str) -> list[dict[str, str]]:
    return machine.journal("--unit=netsrvd.service", *args)


def invocation(machine: Machine, *args: str) -> list[dict[str, str]]:
    """Return the records of the latest start of the service."""
    return machine.journal(f"_SYSTEMD_INVOCATION_ID={shown(machine, 'InvocationID')}", *args)


def assert_none_refused(load: Load) -> None:
    assert (load.connections > 0, load.faults) == (True, [])


def test_installation_listens_and_runs_nothing(quiet: Machine) -> None:
    """After the installation the socket is enabled and listens, and no daemon runs."""
    assert is_active(quiet, "netsrvd.socket")
    assert not is_active(quiet, "netsrvd.service")
    assert quiet.run("systemctl", "is-enabled", "netsrvd.socket").stdout.strip() == "enabled"
    enabled = quiet.run("systemctl", "is-enabled", "netsrvd.service", check=False).stdout.strip()
    assert enabled == "disabled"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_first_client_starts_the_daemon(quiet: Machine, protocol: str) -> None:
    """The first connection, or the first datagram, starts the daemon and is answered by it."""
    quiet.run("systemctl", "stop", "netsrvd.service")

    assert talk(quiet, protocol, "hello") == "hello"

    # It serves a moment before it says that it is ready.
    eventually(lambda: is_active(quiet, "netsrvd.service"), "it runs")
    eventually(lambda: invocation(quiet, "NETSRVD_ORIGIN=systemd"), "the records of its sockets")
    assert invocation(quiet, "NETSRVD_ORIGIN=bound") == []


def test_netcat_gets_its_words_back(quiet: Machine) -> None:
    """What is typed into nc comes back."""
    assert quiet.run("nc.openbsd", "-N", "127.0.0.1", "51423", input="typed\n").stdout == "typed\n"


def test_journal_has_both_records_of_a_connection(quiet: Machine) -> None:
    """A connection has one record when it comes and one when it goes, with all their fields."""
    talk(quiet, "tcp", "12345")
    quiet.run("systemctl", "stop", "netsrvd.service")

    accepted = records(quiet, f"MESSAGE_ID={Accepted.MESSAGE_ID}")[-1]
    [closed] = records(
        quiet,
        f"MESSAGE_ID={Closed.MESSAGE_ID}",
        f"NETSRVD_CONNECTION={accepted['NETSRVD_CONNECTION']}",
    )

    for record in (accepted, closed):
        assert record["NETSRVD_LISTENER"] == record["NETSRVD_SERVICE"] == "echo"
        assert record["NETSRVD_PEER_ADDRESS"] == record["NETSRVD_LOCAL_ADDRESS"] == "127.0.0.1"
        assert record["NETSRVD_LOCAL_PORT"] == "51423"
        assert record["SYSLOG_IDENTIFIER"] == "netsrvd"
        assert record["PRIORITY"] == "6"
    assert closed["NETSRVD_PEER_PORT"] == accepted["NETSRVD_PEER_PORT"]
    assert closed["NETSRVD_REASON"] == "client"
    assert closed["NETSRVD_BYTES_RECEIVED"] == closed["NETSRVD_BYTES_SENT"] == "5"
    assert float(closed["NETSRVD_SECONDS"]) < 10


def test_journal_tells_the_life_of_the_daemon(quiet: Machine) -> None:
    """Start, ready, the first datagram of a flow, and the stop with its counts are recorded."""
    talk(quiet, "udp", "x")
    quiet.run("systemctl", "stop", "netsrvd.service")

    kinds = [each.get("MESSAGE_ID") for each in invocation_of_last_run(quiet)]

    expected = [Starting, Ready, FlowBegan, Stopped]
    wanted = [kind.MESSAGE_ID for kind in expected]
    assert [each for each in kinds if each in wanted] == wanted


def invocation_of_last_run(machine: Machine) -> list[dict[str, str]]:
    last = records(machine, f"MESSAGE_ID={Starting.MESSAGE_ID}")[-1]
    return machine.journal(f"_SYSTEMD_INVOCATION_ID={last['_SYSTEMD_INVOCATION_ID']}")


def test_journalctl_explains_records(quiet: Machine) -> None:
    """`journalctl -x` shows the catalog's explanation of a record."""
    talk(quiet, "tcp", "x")
    quiet.run("systemctl", "stop", "netsrvd.service")
    quiet.run("journalctl", "--sync")

    text = quiet.run("journalctl", "-x", "--no-pager", "--unit=netsrvd.service").stdout

    assert f"Subject: {Accepted.SUBJECT}" in text
    assert "Defined-By: netsrvd" in text


def test_service_alone_binds_its_own_sockets(quiet: Machine) -> None:
    """`systemctl start netsrvd` serves without the socket unit, too."""
    quiet.run("systemctl", "stop", "netsrvd.socket", "netsrvd.service")

    quiet.run("systemctl", "start", "netsrvd.service")

    assert talk(quiet, "tcp", "own") == talk(quiet, "udp", "own") == "own"
    eventually(lambda: len(invocation(quiet, "NETSRVD_ORIGIN=bound")) == 4, "its records")
    quiet.run("systemctl", "stop", "netsrvd.service")
    assert shown(quiet, "Result") == "success"


def test_status_shows_live_figures(quiet: Machine) -> None:
    """`systemctl status` has a line that says how many are served."""
    quiet.run("systemctl", "start", "netsrvd.service")

    assert "Serving 0 connections" in shown(quiet, "StatusText")
    assert "Serving 0 connections" in quiet.run("systemctl", "status", "netsrvd").stdout


def test_configuration_error_fails_the_start_at_once(quiet: Machine) -> None:
    """A fault in the configuration fails the start with its reason in the status; no restarts."""
    configure(quiet, '[listener.echo]\nprot = "tcp"\n')

    started = quiet.run("systemctl", "start", "netsrvd.service", check=False)

    assert started.returncode != 0
    assert shown(quiet, "ExecMainStatus") == "78"
    assert shown(quiet, "NRestarts") == "0"
    quiet.run("journalctl", "--sync")
    status = quiet.run("systemctl", "status", "netsrvd", check=False).stdout
    assert f'{CONFIG}:2: listener.echo.prot = "tcp": unknown key' in status


def test_configuration_error_keeps_the_socket_open(quiet: Machine) -> None:
    """A client that comes while the configuration is faulty is sent away, not the socket unit."""
    configure(quiet, "nonsense = 1\n")

    for _ in range(5):
        quiet.run("python3", CLIENT, "tcp", input="x", check=False)

    assert is_active(quiet, "netsrvd.socket")
    quiet.run("rm", CONFIG)
    assert talk(quiet, "tcp", "mended") == "mended"


def test_reload_puts_a_new_configuration_into_force(quiet: Machine) -> None:
    """A reload opens what is new and keeps what is open; a broken file changes nothing."""
    quiet.run("systemctl", "start", "netsrvd.service")
    configure(quiet, '[listener.second]\nport = 51424\nallow = "loopback"\n')

    quiet.run("systemctl", "reload", "netsrvd.service")
    wait_for_record(quiet, Reloaded.MESSAGE_ID)
    assert quiet.run("python3", CLIENT, "tcp", "51424", input="two").stdout == "two"

    configure(quiet, "nonsense = 1\n")
    quiet.run("systemctl", "reload", "netsrvd.service", check=False)
    failed = wait_for_record(quiet, ReloadFailed.MESSAGE_ID)
    assert "nonsense = 1: unknown key" in failed["NETSRVD_REASON"]
    assert quiet.run("python3", CLIENT, "tcp", "51424", input="two").stdout == "two"


def wait_for_record(machine: Machine, message_id: str) -> dict[str, str]:
    """Return the first record of this kind in this run, as soon as it is written."""
    return eventually(lambda: invocation(machine, f"MESSAGE_ID={message_id}"), "its record")[0]


def test_stop_drains_and_ends_in_time(quiet: Machine) -> None:
    """A stop waits for a live connection no longer than drain_timeout, and is a success."""
    configure(quiet, 'drain_timeout = "1s"\n')
    quiet.run("systemctl", "start", "netsrvd.service")
    holder = quiet.command("python3", CLIENT, "hold")
    with subprocess.Popen(holder, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout.readline() == "held\n"

        quiet.run("systemctl", "stop", "netsrvd.service")

        assert shown(quiet, "Result") == "success"
        assert client.stdout.read() == "closed\n"
    assert records(quiet, f"MESSAGE_ID={Closed.MESSAGE_ID}")[-1]["NETSRVD_REASON"] == "drain"


def test_crash_is_restarted_and_nobody_refused(quiet: Machine) -> None:
    """After SIGKILL systemd starts the daemon again; meanwhile clients wait and are served."""
    assert talk(quiet, "tcp", "before") == "before"

    quiet.run("systemctl", "kill", "--signal=KILL", "netsrvd.service")

    assert talk(quiet, "tcp", "after") == "after"


def test_restart_refuses_nobody(quiet: Machine) -> None:
    """While the service restarts, new clients wait in the queue of the socket unit."""
    with visited(quiet) as load:
        for _ in range(3):
            quiet.run("systemctl", "restart", "netsrvd.service")
    assert_none_refused(load)


def test_default_unit_is_sandboxed(quiet: Machine) -> None:
    """systemd rates the exposure of the service at 0.9 or less, of ten."""
    report = quiet.run("systemd-analyze", "security", "--no-pager", "netsrvd.service").stdout
    exposure = re.search(r"Overall exposure level for netsrvd\.service: ([\d.]+)", report)
    assert float(exposure[1]) <= 0.9


def test_detached_daemon_logs_to_syslog(quiet: Machine) -> None:
    """`netsrvd run --detach` serves when it returns, logs by syslog, and SIGTERM ends it."""
    quiet.run("systemctl", "stop", "netsrvd.socket", "netsrvd.service")

    quiet.run("netsrvd", "run", "--detach", "--pid-file", "/run/detached.pid")

    assert talk(quiet, "tcp", "detached") == "detached"
    pid = quiet.run("cat", "/run/detached.pid").stdout.strip()
    quiet.run("sh", "-c", f"kill {pid} && tail --pid={pid} -f /dev/null")
    messages = quiet.journal(f"_PID={pid}", "SYSLOG_IDENTIFIER=netsrvd")
    assert messages[-1]["MESSAGE"].startswith("stopped after")
    assert quiet.run("test", "-e", "/run/detached.pid", check=False).returncode == 1


def test_documentation_is_installed(quiet: Machine) -> None:
    """All manual pages, examples for the well-known ports and completions are there."""
    files = quiet.run("dpkg", "--listfiles", "netsrvd").stdout
    for name in (
        *(f"/man{each.section}/{each.name}.{each.section}.gz\n" for each in pages()),
        "examples/port-7.toml",
        *["bash-completion/completions/netsrvd", "/etc/netsrvd/netsrvd.toml"],
        *["zsh/vendor-completions/_netsrvd", "fish/vendor_completions.d/netsrvd.fish"],
        *["examples/prometheus/grafana-dashboard.json\n", "fail2ban/jail.d/netsrvd.conf\n"],
    ):
        assert name in files


@pytest.mark.parametrize("page", examples.PAGES, ids=str)
def test_examples_of_a_manual_page(quiet: Machine, page: Page) -> None:
    """Each works as it is written, on a host where the daemon runs."""
    examples.type_examples(quiet, page)


def test_every_exception_of_the_examples_is_needed() -> None:
    """What the tests know of the examples of manual pages is known of examples that there are."""
    assert examples.unknown() == set()


def test_well_known_port_by_the_example(quiet: Machine) -> None:
    """The example for port 7 works as its comment says: systemd binds it, without a privilege."""
    example = "/usr/share/doc/netsrvd/examples/port-7.toml"
    quiet.run("cp", example, CONFIG)
    quiet.run("netsrvd", "apply")

    assert quiet.run("python3", CLIENT, "tcp", "7", input="seven").stdout == "seven"
    assert quiet.run("python3", CLIENT, "udp", "7", input="seven").stdout == "seven"
    assert talk(quiet, "tcp", "both") == "both"

    quiet.run("rm", CONFIG)
    quiet.run("netsrvd", "apply")


def test_upgrade_refuses_nobody(quiet: Machine, next_package: Path) -> None:
    """While the package is upgraded, with the daemon running, no connection is refused."""
    quiet.run("systemctl", "start", "netsrvd.service")
    before = shown(quiet, "MainPID")

    with visited(quiet) as load:
        quiet.run("apt-get", "install", "--yes", quiet.copy_in(next_package))

    assert_none_refused(load)
    assert is_active(quiet, "netsrvd.socket")
    assert is_active(quiet, "netsrvd.service")
    assert shown(quiet, "MainPID") != before
    version = quiet.run("dpkg-query", "--show", "--showformat=${Version}", "netsrvd").stdout
    assert version in next_package.name


def test_removal_ends_everything(installed: Machine) -> None:
    """A removal stops the daemon and closes the sockets, those of instances as well."""
    installed.run("systemctl", "disable", "--now", "netsrvd.socket", "netsrvd.service")
    installed.run("systemctl", "enable", "--now", "netsrvd@1.socket", "netsrvd@2.socket")
    assert talk(installed, "tcp", "hello") == "hello"

    installed.run("apt-get", "remove", "--yes", "netsrvd")

    assert ":51423" not in installed.run("ss", "-lntu").stdout
    left = installed.run("systemctl", "list-units", "--plain", "--no-legend", "netsrvd*").stdout
    assert left == ""


def test_purge_leaves_nothing(installed: Machine) -> None:
    """After a purge no file of netsrvd is left, but for the records in the journal."""
    installed.run("apt-get", "purge", "--yes", "netsrvd")

    found = installed.run(
        *["find", "/", "-xdev", "-name", "*netsrvd*"],
        *["-not", "-path", "/srv/*", "-not", "-path", "/proc/*", "-not", "-path", "/run/*"],
        *["-not", "-path", "/var/cache/*", "-not", "-path", "/var/log/apt/*"],
    ).stdout
    assert found == ""
