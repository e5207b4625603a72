"""The control socket of a running daemon: what it answers, to whom, and what it costs others."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import pytest
import varlink

import netsrvd
from netsrvd.commands.daemons import private_path
from netsrvd.control.callers import LONGEST_CALL, MOST_CALLERS
from tests.functional.conftest import Start
from tests.support.activation import opened, passing
from tests.support.clients import answer, ended, talking
from tests.support.copies import copy_package
from tests.support.patience import eventually
from tests.support.peers import connect, echoed
from tests.support.run import LOOPBACK, QUICK, Run, echo
from tests.support.varlink_client import Caller, Types, calling

IDLE = 0.2
LAG_SECONDS = 1.0
"""With connections a timer runs as often."""

CLOSED_TO_ALL = {"allow": ["192.0.2.1"]}


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A path for a control socket."""
    return str(tmp_path_factory.mktemp("control") / "socket")


@pytest.fixture
def run(start: Start, path: str) -> Run:
    """A daemon that serves echo, with a control socket."""
    return start(None, "--control", path)


def rest(run: Run) -> None:
    """Take what the daemon holds after a first look as what it holds at rest."""
    run.rest()


def description(path: str) -> str:
    """Return the text of the interface."""
    with calling(path) as caller:
        name = "org.varlink.service.GetInterfaceDescription"
        found: str = caller.call(name, interface="io.netsrvd")["parameters"]["description"]
        return found


def test_an_independent_client_understands_it(run: Run, path: str) -> None:
    """PyPI's varlink reads the interface, and calls a method and one with several replies."""
    with varlink.Client.new_with_address(f"unix:{path}") as client:
        assert client.get_interfaces() == ["org.varlink.service", "io.netsrvd"]
        with client.open("io.netsrvd") as daemon, talking(run.port):
            assert daemon.Status()["version"] == netsrvd.__version__
            [found] = daemon.Connections(_more=True)
            assert found["connection"]["bytes_sent"] == len(b"hello")
            with pytest.raises(varlink.VarlinkError) as error:
                list(daemon.Connections(listener="nothing", _more=True))
            assert error.value.as_dict()["error"] == "io.netsrvd.NoSuchListener"


def test_answers_are_what_the_interface_says(start: Start, path: str, port: int) -> None:
    """Each method is called, with connections, flows and refusals there: each reply has the fields
    and types of the text, no more and no fewer.
    """
    configuration = echo(port)
    listeners = configuration["listener"]
    assert isinstance(listeners, dict)
    listeners["closed"] = {"host": LOOPBACK, "port": port + 1, **CLOSED_TO_ALL}
    start(configuration, "--control", path)
    types = Types(description(path))
    called = set()
    with talking(port), calling(path) as caller:
        answer(port)
        with connect(("127.0.0.1", port + 1)) as refused:
            assert ended(refused)
        for method in ("Connections", "Flows"):
            replies = list(caller.all_of(f"io.netsrvd.{method}"))
            assert len(replies) == 1
            types.assert_reply(method, replies[0])
            called.add(method)
        for method in ("Status", "Listeners", "TopSources", "RefusedSources", "Reload"):
            reply = caller.call(f"io.netsrvd.{method}")["parameters"]
            types.assert_reply(method, reply)
            assert all(reply.get(name, True) for name in ("sources", "listeners"))
            called.add(method)
    assert called == {*types.methods}


