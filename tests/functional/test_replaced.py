"""A daemon whose files an upgrade has replaced by those of another version."""

import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Start
from tests.support.activation import opened
from tests.support.clients import ended, leaves_in_order, serves, talking
from tests.support.copies import copy_package
from tests.support.peers import connect, echoed
from tests.support.run import COMMAND, QUICK, Run, echo, failing_echo, free_port
from tests.support.unit import Unit, follow

IS_COPY = """
import os
assert cli.__file__.startswith(os.environ["COPY"])
"""

FAULTY = IS_COPY + failing_echo('data == b"fail"', 'RuntimeError("planted in a service")')


def of(copy: Path) -> dict[str, str]:
    """Return the environment of a run whose package is this copy."""
    return {"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1", "COPY": str(copy), **QUICK}


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a copy of the package."""
    folder = tmp_path_factory.mktemp("copy")
    copy_package(folder)
    return folder


@pytest.fixture
def unit(start: Start, port: int) -> Iterator[Unit]:
    with ExitStack() as stack:
        yield Unit(start, port, opened(stack, port, "tcp4", "tcp6", "udp4", "udp6"))


def replace(run: Run, copy: Path) -> None:
    """Replace each module by one that cannot be imported, once the daemon has run for a while."""
    run.wait_notice("WATCHDOG")  # of its first tick
    for module in copy.rglob("*.py"):
        module.write_text('raise TypeError("this is another version")\n')
    for folder in copy.rglob("__pycache__"):
        shutil.rmtree(folder)


def test_all_that_a_daemon_does_works_with_other_files(unit: Unit, copy: Path, port: int) -> None:
    """A client that does not read, an exception in a service, a reload with and without a fault, a
    reload that adds another service, and a restart: nothing is imported for them any more.
    """
    settings = {"write_timeout": 0.3, "options": {"SO_SNDBUF": 4096}}
    run = unit.start(
        configuration=echo(port, **settings),
        environment=of(copy),
        planted=FAULTY,
    )
    replace(run, copy)
    with talking(port) as kept, talking(port, "::1") as other:
        with connect(("127.0.0.1", port)) as deaf:
            deaf.setblocking(False)
            with suppress(BlockingIOError):
                while deaf.send(bytes(65536)):
                    pass
            run.wait_line("closed: write")
        with talking(port) as failing:
            failing.sendall(b"fail")
            assert ended(failing)
        run.wait_line("closed: error")
        run.wait_line("RuntimeError: planted in a service")

        run.reload("nonsense = [1]\n")
        run.wait_line("reload failed, the old configuration stays: ")
        done = subprocess.run([COMMAND, "reload", str(run.pid)], capture_output=True, check=False)
        assert (done.returncode, b"nonsense" in done.stderr) == (78, True)
        run.reload(echo(port, **settings, idle_timeout=100, service="discard"))
        run.wait_line("configuration reloaded: ")
        assert echoed(kept)
        assert serves_nothing(port)

        follow(run)
        successor = unit.succeed(run)
        assert echoed(kept)
        assert leaves_in_order(other)
    successor.wait_line("closed: client", 2)
    successor.rest()
    run.wait_line("2 connections handed over to the next process")


@pytest.mark.parametrize(
    ("service", "protocol"), [("metrics", "tcp"), ("stamp", "udp"), ("echoplus", "udp")]
)
def test_a_large_service_is_not_added_from_other_files(
    start: Start, copy: Path, port: int, service: str, protocol: str
) -> None:
    """The reload fails and says that a restart is due; the daemon serves on as before."""
    run = start(echo(port), environment=of(copy), planted=IS_COPY)
    replace(run, copy)
    configuration: Any = echo(port)
    configuration["listener"]["new"] = {
        "service": service,
        "protocols": [protocol],
        "port": free_port(port + 1),
    }
    run.reload(configuration)
    said = run.wait_line("reload failed, the old configuration stays: ")
    assert f"service {service}: netsrvd was upgraded since it started; restart it" in said
    assert serves(port)


def serves_nothing(port: int) -> bool:
    """Return whether what is sent is thrown away."""
    with connect(("127.0.0.1", port)) as sock:
        sock.sendall(b"thrown away")
        return leaves_in_order(sock)


def test_a_stop_works_with_other_files(start: Start, copy: Path, port: int) -> None:
    """A drain, its time-out and the last record."""
    run = start({"drain_timeout": 0.2, **echo(port)}, environment=of(copy), planted=IS_COPY)
    replace(run, copy)
    with talking(port):
        run.send(signal.SIGTERM)
        run.wait_end()
    run.wait_line("1 cut off at the end")


PLANTED = f"""{IS_COPY}
from netsrvd import preload
preload.MODULES = ()
"""


@pytest.mark.parametrize("module", ["handover", "events/handover", "linux/memfd"])
def test_a_handover_that_cannot_be_imported_becomes_a_drain(
    unit: Unit, copy: Path, port: int, module: str
) -> None:
    """Whatever is raised: a record says so, the connections are served until the drain is over,
    and nothing is left in the store.
    """
    run = unit.start(environment=of(copy), planted=PLANTED)
    run.wait_notice("WATCHDOG")
    (copy / f"netsrvd/{module}.py").write_text('raise TypeError("this is another version")\n')
    with talking(port) as live, talking(port) as other:
        run.send(signal.SIGUSR1)
        run.send(signal.SIGTERM)
        run.wait_line("2 connections are not handed over: that fails: TypeError(")
        assert echoed(live)
        assert leaves_in_order(other)
    run.wait_end()
    assert run.store == []
    assert "0 handed over, 0 cut off" in run.lines[-1]


LATER = """
from netsrvd import daemon
def tick(self, tick=daemon.Daemon._tick):
    tick(self)
    print("LOADED", self._is_loaded, file=sys.stderr)
