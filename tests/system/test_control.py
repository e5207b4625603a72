"""The control socket under systemd: who reaches it, with which clients, and when it is there."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import varlink

from tests.support.installed import NOBODY, SERVICE, configure, is_active, main_pid, shown, talk
from tests.support.machine import Machine
from tests.support.patience import eventually

SOCKET = "netsrvd-control.socket"
PATH = "/run/netsrvd-control.sock"
STATUS = '{"method":"io.netsrvd.Status"}'

ASK = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
sock.connect(sys.argv[1])
method = sys.argv[2] if len(sys.argv) > 2 else "Status"
sock.sendall(b'{"method":"io.netsrvd.%b"}\\0' % method.encode())
received = b""
while not received.endswith(b"\\0"):
    received += sock.recv(65536)
print(received[:-1].decode())
"""

LOOK = """
import varlink
with varlink.Client.new_with_address("unix:/run/netsrvd-control.sock") as client:
    print(client.get_interfaces())
    with client.open("io.netsrvd") as daemon:
        print(daemon.Status()["pid"])
"""


@pytest.fixture
def member(quiet: Machine) -> Iterator[list[str]]:
    """What begins a command of a user who is in the group adm, and in no other."""
    group = quiet.run("getent", "group", "adm").stdout.split(":")[2]
    yield ["setpriv", "--reuid=1234", "--regid=1234", f"--groups={group}", "--"]
    quiet.run("systemctl", "stop", SERVICE)
    quiet.run("systemctl", "start", SOCKET)


def test_the_installation_has_it_listen(quiet: Machine) -> None:
    """It is enabled and listens before the daemon runs, for root and the group adm."""
    assert is_active(quiet, SOCKET)
    assert quiet.run("systemctl", "is-enabled", SOCKET).stdout == "enabled\n"
    assert quiet.run("stat", "-c", "%U %G %a", PATH).stdout == "root adm 660\n"
    assert not is_active(quiet, SERVICE)


def test_a_member_of_adm_is_answered(quiet: Machine, member: list[str]) -> None:
    """Without root and without the sandbox being in the way; another user may not connect."""
    talk(quiet, "tcp", "hello")
    pid = main_pid(quiet)
    said = json.loads(quiet.run(*member, "python3", "-c", ASK, PATH).stdout)["parameters"]
    assert (said["connections"], said["totals"]["closed"]["client"]) == (0, 1)
    assert str(said["pid"]) == pid
    assert [each["addresses"][0]["origin"] for each in said["listeners"]] == ["systemd"] * 2
    denied = quiet.run(*NOBODY, "python3", "-c", ASK, PATH, check=False)
    assert "PermissionError" in denied.stderr


def test_only_root_has_it_reload(quiet: Machine, member: list[str]) -> None:
    """A member of adm may look, and no more; within the sandbox the kernel tells root from all
    others. The reload is the same as that of `systemctl reload`.
    """
    talk(quiet, "tcp", "hello")
    ask = ["python3", "-c", ASK, PATH, "Reload"]
    denied = json.loads(quiet.run(*member, *ask).stdout)
    assert denied["error"] == "org.varlink.service.PermissionDenied"
    assert json.loads(quiet.run(*ask).stdout) == {"parameters": {"warnings": []}}
    configure(quiet, "nonsense = 1\n")
    failed = json.loads(quiet.run(*ask).stdout)
    assert failed["error"] == "io.netsrvd.NotReloaded"
    assert "nonsense = 1: unknown key" in failed["parameters"]["reasons"][0]
    assert "nonsense = 1: unknown key" in shown(quiet, "StatusText")
    assert quiet.run("systemctl", "reload", SERVICE, check=False).returncode != 0
    configure(quiet, "")
    quiet.run("systemctl", "stop", SOCKET)
    quiet.run("systemctl", "reload", SERVICE)
    assert "nonsense" not in shown(quiet, "StatusText")


def test_another_client_starts_the_daemon(quiet: Machine, member: list[str]) -> None:
    """Who only connects to the socket has systemd start it, with its listening sockets."""
    said = json.loads(quiet.run(*member, "python3", "-c", ASK, PATH).stdout)["parameters"]
    assert {each["name"] for each in said["listeners"]} == {"echo"}
    assert main_pid(quiet) == str(said["pid"])