def test_connections_are_filtered(start: Start, path: str, port: int) -> None:
    """By the name of the listener, by an address and by a network of peers."""
    configuration = echo(port)
    listeners = configuration["listener"]
    assert isinstance(listeners, dict)
    listeners["other"] = {"host": LOOPBACK, "port": port + 1}
    start(configuration, "--control", path)

    def found(**parameters: str) -> list[tuple[str, str]]:
        with calling(path) as caller:
            replies = [each.get("connection") for each in caller.all_of(CONNECTIONS, **parameters)]
        return sorted((each["listener"], each["peer_address"]) for each in replies if each)

    with ExitStack() as stack:
        for each, host in ((port, "127.0.0.1"), (port, "::1"), (port + 1, "127.0.0.1")):
            stack.enter_context(talking(each, host))
        assert len(found()) == 3
        assert found(listener="other") == [("other", "127.0.0.1")]
        assert found(listener="echo", address="127.0.0.0/8") == [("echo", "127.0.0.1")]
        assert found(address="::1") == [("echo", "::1")]
        assert found(address="192.0.2.1") == []


CONNECTIONS, STATUS = "io.netsrvd.Connections", "io.netsrvd.Status"
RELOAD = "io.netsrvd.Reload"


@pytest.mark.parametrize(
    ("method", "parameters", "error"),
    [
        ("io.netsrvd.Nothing", {}, "org.varlink.service.MethodNotFound"),
        ("org.example.Method", {}, "org.varlink.service.InterfaceNotFound"),
        (STATUS, {"more": 1}, "org.varlink.service.InvalidParameter"),
        (CONNECTIONS, {}, "org.varlink.service.ExpectedMore"),
        ("io.netsrvd.TopSources", {"count": -1}, "org.varlink.service.InvalidParameter"),
        ("io.netsrvd.TopSources", {"count": "x"}, "org.varlink.service.InvalidParameter"),
        (RELOAD, {"zone": 1}, "org.varlink.service.InvalidParameter"),
        (RELOAD, {"nothing": "x"}, "org.varlink.service.InvalidParameter"),
    ],
)
def test_what_cannot_be_answered_is_an_error(
    run: Run, path: str, method: str, parameters: dict[str, object], error: str
) -> None:
    """The error is one that is declared, and the next call on the connection is answered."""
    with calling(path) as caller:
        assert caller.call(method, **parameters)["error"] == error
        assert "parameters" in caller.call(STATUS)
    with calling(path) as caller:
        name = "org.varlink.service.GetInterfaceDescription"
        declared = [
            caller.call(name, interface=each)["parameters"]["description"]
            for each in ("org.varlink.service", "io.netsrvd")
        ]
    assert any(f"error {error.rpartition('.')[2]} " in text for text in declared)


def test_a_bad_address_is_an_error(run: Run, path: str) -> None:
    """A peer is an address or a network, as in `allow`."""
    with calling(path) as caller:
        caller.send(CONNECTIONS, parameters={"address": "somewhere"}, more=True)
        assert caller.receive()["error"] == "org.varlink.service.InvalidParameter"


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"no json\0",
        b"[1]\0",
        b'"text"\0',
        b'{"method": 1}\0',
        b"\0",
        b"\xff\0",
        b"[" * 9999 + b"\0",
    ],
)
def test_what_is_no_call_ends_the_connection(run: Run, path: str, sent: bytes) -> None:
    """The daemon goes on, for other callers and for clients."""
    with calling(path) as caller:
        caller.sock.sendall(sent)
        assert ended(caller.sock)
    with calling(path) as caller, talking(run.port):
        assert caller.call(STATUS)["parameters"]["connections"] == 1


def test_a_call_has_a_limit(run: Run, path: str) -> None:
    """What is longer than 64 KiB without an end is not kept."""
    with calling(path) as caller:
        try:
            caller.sock.sendall(bytes(LONGEST_CALL * 4).replace(b"\0", b"x"))
            assert ended(caller.sock)
        except (BrokenPipeError, ConnectionResetError):
            pass


def test_calls_in_one_message_are_answered_in_their_order(run: Run, path: str) -> None:
    """The caller need not wait for one answer before it sends the next call."""
    with calling(path) as caller:
        caller.sock.sendall(b'{"method":"io.netsrvd.Nothing"}\0{"method":"io.netsrvd.Status"}\0')
        assert caller.receive()["error"] == "org.varlink.service.MethodNotFound"
        assert caller.receive()["parameters"]["pid"] == run.pid


