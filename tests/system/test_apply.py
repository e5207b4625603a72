"""`netsrvd apply` on a real Debian: one edit and one command for each usual change."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import pytest

from tests.support.installed import CONFIG, SERVICE, configure, is_active, main_pid, shown, talk
from tests.support.machine import Machine
from tests.support.patience import SECONDS, eventually

UNITS = "/etc/systemd/system"

OTHER = """\
import socket, sys
kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}[sys.argv[1]]
with socket.socket(socket.AF_INET, kind) as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", int(sys.argv[2])))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    print("bound", flush=True)
    sys.stdin.read()
"""

SETTINGS = {
    "an address": ('[listener.echo]\nhost = "127.0.0.1"\n', ["127.0.0.1:51423"], "tcp udp"),
    "a port": ("[listener.echo]\nport = 51500\n", ["*:51500"], "tcp udp"),
    "port 7": ("[listener.echo]\nport = 7\n", ["*:7"], "tcp udp"),
    "one protocol": ('[listener.echo]\nprotocols = ["tcp"]\n', ["*:51423"], "tcp"),
    "an interface": ('[listener.echo]\ninterface = "lo"\n', ["*%lo:51423"], "tcp udp"),
    "two addresses": (
        '[listener.echo]\nhost = ["127.0.0.1", "::1"]\n',
        ["127.0.0.1:51423", "[::1]:51423"],
        "tcp udp",
    ),
    "one more listener": (
        '[listener.who]\nservice = "whoami"\nport = 51501\n',
        ["*:51423", "*:51501"],
        "tcp udp",
    ),
}
"""What is configured, the addresses that are listened on, and the protocols of each."""


class Live:
    """A client that stays connected. Owned by the test."""

    def __init__(self, machine: Machine, port: int = 51423) -> None:
        self._argv = machine.command("nc.openbsd", "-N", "127.0.0.1", str(port))

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self.says("here") == "here\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=SECONDS)  # which ends its input, and so itself

    def says(self, word: str) -> str:
        """Return the line that comes back; "" if the server has closed the connection."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{word}\n")
        return self._process.stdout.readline()


@pytest.fixture
def host(installed: Machine) -> Iterator[Machine]:
    """Give a machine as it is after the installation; undo what a test has changed."""
    yield installed
    installed.run("sh", "-c", f"rm -rf {CONFIG} {UNITS}/netsrvd*.socket.d")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "reset-failed")
    apply(installed)
    installed.run("systemctl", "stop", SERVICE)


def apply(machine: Machine, *arguments: str) -> str:
    """Run the command; return what it says."""
    return machine.run("netsrvd", "apply", *arguments).stdout


def refused(machine: Machine, *arguments: str) -> str:
    """Run the command, which has to fail; return what it says."""
    done = machine.run("netsrvd", "apply", *arguments, check=False)
    assert done.returncode != 0
    return done.stderr


def listening(machine: Machine) -> list[str]:
    """Return the addresses that are listened on, those of other programs as well."""
    lines = machine.run("ss", "-H", "-lntu").stdout.splitlines()
    return sorted(f"{line.split()[0]} {line.split()[4]}" for line in lines)


def expected(addresses: list[str], protocols: str) -> list[str]:
    return sorted(f"{protocol} {each}" for each in addresses for protocol in protocols.split())


def written(machine: Machine) -> list[str]:
    """Return the files of units in /etc and /run that have to do with netsrvd."""
    found = machine.run("find", UNITS, "/run/systemd/system", "-name", "*netsrvd*", "-type", "f")
    return sorted(found.stdout.split())


@contextmanager
def bound(machine: Machine, protocol: str, port: int) -> Iterator[None]:
    """Have a program of another user bind a port of 127.0.0.1 meanwhile, with SO_REUSEADDR."""
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"]
    argv = machine.command(*nobody, "python3", "-c", OTHER, protocol, str(port))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == "bound\n"
        yield
        process.communicate(timeout=SECONDS)