def test_varlinkctl_knows_the_interface(quiet: Machine, member: list[str]) -> None:
    """varlinkctl(1), which Debian 12 lacks, prints, checks and calls it."""
    if quiet.suite == "bookworm":
        assert quiet.run("sh", "-c", "command -v varlinkctl", check=False).stdout == ""
        return
    ask = [*member, "varlinkctl"]
    assert "io.netsrvd" in quiet.run(*ask, "info", f"unix:{PATH}").stdout
    text = quiet.run(*ask, "introspect", f"unix:{PATH}", "io.netsrvd").stdout
    assert "method Connections(" in text
    quiet.run(*ask, "validate-idl", input=text)
    said = quiet.run(*ask, "call", "-j", f"unix:{PATH}", "io.netsrvd.Status", "{}").stdout
    assert json.loads(said)["version"]
    more = quiet.run(*ask, "call", "-j", "--more", f"unix:{PATH}", "io.netsrvd.Connections", "{}")
    assert [json.loads(each) for each in more.stdout.split("\x1e") if each] == [{}]
    failed = quiet.run(
        *(*ask, "call", f"unix:{PATH}", "io.netsrvd.TopSources", '{"count":0}'), check=False
    )
    assert "InvalidParameter" in failed.stderr
    reloaded = quiet.run("varlinkctl", "call", "-j", f"unix:{PATH}", "io.netsrvd.Reload", "{}")
    assert json.loads(reloaded.stdout) == {"warnings": []}


def test_an_independent_client_understands_it(
    quiet: Machine, member: list[str], tmp_path: Path
) -> None:
    """PyPI's varlink, on each Debian."""
    source = Path(varlink.__file__).parent
    archive = shutil.make_archive(str(tmp_path / "varlink"), "tar", source.parent, source.name)
    copied = quiet.copy_in(Path(archive))
    quiet.run("tar", "--extract", "--directory=/srv", f"--file={copied}")
    found = quiet.run(*member, "env", "PYTHONPATH=/srv", "python3", "-c", LOOK).stdout
    assert found == f"['org.varlink.service', 'io.netsrvd']\n{main_pid(quiet)}\n"


def test_a_restart_brings_it_up(quiet: Machine, member: list[str]) -> None:
    """As after an upgrade from a version without it: systemd starts no socket whose service runs,
    but the restart of the service does.
    """
    talk(quiet, "tcp", "hello")
    quiet.run("systemctl", "stop", SOCKET)
    before = main_pid(quiet)
    assert quiet.run("systemctl", "start", SOCKET, check=False).returncode != 0
    quiet.run("systemctl", "restart", SERVICE)
    main_pid(quiet, other_than=before)
    assert is_active(quiet, SOCKET)
    quiet.run(*member, "python3", "-c", ASK, PATH)


def test_a_restart_keeps_it(quiet: Machine, member: list[str]) -> None:
    """The socket stays open over a restart, and the next process answers on it."""
    talk(quiet, "tcp", "hello")
    entered = shown(quiet, "ActiveEnterTimestampMonotonic", SOCKET)
    before = main_pid(quiet)
    quiet.run("systemctl", "restart", SERVICE)
    after = main_pid(quiet, other_than=before)
    said = json.loads(quiet.run(*member, "python3", "-c", ASK, PATH).stdout)["parameters"]
    assert str(said["pid"]) == after
    assert shown(quiet, "ActiveEnterTimestampMonotonic", SOCKET) == entered


def test_each_instance_has_its_own(quiet: Machine, member: list[str]) -> None:
    """The start of an instance brings its control socket up; `netsrvd apply` takes none of these
    sockets for one of a listener.
    """
    quiet.run("systemctl", "disable", "--now", "netsrvd.socket", SERVICE)
    units = ["netsrvd@1.socket", "netsrvd@2.socket"]
    quiet.run("systemctl", "start", *units)
    try:
        quiet.run("systemctl", "start", "netsrvd@1.service", "netsrvd@2.service")
        for number in (1, 2):
            path = f"/run/netsrvd-control@{number}.sock"
            assert quiet.run("stat", "-c", "%U %G %a", path).stdout == "root adm 660\n"
            said = json.loads(quiet.run(*member, "python3", "-c", ASK, path).stdout)
            assert str(said["parameters"]["pid"]) == main_pid(quiet, f"netsrvd@{number}.service")
        shown = json.loads(quiet.run("netsrvd", "apply", "--dry-run", "--json").stdout)
        assert not [each for each in shown["changes"] if "control" in each["unit"]]
    finally:
        controls = [f"netsrvd-control@{number}.socket" for number in (1, 2)]
        quiet.run("systemctl", "stop", *units, *controls)
        quiet.run("systemctl", "stop", "netsrvd@1.service", "netsrvd@2.service")
        quiet.run("systemctl", "enable", "--now", "netsrvd.socket")


def test_apply_leaves_it_alone(quiet: Machine, member: list[str]) -> None:
    """It is no socket of a listener: there is nothing to change, also for a listener `control`."""
    said = quiet.run("netsrvd", "apply", "--dry-run").stdout
    assert "control" not in said
    config = "/etc/netsrvd/conf.d/control.toml"
    quiet.run("sh", "-c", f"cat >{config}", input="[listener.control]\nport = 4711\n")
    try:
        quiet.run("netsrvd", "apply")
        assert talk(quiet, "tcp", "hello") == "hello"
        assert is_active(quiet, "netsrvd-control:.socket")
        quiet.run(*member, "python3", "-c", ASK, PATH)
    finally:
        quiet.run("rm", config)
        quiet.run("netsrvd", "apply")
    assert not is_active(quiet, "netsrvd-control:.socket")
    eventually(lambda: is_active(quiet, SOCKET), "it listens")