def test_silent_callers_make_room_for_others(run: Run, path: str) -> None:
    """One more than there may be ends the connection of the one that has been silent longest."""
    with ExitStack() as stack:
        callers: list[Caller] = []
        for _ in range(MOST_CALLERS):
            callers.append(stack.enter_context(calling(path)))
            assert callers[-1].call(STATUS)["parameters"]
        assert callers[0].call(STATUS)["parameters"]
        last = stack.enter_context(calling(path))
        assert last.call(STATUS)["parameters"]
        assert ended(callers[1].sock)
        assert callers[0].call(STATUS)["parameters"]


def test_a_crowd_of_callers_is_answered(run: Run, path: str) -> None:
    """Four times as many as there may be at a time: each gets its answers, none is cut off."""
    with ExitStack() as stack:
        crowd = [stack.enter_context(calling(path)) for _ in range(4 * MOST_CALLERS)]
        for each in crowd:
            each.send(STATUS)
        for each in crowd:
            assert each.receive()["parameters"]["pid"] == run.pid
            each.sock.close()


def test_a_caller_that_does_not_read_costs_others_nothing(run: Run, path: str) -> None:
    """Its answer waits, while clients and another caller are served; its memory is bounded."""
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(talking(run.port))
        deaf = stack.enter_context(calling(path))
        deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        before = run.memory_kb("VmRSS")
        call = b'{"method":"io.netsrvd.Connections","more":true}\0'
        deaf.sock.sendall(call * 1000)
        other = stack.enter_context(calling(path))
        assert other.call(STATUS)["parameters"]["connections"] == 200
        with talking(run.port) as client:
            assert echoed(client)
        assert run.memory_kb("VmRSS") < before + 4096


TIMED = """
import time
from netsrvd.control.callers import Callers
from netsrvd.shutdown import Shutdown
took = []
def due(self, now, run_due=Callers.run_due):
    began = time.thread_time()
    try:
        return run_due(self, now)
    finally:
        took.append(time.thread_time() - began)
Callers.run_due = due
def end(self, *more, run=Shutdown.run, **named):
    took.sort()
    print(f"STEPS {len(took)} {took[len(took) * 99 // 100]}\\n", end="", file=sys.stderr)
    return run(self, *more, **named)
Shutdown.run = end
"""
"""Has the run print the number of steps and the processor time that 99 % of them did not exceed.
The line is short enough for one write(2), so that no record comes into it.
"""

CROWD = 5000
LONGEST_STEP_SECONDS = 0.002


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many as the hard limit allows, for the clients of a test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_answers_about_thousands_come_in_short_steps(start: Start, path: str, port: int) -> None:
    """With 5,000 connections each method is answered in steps of which 99 % take less than 2 ms of
    processor time: by so much, at most, a look delays a client.
    """
    run = start(echo(port), "--control", path, planted=TIMED)
    run.allow("STEPS ")
    with ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(connect(("127.0.0.1", port)))
        caller = stack.enter_context(calling(path))
        run.wait(lambda: caller.call(STATUS)["parameters"]["connections"] == CROWD, "all")
        assert len(list(caller.all_of(CONNECTIONS))) == CROWD
        assert caller.call("io.netsrvd.TopSources")["parameters"]["sources"][0]["live"] == CROWD
        caller.call("io.netsrvd.RefusedSources")
        caller.call("io.netsrvd.Listeners")
    run.end()
    [line] = run.lines_with("STEPS ")
    _, count, seconds = line.split()
    assert int(count) > CROWD / 50
    assert float(seconds) < LONGEST_STEP_SECONDS


# --- a reload --------------------------------------------------------------------------------


