"""Python packages that are not Debian's: they break nothing, and handlers may come from them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.installed import CLIENT, SERVICE, configure, is_active, shown, talk, tidy_up
from tests.support.machine import Machine
from tests.support.patience import eventually

NAMES = ("systemd", "daemon", "netsrvd", "lockfile", "argparse", "tomllib")
FOREIGN = 'raise RuntimeError("this is the package of another project")\n'
OLDER = "booted = None\n"
"""A module that lacks what netsrvd wants of it."""

HANDLER = """\
def serve(connection):
    connection.send({name!r}.encode())
"""
METADATA = "Metadata-Version: 2.1\nName: greeter\nVersion: 1\n"
ENTRY_POINT = "[netsrvd.services]\ngreeter = named:serve\n"


def write(machine: Machine, path: str, text: str) -> None:
    """Write a file with the folders that it needs."""
    machine.run("sh", "-ec", 'mkdir -p "$(dirname "$0")"; cat >"$0"', path, input=text)


def local(machine: Machine) -> str:
    """Return the folder in /usr/local for packages that are not Debian's."""
    program = "import sys; print('/usr/local/lib/python3.%d/dist-packages' % sys.version_info[1])"
    return machine.run("python3", "-c", program).stdout.strip()


def of_user(machine: Machine) -> str:
    """Return the folder for packages of root alone."""
    return machine.run("python3", "-m", "site", "--user-site", check=False).stdout.strip()


@contextmanager
def planted(machine: Machine, folder: str, text: str) -> Iterator[None]:
    """Have packages of the names that netsrvd imports in a folder meanwhile."""
    for name in NAMES:
        write(machine, f"{folder}/{name}/__init__.py", text)
    yield
    machine.run("sh", "-ec", f"cd {folder}; rm -r {' '.join(NAMES)}")


@pytest.mark.parametrize("folder", [local, of_user])
def test_foreign_packages_of_the_same_names_are_not_imported(
    quiet: Machine, folder: Callable[[Machine], str]
) -> None:
    """With packages of all names that netsrvd imports in /usr/local, or in root's own directory,
    the first client is answered, and the commands work.
    """
    quiet.run("systemctl", "stop", SERVICE)
    with planted(quiet, folder(quiet), FOREIGN):
        assert talk(quiet, "tcp", "hello") == "hello"
        eventually(lambda: is_active(quiet, SERVICE), "it runs")
        quiet.run("systemctl", "reload", SERVICE)
        quiet.run("systemctl", "restart", SERVICE)
        quiet.run("netsrvd", "check")
        quiet.run("systemctl", "stop", "netsrvd.socket", SERVICE)
        quiet.run("netsrvd", "run", "--detach", "--pid-file", "/run/detached.pid")
        assert talk(quiet, "tcp", "detached") == "detached"
        quiet.run(
            "sh", "-ec", "pid=$(cat /run/detached.pid); kill $pid; tail --pid=$pid -f /dev/null"
        )


def test_handlers_may_come_from_there(quiet: Machine) -> None:
    """A handler's module is found in /usr/local, by its path or by an entry point, and by the
    PYTHONPATH of a drop-in.
    """
    folder = local(quiet)
    for path in (f"{folder}/plain.py", f"{folder}/named.py", "/usr/local/lib/names/third.py"):
        write(quiet, path, HANDLER.format(name=path))
    write(quiet, f"{folder}/greeter-1.dist-info/METADATA", METADATA)
    write(quiet, f"{folder}/greeter-1.dist-info/entry_points.txt", ENTRY_POINT)
    write(
        quiet,
        f"/run/systemd/system/{SERVICE}.d/test.conf",
        "[Service]\nEnvironment=PYTHONPATH=/usr/local/lib/names\n",
    )
    services = ("python:plain:serve", "greeter", "python:third:serve")
    tables = [
        f'[listener.l{port}]\nservice = "{service}"\nprotocols = "tcp"\nport = {port}\n'
        for port, service in enumerate(services, 51500)
    ]
    configure(quiet, "".join(tables))
    quiet.run("systemctl", "daemon-reload")
    quiet.run("systemctl", "start", SERVICE)
    said = [
        quiet.run("nc.openbsd", "-d", "127.0.0.1", str(port)).stdout
        for port in (51500, 51501, 51502)
    ]
    assert said == [f"{folder}/plain.py", f"{folder}/named.py", "/usr/local/lib/names/third.py"]
    quiet.run(
        "rm", "-r", f"{folder}/plain.py", f"{folder}/named.py", f"{folder}/greeter-1.dist-info"
    )
    quiet.run("rm", "-r", f"/run/systemd/system/{SERVICE}.d")
    quiet.run("systemctl", "daemon-reload")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("systemd/daemon.py", OLDER),
        ("systemd/__init__.py", FOREIGN),
        ("netsrvd/startup.py", "import none_of_these\n"),
        ("netsrvd/commands/run.py", "print 'Python 2'\n"),
        ("netsrvd/sockets/inetd.py", "import none_of_these\n"),
    ],
)
def test_a_failing_import_keeps_no_client_waiting(quiet: Machine, place: str, text: str) -> None:
    """Each client is turned away, and the log names the file in one line."""
    quiet.run("systemctl", "stop", SERVICE)
    packages = "/usr/lib/python3/dist-packages"
    name = place.partition("/")[0]
    quiet.run("cp", "-a", f"{packages}/{name}", "/srv/kept")
    if name == "systemd":  # its own modules are compiled
        quiet.run("rm", "-r", f"{packages}/{name}")
        write(quiet, f"{packages}/systemd/__init__.py", "")
    write(quiet, f"{packages}/{place}", text)

    for protocol in ("tcp", "tcp"):
        ended = quiet.run("python3", CLIENT, protocol, input="x", check=False)
        assert ended.stdout == ""

    eventually(lambda: shown(quiet, "ExecMainStatus") == "70", "the start has failed")
    messages = [record["MESSAGE"] for record in quiet.journal("--unit", SERVICE)]
    own = [each for each in messages if "an import fails" in each]
    assert own
    assert f"{packages}/{place}" in own[-1]
    assert not [each for each in messages if "Traceback" in each]
    assert is_active(quiet, "netsrvd.socket")
    quiet.run("systemctl", "stop", SERVICE)
    quiet.run("sh", "-ec", f"rm -r {packages}/{name}; mv /srv/kept {packages}/{name}")
    tidy_up(quiet)
    assert talk(quiet, "tcp", "repaired") == "repaired"