@contextmanager
def by_hand(machine: Machine, unit: str, text: str) -> Iterator[None]:
    """Give a unit a drop-in of the administrator's."""
    path = f"{UNITS}/{unit}.d/by-hand.conf"
    machine.run("sh", "-c", f"mkdir -p {UNITS}/{unit}.d && cat >{path}", input=text)
    machine.run("systemctl", "daemon-reload")
    yield
    assert machine.run("cat", path).stdout == text, "what others wrote is left alone"


def test_there_is_nothing_to_do_after_an_installation(host: Machine) -> None:
    """The shipped unit serves what the defaults say: nothing is written."""
    assert apply(host) == "nothing to do: all is as the configuration says\n"
    assert written(host) == []
    assert is_active(host, "netsrvd.socket")
    assert not is_active(host, SERVICE)


@pytest.mark.parametrize("what", SETTINGS)
def test_a_change_is_one_edit_and_one_command(host: Machine, what: str) -> None:
    """The new addresses are listened on and no others; a live client notices nothing."""
    text, addresses, protocols = SETTINGS[what]
    with Live(host) as live:
        configure(host, text)
        said = apply(host)
        assert f"{SERVICE}: is restarted; live connections go on\n" in said
        assert said.endswith("in force\n")
        assert listening(host) == expected(addresses, protocols)
        assert live.says("still") == "still\n"
        assert apply(host) == "nothing to do: all is as the configuration says\n"
        for protocol in protocols.split():
            port = addresses[0].rpartition(":")[2]
            word = host.run("python3", "/srv/echo_client.py", protocol, port, input="hello").stdout
            assert word == "hello"
        host.run("rm", CONFIG)
        assert apply(host).endswith("in force\n")
        assert listening(host) == expected(["*:51423"], "tcp udp")
        assert live.says("again") == "again\n"
    assert written(host) == []
    unit = host.run("systemctl", "is-enabled", "netsrvd.socket").stdout
    assert unit == "enabled\n"


def test_a_change_survives_a_reboot(host: Machine) -> None:
    """After a boot every listener listens before a client has come, by the written units."""
    configure(host, SETTINGS["two addresses"][0] + SETTINGS["one more listener"][0])
    apply(host)
    wanted = expected(["127.0.0.1:51423", "[::1]:51423", "*:51501"], "tcp udp")
    assert listening(host) == wanted
    host.reboot()
    assert listening(host) == wanted
    assert not is_active(host, SERVICE)
    port = host.run("python3", "/srv/echo_client.py", "tcp", "51501", input="").stdout
    assert port.startswith("127.0.0.1:")
    assert apply(host) == "nothing to do: all is as the configuration says\n"


def test_on_demand_stays_on_demand(host: Machine) -> None:
    """Where the service does not run, its sockets alone change, and the next client starts it."""
    host.run("systemctl", "stop", SERVICE)
    configure(host, "[listener.echo]\nport = 51500\n")
    assert "is restarted" not in apply(host)
    assert not is_active(host, SERVICE)
    assert host.run("python3", "/srv/echo_client.py", "tcp", "51500", input="x").stdout == "x"
    eventually(lambda: is_active(host, SERVICE), "it runs")


def test_what_needs_no_socket_is_a_reload(host: Machine) -> None:
    """It shows old and new, and the process is the same; done once, there is nothing to do."""
    host.run("systemctl", "start", SERVICE)
    apply(host)
    pid = main_pid(host)
    configure(host, '[listener.echo]\nallow = "any"\n')
    said = apply(host)
    assert 'listener.echo.allow: ["local"] -> ["any"]\n' in said
    assert f"{SERVICE}: reads the configuration again\n" in said
    assert shown(host, "MainPID") == pid
    assert apply(host) == "nothing to do: all is as the configuration says\n"