def test_a_reload_tells_its_result(run: Run, path: str) -> None:
    """Its warnings if it succeeds, all reasons if it fails, as the interface declares them; systemd
    hears of it as of one by a signal.
    """
    with calling(path) as caller:
        types = Types(description(path))
        run.configure("one = 1\ntwo = 2\n")
        failed = caller.call(RELOAD)
        assert failed["error"] == "io.netsrvd.NotReloaded"
        types.assert_error("NotReloaded", failed["parameters"])
        one, two = failed["parameters"]["reasons"]
        assert one.startswith(f"{run.config}:1: one = 1: unknown key")
        assert two.startswith(f"{run.config}:2: two = 2: unknown key")
        run.configure(echo(run.port, deny=["127.0.0.1"]))
        assert caller.call(RELOAD) == {"parameters": {"warnings": []}}
        with connect(("127.0.0.1", run.port)) as client:
            assert ended(client)
    run.wait_line("configuration reloaded: listener.echo.deny")
    assert run.wait_notice("RELOADING", 2)["RELOADING"] == "1"


def test_a_private_socket_answers_as_well(start: Start) -> None:
    """A daemon that was started without `--control` has it: its process ID leads there."""
    run = start()
    with calling(private_path(run.pid)) as caller:
        assert caller.call(STATUS)["parameters"]["pid"] == run.pid
        assert caller.call(RELOAD) == {"parameters": {"warnings": []}}


# --- who may ask ------------------------------------------------------------------------------

AS_NOBODY = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
sock.connect(sys.argv[1].replace("@", "\\0", 1))
sock.sendall(json.dumps({"method": sys.argv[2]}).encode() + b"\\0")
print(sock.recv(10000).decode().rstrip("\\0"))
"""


def asked_as_nobody(path: str, method: str = STATUS) -> subprocess.CompletedProcess[str]:
    """Ask as another user than that of the daemon."""
    command = [sys.executable, "-IS", "-c", AS_NOBODY, path, method]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_abstract_name_is_for_root_and_the_same_user(start: Start) -> None:
    """Any user of the network namespace can connect to it: the kernel says which one does."""
    name = f"@netsrvd-{os.urandom(8).hex()}"
    start(None, "--control", name)
    with calling(name) as caller:
        assert caller.call(STATUS)["parameters"]
    assert "org.varlink.service.PermissionDenied" in asked_as_nobody(name).stdout


def test_a_path_is_for_root_and_the_same_user(run: Run, path: str) -> None:
    """The file has the mode 0600; and if an administrator opens it, the kernel says who calls."""
    assert Path(path).stat().st_mode & 0o777 == 0o600
    for folder in Path(path).parents[:3]:
        folder.chmod(0o755)
    assert "PermissionError" in asked_as_nobody(path).stderr
    Path(path).chmod(0o666)
    assert "org.varlink.service.PermissionDenied" in asked_as_nobody(path).stdout


def test_a_path_is_free_again_after_the_end(start: Start, path: str) -> None:
    """At a stop the file is removed; one that a killed daemon has left is replaced; and one that is
    in use is an error with the reason.
    """
    run = start(None, "--control", path)
    run.end()
    assert not Path(path).exists()
    run = start(None, "--control", path)
    run.kill()
    assert Path(path).exists()
    start(None, "--control", path)
    second = start(None, "--control", path, ready=False)
    second.wait_failure(os.EX_UNAVAILABLE)
    assert second.lines_with(f"control socket {path}: Address already in use")


# --- passed by systemd ------------------------------------------------------------------------


@pytest.fixture
def passed(path: str) -> Iterator[socket.socket]:
    """A listening socket, as that of netsrvd-control.socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(path)
        sock.listen()
        yield sock