# --- netsrvd status ---------------------------------------------------------------------------


def test_status_of_what_runs(quiet: Machine, member: list[str]) -> None:
    """A member of adm sees, without root, what runs, with the sockets of systemd; and gets 0."""
    talk(quiet, "tcp", "hello")
    pid = main_pid(quiet)
    said = quiet.run(*member, "netsrvd", "status").stdout
    assert re.match(rf"● netsrvd\.service \S+ runs since .*, PID {pid}\n", said)
    assert "Configuration: /etc/netsrvd/netsrvd.toml, in force since " in said
    assert re.search(r"echo +echo +tcp \[::\]:51423 +systemd +0 +1 ", said)
    denied = quiet.run(*NOBODY, "netsrvd", "status", check=False)
    assert (denied.returncode, denied.stdout) == (os.EX_NOPERM, "")
    assert "adduser USER adm" in denied.stderr


def test_status_starts_nothing(quiet: Machine, member: list[str]) -> None:
    """It says that nothing runs, and gets 3; to root, or where there is a bus, it says which
    sockets would start it. The daemon still does not run then.
    """
    quiet.run("systemctl", "stop", SERVICE)
    for user in ((), member):
        for command in (("status",), ("status", "connections")):
            assert quiet.run(*user, "netsrvd", *command, check=False).returncode == 3
        said = quiet.run(*user, "netsrvd", "status", check=False).stdout
        assert "netsrvd.service does not run: inactive" in said
        plugin = quiet.run(*user, "netsrvd", "status", "--crit", "lag=1", check=False)
        assert (plugin.returncode, plugin.stdout.split(" - ")[0]) == (2, "NETSRVD CRITICAL")
    said = quiet.run("netsrvd", "status", check=False).stdout
    line = next(line for line in said.splitlines() if "start it when a client comes" in line)
    assert "netsrvd.socket" in line
    assert not is_active(quiet, SERVICE)
    quiet.run("systemctl", "stop", "netsrvd.socket")
    said = quiet.run("netsrvd", "status", check=False).stdout
    assert "netsrvd.socket (inactive)" in said
    assert "Nothing would start it" in said


def test_status_of_a_daemon_without_its_socket(quiet: Machine, member: list[str]) -> None:
    """As after an upgrade without a restart: what to do."""
    talk(quiet, "tcp", "hello")
    main_pid(quiet)
    quiet.run("systemctl", "stop", SOCKET)
    said = quiet.run(*member, "netsrvd", "status", check=False)
    assert said.returncode == os.EX_UNAVAILABLE
    assert "`systemctl restart netsrvd.service` brings it up" in said.stderr
    quiet.run("systemctl", "restart", SERVICE)
    quiet.run(*member, "netsrvd", "status")


def test_status_of_replaced_code(quiet: Machine, member: list[str]) -> None:
    """A daemon whose files were replaced before the first look is shown as one to be restarted."""
    talk(quiet, "tcp", "hello")
    pid = main_pid(quiet)
    package = "/usr/lib/python3/dist-packages/netsrvd"
    quiet.run(
        "sh", "-c", f"cp -p {package}/__init__.py /srv/new && mv /srv/new {package}/__init__.py"
    )
    said = quiet.run(*member, "netsrvd", "status")
    assert "an upgrade has replaced its code" in said.stdout
    assert "It has told systemd: Serving" in quiet.run("netsrvd", "status").stdout
    assert talk(quiet, "tcp", "again") == "again"
    assert main_pid(quiet) == pid
    quiet.run("systemctl", "restart", SERVICE)
    assert "runs since" in quiet.run(*member, "netsrvd", "status").stdout


def test_status_shows_each_instance(quiet: Machine, member: list[str]) -> None:
    """One after the other, each by the name of its unit; as JSON in one list."""
    quiet.run("systemctl", "stop", "netsrvd.socket", SERVICE)
    services = ["netsrvd@1.service", "netsrvd@2.service"]
    sockets = ["netsrvd@1.socket", "netsrvd@2.socket"]
    quiet.run("systemctl", "start", *sockets)
    try:
        quiet.run("systemctl", "start", *services)
        found = json.loads(quiet.run(*member, "netsrvd", "status", "--json").stdout)["daemons"]
        running = sorted(each["name"] for each in found if each["running"])
        assert running == services
    finally:
        quiet.run("systemctl", "stop", *sockets, *(f"netsrvd-control@{n}.socket" for n in (1, 2)))
        quiet.run("systemctl", "stop", *services)
        quiet.run("systemctl", "start", "netsrvd.socket")