def test_a_dry_run_changes_nothing(host: Machine) -> None:
    """It says old -> new, in words and as JSON, also to who is not root."""
    configure(host, "[listener.echo]\nport = 51500\n")
    before = listening(host)
    said = apply(host, "--dry-run")
    assert "netsrvd-echo.socket: new: tcp, udp [::]:51500\n" in said
    assert "netsrvd.socket: tcp, udp [::]:51423 -> stopped and disabled: " in said
    assert said.endswith("nothing was changed (--dry-run)\n")
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "netsrvd", "apply", "--dry-run"]
    assert "netsrvd-echo.socket: new:" in host.run(*nobody).stdout
    found = json.loads(apply(host, "--dry-run", "--json"))
    assert found["applied"] is False
    assert [(each["unit"], each["action"]) for each in found["changes"]] == [
        ("netsrvd.socket", "disabled"),
        ("netsrvd-echo.socket", "new"),
    ]
    assert listening(host) == before
    assert written(host) == []
    found = json.loads(apply(host, "--json"))
    assert found["applied"] is True
    assert listening(host) == expected(["*:51500"], "tcp udp")


def test_check_compares_the_units_with_the_files(host: Machine) -> None:
    """What is not in force is a warning that names the command; then it says what listens where."""
    shipped = "# echo: netsrvd.socket listens on tcp, udp [::]:51423"
    assert shipped in host.run("netsrvd", "check").stdout
    configure(host, "[listener.echo]\nport = 51500\n")
    lines = host.run("netsrvd", "check").stdout.splitlines()
    told = [
        each for each in lines if each.startswith("# warning: not in force, run `netsrvd apply`")
    ]
    assert len(told) == 2
    assert "netsrvd.socket: tcp, udp [::]:51423 -> stopped and disabled" in told[0]
    found = json.loads(host.run("netsrvd", "check", "--json").stdout)
    assert (found["valid"], len(found["warnings"])) == (True, 2)
    apply(host)
    said = host.run("netsrvd", "check").stdout
    assert "warning" not in said
    assert "# echo: netsrvd-echo.socket listens on tcp, udp [::]:51500" in said


def test_a_faulty_configuration_changes_nothing(host: Machine) -> None:
    """The fault is named as by check."""
    configure(host, "[listener.echo]\nprot = 7\n")
    assert f"{CONFIG}:2: listener.echo.prot = 7: unknown key" in refused(host)
    assert written(host) == []


def test_a_port_in_use_is_found_before_anything_is_changed(host: Machine) -> None:
    """Who has it is named, and everything is as it was."""
    with Live(host) as live, bound(host, "TCP", 51500):
        pid = main_pid(host)
        configure(host, "[listener.echo]\nport = 51500\n")
        in_use = "listener echo: tcp [::]:51500 is in use by python3 ("
        assert f"# warning: {in_use}" in host.run("netsrvd", "check").stdout
        assert f"\nwarning: {in_use}" in apply(host, "--dry-run")
        said = refused(host)
        assert in_use in said
        assert "nothing was changed" in said
        assert shown(host, "MainPID") == pid
        assert live.says("still") == "still\n"
    assert written(host) == []


def test_a_socket_that_fails_is_taken_back(host: Machine) -> None:
    """The units are as before, the service runs, and a live client notices nothing."""
    with (
        Live(host) as live,
        by_hand(host, "netsrvd-echo.socket", "[Socket]\nExecStartPre=/bin/false\n"),
    ):
        configure(host, '[listener.echo]\nhost = "127.0.0.1"\n')
        said = refused(host)
        assert "netsrvd-echo.socket does not start" in said
        assert "the socket units are as they were" in said
        assert listening(host) == expected(["*:51423"], "tcp udp")
        assert is_active(host, SERVICE)
        assert live.says("still") == "still\n"
        assert talk(host, "tcp", "new") == "new"
        assert host.run("systemctl", "is-enabled", "netsrvd.socket").stdout == "enabled\n"
        assert [each for each in written(host) if "by-hand" not in each] == []
        assert apply(host, "--rollback").splitlines()[-1].startswith("the files are those of ")
        assert host.run("test", "-e", CONFIG, check=False).returncode == 1