def test_a_passed_socket_is_no_listener(
    start: Start, path: str, passed: socket.socket, port: int
) -> None:
    """It is told by its name, is not served to clients, and does not keep `idle_exit` from
    happening; a caller that is connected does not either.
    """
    with ExitStack() as stack:
        sockets = opened(stack, port, "tcp4", "tcp6", "udp4", "udp6")
        configuration = {"idle_exit": IDLE, **echo(port)}
        names = ":".join(["echo"] * 4 + ["netsrvd-control"])
        run = start(configuration, **passing([*sockets, passed], names))
        caller = stack.enter_context(calling(path))
        listeners = caller.call("io.netsrvd.Listeners")["parameters"]["listeners"]
        assert {each["name"] for each in listeners} == {"echo"}
        assert {each["origin"] for one in listeners for each in one["addresses"]} == {"systemd"}
        run.wait_line("stopping on idle")
        run.wait_end()
        assert ended(caller.sock)


def test_a_passed_socket_reloads_for_root_alone(
    start: Start, path: str, passed: socket.socket
) -> None:
    """Users that may open its file may look; root alone has the configuration read again."""
    run = start(None, **passing([passed], "netsrvd-control"))
    for folder in Path(path).parents[:3]:
        folder.chmod(0o755)
    Path(path).chmod(0o666)
    assert '"pid"' in asked_as_nobody(path).stdout
    assert "org.varlink.service.PermissionDenied" in asked_as_nobody(path, RELOAD).stdout
    assert not run.lines_with("reload")
    with calling(path) as caller:
        assert caller.call(RELOAD) == {"parameters": {"warnings": []}}
    run.wait_line("configuration reloaded: nothing changed")


def test_another_unix_socket_is_still_an_error(
    start: Start, passed: socket.socket, port: int
) -> None:
    """Without that name it is taken for a mistake in a unit, as before."""
    run = start(echo(port), ready=False, **passing([passed], "echo"))
    run.wait_failure(os.EX_CONFIG)
    assert run.lines_with("which is neither IPv4 nor IPv6")


def test_a_failed_start_leaves_no_file(start: Start, path: str) -> None:
    """Of the control socket that it has bound."""
    run = start({"nonsense": 1}, "--control", path, ready=False)
    run.wait_failure(os.EX_CONFIG)
    assert not Path(path).exists()


def test_a_failed_start_turns_callers_away(start: Start, path: str, passed: socket.socket) -> None:
    """A caller that waits would make systemd start the service again and again."""
    with calling(path) as caller:
        run = start("nonsense = 1\n", ready=False, **passing([passed], "netsrvd-control"))
        run.wait_failure(os.EX_CONFIG)
        assert ended(caller.sock)


def test_only_udp_is_enough(start: Start, path: str, port: int) -> None:
    """The loop of UDP answers where no TCP is served."""
    start(echo(port, protocols=["udp"]), "--control", path)
    answer(port)
    with calling(path) as caller:
        [listener] = caller.call("io.netsrvd.Listeners")["parameters"]["listeners"]
        assert (listener["protocol"], listener["gauges"]["flows_live"]) == ("udp", 1)


# --- an upgrade meanwhile ---------------------------------------------------------------------

IS_COPY = """
import os
assert cli.__file__.startswith(os.environ["COPY"])
"""