daemon.Daemon._tick = tick
"""


def test_a_lack_of_descriptors_is_waited_for(start: Start) -> None:
    """While there is none, nothing is imported, and the daemon goes on; then it is."""
    run = start(planted=LATER)
    run.allow("LOADED ")
    _, hard = resource.prlimit(run.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (len(run.links()), hard))
    assert run.wait_line("LOADED ", 2) == "LOADED False"
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (hard, hard))
    run.wait_line("LOADED True")
    assert serves(run.port)
    assert run.lines_with("<3>") == run.lines_with("<4>") == []


def test_everything_is_imported_soon(start: Start, copy: Path) -> None:
    """A second after READY each module of the package that can be needed is there, but for those of
    commands, of looks at the daemon, and of the services that few configure.
    """
    program = (
        "from netsrvd import daemon\n"
        "def tick(self, tick=daemon.Daemon._tick):\n"
        "    print('IMPORTED', *sys.modules, file=sys.stderr)\n"
        "    tick(self)\n"
        "daemon.Daemon._tick = tick\n"
    )
    run = start(planted=program)
    run.allow("IMPORTED ")
    imported = {*run.wait_line("IMPORTED ").split()}
    root = copy / "netsrvd"
    modules = {
        ".".join(path.relative_to(copy).with_suffix("").parts) for path in root.rglob("*.py")
    }
    expected = {name.removesuffix(".__init__") for name in modules if not name.endswith("__main__")}
    missing = expected - imported
    of_others = ("netsrvd.commands.", "netsrvd.probe", "netsrvd.systemd")
    assert {name for name in missing if not name.startswith(of_others)} == {
        *("netsrvd.detach", "netsrvd.sockets.inetd", "netsrvd.log.stderr_to_log"),
        *("netsrvd.services.http", "netsrvd.services.page"),
        *(f"netsrvd.services.{name}" for name in ("echoplus", "exposition", "metrics", "stamp")),
        *("netsrvd.services.shown", "netsrvd.services.timed", "netsrvd.timed"),
        *("netsrvd.packets", "netsrvd.packets.stamp", "netsrvd.packets.udpechoplus"),
        *("netsrvd.control.interface", "netsrvd.control.methods"),
        *("netsrvd.metrics", "netsrvd.overview", "netsrvd.snapshot"),
    }


def test_files_that_are_replaced_within_a_second_are_told(start: Start, copy: Path) -> None:
    """A start during an upgrade: the daemon goes on, and a record asks for a restart."""
    (copy / "netsrvd/preload.py").write_text('raise TypeError("this is another version")\n')
    run = start(environment=of(copy), planted=IS_COPY)
    run.wait_line("netsrvd.preload cannot be imported: TypeError('this is another version')")
    assert serves(run.port)