def test_a_rollback_is_one_command(host: Machine) -> None:
    """The files and sockets of before are back; a second one undoes that."""
    configure(host, "[listener.echo]\nport = 51500\n")
    apply(host)
    configure(host, "[listener.echo]\nport = 51502\n")
    apply(host)
    assert listening(host) == expected(["*:51502"], "tcp udp")
    assert "tcp, udp [::]:51502 -> tcp, udp [::]:51500" in apply(host, "--rollback", "--dry-run")
    assert listening(host) == expected(["*:51502"], "tcp udp")
    apply(host, "--rollback")
    assert host.run("cat", CONFIG).stdout == "[listener.echo]\nport = 51500\n"
    assert listening(host) == expected(["*:51500"], "tcp udp")
    apply(host, "--rollback")
    assert listening(host) == expected(["*:51502"], "tcp udp")


def test_a_unit_by_hand_that_serves_what_the_file_says_is_left(host: Machine) -> None:
    """As with 0.1.0: a drop-in for port 7 and nothing in the file. A port in the file decides."""
    with by_hand(host, "netsrvd.socket", "[Socket]\nListenStream=7\n"):
        host.run("systemctl", "restart", "netsrvd.socket")
        assert apply(host) == "nothing to do: all is as the configuration says\n"
        assert listening(host) == sorted([*expected(["*:51423"], "tcp udp"), "tcp *:7"])
        configure(host, "[listener.echo]\nport = 51500\n")
        apply(host)
        assert listening(host) == expected(["*:51500"], "tcp udp")
        host.run("rm", CONFIG)
        apply(host)
        assert listening(host) == sorted([*expected(["*:51423"], "tcp udp"), "tcp *:7"])
    host.run("rm", "-r", f"{UNITS}/netsrvd.socket.d")
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "netsrvd.socket")


def test_a_port_that_the_daemon_has_bound_becomes_systemds(host: Machine) -> None:
    """After a reload the daemon serves a new port by itself; apply has systemd take it over."""
    host.run("systemctl", "start", SERVICE)
    configure(host, "[listener.who]\nport = 51501\n")
    host.run("systemctl", "reload", SERVICE)
    wanted = expected(["*:51423", "0.0.0.0:51501", "[::]:51501"], "tcp udp")
    assert listening(host) == wanted
    with Live(host, 51501) as live:
        apply(host)
        assert listening(host) == expected(["*:51423", "*:51501"], "tcp udp")
        assert live.says("still") == "still\n"


def test_an_interface_of_before_is_taken_off(host: Machine) -> None:
    """A reload had the daemon bind a socket of systemd's to it: the same unit has a new socket."""
    host.run("systemctl", "start", SERVICE)
    configure(host, '[listener.echo]\ninterface = "lo"\n')
    host.run("systemctl", "reload", SERVICE)
    assert listening(host) == expected(["*%lo:51423"], "tcp udp")
    host.run("rm", CONFIG)
    host.run("systemctl", "reload", SERVICE, check=False)
    assert listening(host) == expected(["*%lo:51423"], "tcp udp")
    with Live(host) as live:
        assert "-> renewed: its sockets are still bound to interface lo" in apply(host)
        assert listening(host) == expected(["*:51423"], "tcp udp")
        assert live.says("still") == "still\n"
    assert apply(host) == "nothing to do: all is as the configuration says\n"


def test_a_service_without_sockets_gets_them(host: Machine) -> None:
    """A daemon that has bound its own goes on with those of systemd; nothing is left in /etc."""
    host.run("systemctl", "disable", "--now", "netsrvd.socket")
    host.run("systemctl", "stop", SERVICE)
    host.run("systemctl", "start", SERVICE)
    with Live(host) as live:
        said = apply(host)
        assert "netsrvd.socket: tcp, udp [::]:51423 -> started\n" in said
        assert live.says("still") == "still\n"
    assert is_active(host, "netsrvd.socket")
    assert written(host) == []