@pytest.fixture
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a copy of the package."""
    folder = tmp_path_factory.mktemp("copy")
    copy_package(folder)
    return folder


def replace(copy: Path, text: str | None) -> None:
    """Replace the package, as dpkg does: other files have the names; or each has this text."""
    new = copy.with_name("new")
    shutil.copytree(copy / "netsrvd", new, ignore=shutil.ignore_patterns("__pycache__"))
    for module in new.rglob("*.py") if text is not None else ():
        module.write_text(text)
    shutil.rmtree(copy / "netsrvd")
    new.rename(copy / "netsrvd")


@pytest.mark.parametrize(
    "text", [None, 'raise TypeError("another version")\n'], ids=["same", "other"]
)
def test_an_upgrade_before_the_first_look(
    start: Start, path: str, copy: Path, text: str | None
) -> None:
    """The caller gets the error Upgraded, each time, and the daemon goes on; a reload works."""
    environment = {"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1", "COPY": str(copy), **QUICK}
    run = start(None, "--control", path, planted=IS_COPY, environment=environment)
    run.wait_notice("WATCHDOG")  # of its first tick
    replace(copy, text)
    for _ in range(3):
        with calling(path) as caller:
            assert caller.call(STATUS) == {"error": "io.netsrvd.Upgraded", "parameters": {}}
            assert caller.call(RELOAD) == {"parameters": {"warnings": []}}
    with talking(run.port) as client:
        assert echoed(client)


def test_an_upgrade_after_the_first_look(start: Start, path: str, copy: Path) -> None:
    """What has been imported goes on answering, each method of it."""
    environment = {"PYTHONPATH": str(copy), "PYTHONSAFEPATH": "1", "COPY": str(copy)}
    run = start(None, "--control", path, planted=IS_COPY, environment=environment)
    with calling(path) as caller:
        assert caller.call(STATUS)["parameters"]["pid"] == run.pid
    replace(copy, 'raise TypeError("another version")\n')
    with talking(run.port), calling(path) as caller:
        for method in ("Status", "Listeners", "TopSources", "RefusedSources"):
            assert caller.call(f"io.netsrvd.{method}")["parameters"]
        assert len(list(caller.all_of(CONNECTIONS, address="127.0.0.0/8"))) == 1
        assert list(caller.all_of("io.netsrvd.Flows")) == [{}]
        assert (
            "description"
            in caller.call("org.varlink.service.GetInterfaceDescription", interface="io.netsrvd")[
                "parameters"
            ]
        )
    assert not run.lines_with("<3>")


# --- what it says -----------------------------------------------------------------------------


def test_the_result_of_a_reload_is_told(run: Run, path: str) -> None:
    """Its fault, with the reason, until a reload succeeds."""
    with calling(path) as caller:
        before = caller.call(STATUS)["parameters"]
        assert (before["fault"], before["run"]["reload_successful"]) == ("", 1)
        run.reload("nonsense = 1\n")
        after = caller.call(STATUS)["parameters"]
        assert "nonsense" in after["fault"]
        assert after["run"]["reload_successful"] == 0
        assert after["run"]["reload_success_time"] == before["run"]["reload_success_time"]
        run.reload(echo(run.port))
        last = caller.call(STATUS)["parameters"]
        assert (last["fault"], last["run"]["reload_successful"]) == ("", 1)
        assert last["run"]["reload_success_time"] > before["run"]["reload_success_time"]


def test_a_pause_of_the_process_is_lag(run: Run, path: str) -> None:
    """While it was stopped its timers were due: each status for a minute says how late they ran."""
    with talking(run.port), calling(path) as caller:

        def lag() -> float:
            found: float = caller.call(STATUS)["parameters"]["run"]["tcp_lag"]
            return found

        before = lag()
        run.send(signal.SIGSTOP)
        eventually(lambda: state(run) == "T")
        until = monotonic() + before + 2 * LAG_SECONDS
        eventually(lambda: monotonic() >= until)
        run.send(signal.SIGCONT)
        run.wait(lambda: lag() >= before + LAG_SECONDS, "lag")
        assert lag() >= before + LAG_SECONDS


def state(run: Run) -> str:
    """Return the state of the process, T for stopped."""
    return Path(f"/proc/{run.pid}/stat").read_text().rpartition(") ")[2].split()[0]


def test_rates_are_told_with_their_time(run: Run, path: str) -> None:
    """After a while a status has the growth a second, over a time that it names."""
    with talking(run.port), calling(path) as caller:

        def rates() -> list[dict[str, float]]:
            found: list[dict[str, float]] = caller.call(STATUS)["parameters"]["rates"]
            return found

        assert rates() == []
        [found, *_] = run.wait(rates, "rates")
        assert found["seconds"] >= 1
        assert found["received_bytes"] >= 0