def test_a_second_owner_of_the_udp_port_is_told(host: Machine) -> None:
    """Until the daemon has taken the socket, any user can bind the port beside it."""
    host.run("systemctl", "stop", SERVICE)
    host.run("systemctl", "restart", "netsrvd.socket")
    with bound(host, "UDP", 51423):
        said = apply(host, "--dry-run")
    second = "warning: udp [::]:51423 has a second owner, which may take its datagrams: python3 ("
    assert second in said
    assert "warning" not in apply(host, "--dry-run")


def test_instances_are_changed_one_after_the_other(host: Machine) -> None:
    """Each has sockets of its own for each listener; a live client of each notices nothing."""
    host.run("systemctl", "disable", "--now", "netsrvd.socket")
    host.run("systemctl", "stop", SERVICE)
    host.run("systemctl", "enable", "--now", "netsrvd@1.socket", "netsrvd@2.socket")
    host.run("systemctl", "start", "netsrvd@1.service", "netsrvd@2.service")
    try:
        apply(host)
        configure(host, SETTINGS["one more listener"][0] + SETTINGS["an address"][0])
        with Live(host) as one, Live(host) as two:
            apply(host)
            assert one.says("one") == "one\n"
            assert two.says("two") == "two\n"
        assert listening(host) == sorted(
            2 * expected(["127.0.0.1:51423", "*:51501"], "tcp udp"),
        )
        assert apply(host) == "nothing to do: all is as the configuration says\n"
        assert host.run("systemctl", "is-enabled", "netsrvd-who@2.socket").stdout == "enabled\n"
        host.run("systemctl", "restart", "netsrvd@1.service")
        assert not is_active(host, "netsrvd@1.socket")
        host.run("rm", CONFIG)
        apply(host)
        assert listening(host) == sorted(2 * expected(["*:51423"], "tcp udp"))
        assert written(host) == []
    finally:
        host.run("systemctl", "disable", "--now", "netsrvd@1.socket", "netsrvd@2.socket")
        host.run("systemctl", "stop", "netsrvd@1.service", "netsrvd@2.service")


def test_both_kinds_at_once_are_told(host: Machine) -> None:
    """Instances beside netsrvd.socket cannot have its ports: it says what to disable."""
    host.run("systemctl", "enable", "netsrvd@1.socket")
    try:
        said = refused(host)
        assert "systemctl disable --now netsrvd.socket" in said
    finally:
        host.run("systemctl", "disable", "netsrvd@1.socket")


def test_a_removal_takes_written_units_along(host: Machine) -> None:
    """They are stopped, disabled and removed; an installation says what to do, and it works."""
    configure(host, SETTINGS["two addresses"][0] + SETTINGS["one more listener"][0])
    apply(host)
    [package] = host.run("sh", "-c", "ls /srv/netsrvd_*.deb").stdout.split()
    host.run("apt-get", "remove", "--yes", "netsrvd")
    assert listening(host) == []
    assert written(host) == []
    left = {*host.run("find", UNITS, "-name", "*netsrvd*").stdout.split()}
    enabled = f"{UNITS}/sockets.target.wants/netsrvd-control.socket"  # until it is purged
    names = ("netsrvd.socket", "netsrvd.service", "netsrvd-control.socket")
    assert left <= {enabled, *(f"{UNITS}/{name}" for name in names)}, "masks, by debhelper"
    assert host.run("test", "-e", CONFIG).returncode == 0
    said = host.run("apt-get", "install", "--yes", package).stdout
    assert "run netsrvd apply" in said
    apply(host)
    assert listening(host) == expected(["127.0.0.1:51423", "[::1]:51423", "*:51501"], "tcp udp")
