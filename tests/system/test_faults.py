"""Faults that happen to a daemon under load on a real Debian: what was promised holds meanwhile."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from netsrvd.events.connections import Accepted, Closed, ServiceFailed
from netsrvd.events.handover import ConnectionsRestored
from netsrvd.events.lifecycle import Ready, ReloadFailed, Starting, Stopped, ThreadFailed
from netsrvd.events.log import RecordsLost
from netsrvd.events.sockets import Listening
from tests.support.installed import (
    CLIENT,
    SERVICE,
    configure,
    drop_in,
    main_pid,
    plant,
    run_records,
    shown,
    stopped,
    talk,
    wait_records,
)
from tests.support.loads import (
    TALKERS,
    UDP_TALKERS,
    VISITORS,
    Crowd,
    Load,
    go_on,
    visited,
)
from tests.support.machine import Machine
from tests.support.patience import eventually

JOURNALD = "systemd-journald.service"
KERNEL_RECORDS = 513
"""What the kernel keeps for a journald that does not read: net.unix.max_dgram_qlen as systemd sets
it, and one.
"""

DROP_IN = f"/run/systemd/system/{SERVICE}.d/planted.conf"
PLANTED = "/usr/local/lib/planted"
FAULTS = """\
from netsrvd import server
from netsrvd.services.echo import Stream
from netsrvd.tcp import TCPListener

respond, admit = Stream.respond, TCPListener._admit
server._is_echo = lambda service: False

def failing_respond(self, data):
    if data == b"fail":
        raise RuntimeError("planted in a service")
    return respond(self, data)

def failing_admit(self, sock, peer, *more):
    if peer[0] == "127.0.0.66":
        raise RuntimeError("planted before a connection")
    admit(self, sock, peer, *more)

Stream.respond, TCPListener._admit = failing_respond, failing_admit
"""


def assert_as_quick(before: list[dict[str, float]], meanwhile: list[dict[str, float]]) -> None:
    """Assert that a fault delayed no client: by the median, the 99th percentile and the maximum.

    Other work of the host delays a few round trips by a tenth of a second, and one by more. Clients
    that wait for the log wait until it is there again.
    """
    for usual, then in zip(before, meanwhile, strict=True):
        assert then["count"] > 100
        assert then["median"] < 5 * usual["median"] + 0.05, (usual, then)
        assert then["most"] < 5 * usual["most"] + 0.2, (usual, then)
        assert then["longest"] < 2, (usual, then)


def test_stopped_journald_slows_nobody_and_losses_are_counted(quiet: Machine) -> None:
    """While journald stands still for ten seconds all are served as before; afterwards each record
    of a connection is in the journal or, to the last one, in the count of those that are lost.
    """
    configure(quiet, "[log]\nqueue = 100\n")
    crowd = Crowd(quiet)
    with crowd.comes():
        before = go_on(crowd.loads, 2)
        with stopped(quiet, JOURNALD):
            meanwhile = go_on(crowd.loads, 10)
        go_on(crowd.loads, 1)
    assert_as_quick(before, meanwhile)
    crowd.assert_served()

    assert crowd.told_lost > 2 * meanwhile[-1]["count"] - KERNEL_RECORDS - 100 - 50
    assert crowd.missing == 0
    last = crowd.told(RecordsLost)[-1]
    assert int(last["NETSRVD_RECORDS_LOST"]) == crowd.told_lost
    assert int(crowd.told(Stopped)[0]["NETSRVD_RECORDS_LOST"]) == crowd.told_lost
    crowd.assert_told(losses=crowd.kinds[RecordsLost])


def test_stopped_journald_costs_no_record_that_the_queue_holds(quiet: Machine) -> None:
    """With the queue as it is by default, journald may stand still for seconds under the same load,
    and every record is in the journal.
    """
    crowd = Crowd(quiet)
    with crowd.comes():
        before = go_on(crowd.loads, 1)
        with stopped(quiet, JOURNALD):
            meanwhile = go_on(crowd.loads, 5)
        go_on(crowd.loads, 1)
    assert 2 * meanwhile[-1]["count"] > KERNEL_RECORDS + 100, "the queue was needed"
    assert_as_quick(before, meanwhile)
    crowd.assert_served()
    assert crowd.missing == 0
    crowd.assert_told(losses=0)


JOURNALD_UNITS = (
    *("systemd-journald.socket", "systemd-journald-dev-log.socket"),
    *("systemd-journald-audit.socket", JOURNALD),
)


@contextmanager
def masked(machine: Machine) -> Iterator[None]:
    """Have no journald meanwhile, and nothing that starts it."""
    machine.run("systemctl", "mask", "--runtime", "--now", *JOURNALD_UNITS)
    try:
        yield
    finally:
        machine.run("systemctl", "unmask", "--runtime", *JOURNALD_UNITS)
        machine.run("systemctl", "reset-failed", check=False)
        machine.run("systemctl", "start", *JOURNALD_UNITS)


def test_masked_journald_is_written_to_when_it_is_back(quiet: Machine) -> None:
    """While there is no journald all are served; the status counts the records that are lost. When
    it is back, its sockets made anew, records are written again without a restart, and each that is
    missing is counted, but for those that the kernel had for the journald that ended.
    """
    configure(quiet, "[log]\nqueue = 100\n")
    crowd = Crowd(quiet)
    with crowd.comes():
        go_on(crowd.loads, 1)
        with masked(quiet):
            go_on(crowd.loads, 2)
            lost = re.compile(r"[1-9]\d* records lost")
            eventually(lambda: lost.search(shown(quiet, "StatusText")), "the count of the lost")
            assert "log records lost" in quiet.run("netsrvd", "status").stdout
        go_on(crowd.loads, 1)
    crowd.assert_served()
    assert 0 <= crowd.missing <= KERNEL_RECORDS
    crowd.assert_told(losses=crowd.kinds[RecordsLost])
    assert crowd.told_lost > 0


def test_a_start_without_journald_is_recorded_when_it_is_back(quiet: Machine) -> None:
    """A daemon that starts while there is no journald serves, and has all its records later."""
    with masked(quiet):
        quiet.run("systemctl", "start", SERVICE)
        pid = main_pid(quiet)
        assert talk(quiet, "tcp", "hello") == "hello"
    kinds = Starting, Listening, Ready, Accepted, Closed

    def found() -> bool:
        ids = {each["MESSAGE_ID"] for each in run_records(quiet, pid)}
        return ids == {kind.MESSAGE_ID for kind in kinds}

    eventually(found, "the records of the start and of a connection")


@pytest.mark.parametrize("places", [("/",), ("/run",), ("/", "/run")], ids=" and ".join)
def test_a_full_disk_is_served_through(quiet: Machine, places: tuple[str, ...]) -> None:
    """With no room on the disk, in /run or in both, all are served, and the daemon is reloaded and
    says how it is. systemd may fail to restart it, and then does so when there is room: connections
    go on, no client is refused, and there are records again.
    """
    quiet.run("systemctl", "start", SERVICE)
    pid = main_pid(quiet)
    with Load(quiet, "tcp", TALKERS) as talkers, visited(quiet, VISITORS) as visitors:
        with quiet.full(*places):
            for place in places:
                assert quiet.run("cp", CLIENT, f"{place}/more", check=False).returncode != 0
            quiet.run("journalctl", "--rotate", check=False)  # its next record needs a new file
            go_on([talkers], 0.5)
            quiet.run("systemctl", "reload", SERVICE)
            assert f"PID {pid}" in quiet.run("netsrvd", "status").stdout
            quiet.run("systemctl", "restart", SERVICE, check=False)
        quiet.run("rm", "-f", *(f"{place}/more" for place in places))
        later = main_pid(quiet, other_than=pid)
        go_on([talkers], 0.2)
        wait_told(quiet, later, VISITORS)
    assert visitors.faults == []
    assert main_pid(quiet) == later
    [restored] = run_records(quiet, later, f"MESSAGE_ID={ConnectionsRestored.MESSAGE_ID}")
    assert restored["NETSRVD_LOST"] == "0"


CLOCK = """\
import time
from pathlib import Path

offset = Path("/usr/local/lib/planted/offset")
seconds, nanoseconds = time.time, time.time_ns
time.time = lambda: seconds() + int(offset.read_text())
time.time_ns = lambda: nanoseconds() + 10**9 * int(offset.read_text())
"""
YEAR = 365 * 86400


def test_a_wrong_clock_concerns_no_client(quiet: Machine) -> None:
    """A daemon that starts in 1970 and whose clock then jumps by years, forth and back, serves as
    before, also through a restart; only what tells the time tells a wrong one. (The clock is the
    host's, so only the daemon's view of it is changed.)
    """

    def jump(seconds: int) -> None:
        script = f"echo {seconds} >{PLANTED}/new && mv {PLANTED}/new {PLANTED}/offset"
        quiet.run("sh", "-c", script)

    def year() -> int:
        return int(quiet.run("nc.openbsd", "-d", "127.0.0.1", "51424").stdout[:4])

    today = int(quiet.run("date", "+%s").stdout)
    this_year = int(quiet.run("date", "+%Y").stdout)
    quiet.run("sh", "-c", f"mkdir {PLANTED} && cat >{PLANTED}/sitecustomize.py", input=CLOCK)
    jump(100 - today)
    configure(quiet, '[listener.clock]\nservice = "daytime"\nport = 51424\n')
    with drop_in(quiet, plant(PLANTED)):
        quiet.run("systemctl", "start", SERVICE)
        pid = main_pid(quiet)
        loads = [Load(quiet, "tcp", TALKERS), Load(quiet, "udp", UDP_TALKERS)]
        with loads[0], loads[1], visited(quiet, VISITORS) as visitors:
            assert year() == 1970
            for jumped in (12, -8, 0):
                jump(jumped * YEAR)
                go_on(loads, 0.5)
                assert abs(year() - this_year - jumped) <= 1
                assert f"PID {pid}" in quiet.run("netsrvd", "status").stdout
            jump(100 - today)
            quiet.run("systemctl", "restart", SERVICE)
            later = main_pid(quiet, other_than=pid)
            go_on(loads, 0.5)
        assert visitors.faults == []
        quiet.run("systemctl", "stop", SERVICE)
    quiet.run("rm", "-r", PLANTED)
    [restored] = run_records(quiet, later, f"MESSAGE_ID={ConnectionsRestored.MESSAGE_ID}")
    assert restored["NETSRVD_LOST"] == "0"
    both = [*run_records(quiet, pid), *run_records(quiet, later)]
    closed = [each for each in both if each["MESSAGE_ID"] == Closed.MESSAGE_ID]
    ends = [each for each in closed if each["NETSRVD_LISTENER"] == "echo"]
    assert {each["NETSRVD_REASON"] for each in ends} == {"client"}
    assert all(0 <= float(each["NETSRVD_SECONDS"]) < 600 for each in ends)
    ids = [each["NETSRVD_CONNECTION"] for each in ends]
    assert len(ids) == len({*ids})


def wait_told(machine: Machine, pid: str, count: int) -> None:
    """Wait until the journal has the ends of `count` more connections."""

    def told() -> int:
        return len(run_records(machine, pid, f"MESSAGE_ID={Closed.MESSAGE_ID}"))

    wanted = told() + count
    eventually(lambda: told() >= wanted, f"{count} more records")


def kill(machine: Machine) -> None:
    machine.run("kill", "-KILL", main_pid(machine, JOURNALD))


def restart(machine: Machine) -> None:
    machine.run("systemctl", "restart", JOURNALD)


@pytest.mark.parametrize(("fault", "in_hand"), [(kill, 1), (restart, 0)])
def test_journald_that_starts_anew_is_written_to_again(
    quiet: Machine, fault: Callable[[Machine], None], in_hand: int
) -> None:
    """While journald is killed or restarted all are served as before, and go on being told of.

    systemd keeps journald's socket and what waits in it, so a restart costs no record. What
    journald has taken and not yet stored when it is killed is its own affair: one record at most,
    of which we cannot know.
    """
    quiet.run("systemctl", "reset-failed", JOURNALD)  # it may start five times within ten seconds
    crowd = Crowd(quiet)
    with crowd.comes():
        before = go_on(crowd.loads, 1)
        for load in crowd.loads:
            load.begin()
        for _ in range(2):
            old = main_pid(quiet, JOURNALD)
            fault(quiet)
            main_pid(quiet, JOURNALD, other_than=old)
            wait_told(quiet, crowd.pid, 150)
        meanwhile = [load.stop() for load in crowd.loads]
    assert_as_quick(before, meanwhile)
    crowd.assert_served()
    assert 0 <= crowd.missing <= 2 * in_hand
    crowd.assert_told(losses=0)


def test_killed_daemon_costs_its_live_connections_alone(quiet: Machine) -> None:
    """Each time that the daemon is killed systemd starts it again and no client is refused. Only
    connections that were live break, and only they lack the record of their end.
    """
    clients, kills, pids = 20, 2, []
    with visited(quiet, clients, messages=5) as load:
        for _ in range(kills):
            pids.append(main_pid(quiet, other_than=pids[-1] if pids else "0"))
            wait_told(quiet, pids[-1], 2 * clients)
            quiet.run("kill", "-KILL", pids[-1])
        pids.append(main_pid(quiet, other_than=pids[-1]))
        wait_told(quiet, pids[-1], 2 * clients)
    quiet.run("systemctl", "stop", SERVICE)

    assert shown(quiet, "NRestarts") == str(kills)
    assert all(fault.startswith("broken") for fault in load.faults), load.faults
    assert 0 < len(load.faults) <= kills * clients
    kinds = [Counter(each["MESSAGE_ID"] for each in run_records(quiet, pid)) for pid in pids]
    unclosed = [each[Accepted.MESSAGE_ID] - each[Closed.MESSAGE_ID] for each in kinds]
    assert all(0 < count <= clients for count in unclosed[:kills]), unclosed
    assert unclosed[kills] == 0
    there = sum(each[Accepted.MESSAGE_ID] + each[Closed.MESSAGE_ID] for each in kinds)
    assert 2 * load.connections - there <= 2 * kills * clients


@pytest.fixture
def faulty(quiet: Machine) -> Iterator[Machine]:
    """Give a machine in which the daemon's Python has faults planted when the service starts."""
    for path, text in (
        (DROP_IN, plant(PLANTED)),
        (f"{PLANTED}/sitecustomize.py", FAULTS),
    ):
        quiet.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path}", input=text)
    quiet.run("systemctl", "daemon-reload")
    quiet.run("systemctl", "start", SERVICE)
    yield quiet
    quiet.run("rm", "-r", DROP_IN, PLANTED)
    quiet.run("systemctl", "daemon-reload")


def test_exception_in_a_service_ends_one_connection(faulty: Machine) -> None:
    """A service that raises loses the one connection: the journal has the traceback, all others are
    served, and the daemon goes on.
    """
    pid = main_pid(faulty)
    with Load(faulty, "tcp", TALKERS) as talkers, visited(faulty, VISITORS) as visitors:
        go_on([talkers], 0.1)
        talkers.begin()
        assert talk(faulty, "tcp", "fail") == ""
        wait_records(faulty, pid, ServiceFailed)
        wait_told(faulty, pid, VISITORS)
        assert talkers.stop()["count"] > 0
    assert visitors.faults == []

    [failed] = run_records(faulty, pid, f"MESSAGE_ID={ServiceFailed.MESSAGE_ID}")
    lines = failed["NETSRVD_TRACEBACK"].splitlines()
    assert (lines[0], lines[-1]) == (
        *("Traceback (most recent call last):", "RuntimeError: planted in a service"),
    )
    closed = run_records(faulty, pid, f"MESSAGE_ID={Closed.MESSAGE_ID}")
    [ended] = [each for each in closed if each["NETSRVD_REASON"] != "client"]
    assert ended["NETSRVD_REASON"] == "error"
    assert ended["NETSRVD_CONNECTION"] == failed["NETSRVD_CONNECTION"]
    assert main_pid(faulty) == pid


def test_exception_in_a_thread_ends_the_process(faulty: Machine) -> None:
    """A thread whose own loop raises ends the process with status 70 and its traceback in the
    journal; systemd starts it again, and those who come meanwhile wait and are served.
    """
    pid = main_pid(faulty)
    with visited(faulty, VISITORS) as visitors:
        faulty.run("nc.openbsd", "-N", "-s", "127.0.0.66", "127.0.0.1", "51423", check=False)
        later = main_pid(faulty, other_than=pid)
        wait_told(faulty, later, VISITORS)
    assert all(fault.startswith("broken") for fault in visitors.faults), visitors.faults
    assert len(visitors.faults) <= VISITORS

    [failed] = run_records(faulty, pid, f"MESSAGE_ID={ThreadFailed.MESSAGE_ID}")
    assert failed["NETSRVD_THREAD"] == "tcp"
    assert failed["NETSRVD_TRACEBACK"].endswith("RuntimeError: planted before a connection")
    [ended] = faulty.journal("_PID=1", f"UNIT={SERVICE}", "EXIT_CODE=exited", "EXIT_STATUS=70")
    assert ended["INVOCATION_ID"] == failed["_SYSTEMD_INVOCATION_ID"]
    assert shown(faulty, "NRestarts") == "1"


THREE_MORE = "".join(f"[listener.more{port}]\nport = {port}\n" for port in (51601, 51602, 51603))


def threads(machine: Machine, pid: str) -> int:
    """Return how many threads a process in the machine has."""
    return len(machine.run("ls", f"/proc/{pid}/task").stdout.split())


def limit_threads(machine: Machine, pid: str, most: int) -> None:
    """Let the user of a process have this many threads (RLIMIT_NPROC in getrlimit(2))."""
    machine.run("prlimit", f"--pid={pid}", f"--nproc={most}:")


def test_a_reload_short_of_threads_changes_nothing(quiet: Machine) -> None:
    """A reload that needs the thread for UDP, where there is no room for one, fails and names the
    limit; the process, its threads and its connections are the same, and with room it succeeds.
    """
    quiet.run("systemctl", "stop", "netsrvd.socket")
    configure(quiet, '[listener.echo]\nprotocols = "tcp"\n')
    quiet.run("systemctl", "start", SERVICE)
    pid = main_pid(quiet)
    with Load(quiet, "tcp", 3) as talkers:
        go_on([talkers], 0.2)
        before = threads(quiet, pid)
        limit_threads(quiet, pid, before)
        configure(quiet, THREE_MORE)
        failed = quiet.run("systemctl", "reload", SERVICE, check=False)
        assert failed.returncode != 0
        [told] = wait_records(quiet, pid, ReloadFailed)
        assert "cannot be started" in told["MESSAGE"]
        assert "raise TasksMax=" in told["MESSAGE"]
        assert "raise TasksMax=" in shown(quiet, "StatusText")
        assert (main_pid(quiet), threads(quiet, pid)) == (pid, before)
        assert "51601" not in quiet.run("ss", "-Hltun").stdout

        limit_threads(quiet, pid, before + 100)
        quiet.run("systemctl", "reload", SERVICE)
        assert quiet.run("ss", "-Hltun").stdout.count(":51601") == 4
        assert threads(quiet, pid) == before + 1
        go_on([talkers], 0.2)
    assert talkers.faults == []


def test_a_start_short_of_threads_says_so(quiet: Machine) -> None:
    """Too few for a start: status 71, and one line that names the limit to raise."""
    quiet.run("mkdir", "-p", DROP_IN.rpartition("/")[0])
    quiet.run("sh", "-c", f"cat >{DROP_IN}", input="[Service]\nLimitNPROC=2\n")
    try:
        quiet.run("systemctl", "daemon-reload")
        assert quiet.run("systemctl", "start", SERVICE, check=False).returncode != 0
        assert shown(quiet, "ExecMainStatus") == "71"
        said = quiet.journal("--unit", SERVICE, "_TRANSPORT=stdout")
        pids = {each["_PID"] for each in said if "raise TasksMax=" in each["MESSAGE"]}
        assert pids
        lines = [each["MESSAGE"] for each in said if each["_PID"] in pids]
        assert not [line for line in lines if "Traceback" in line]
    finally:
        quiet.run("rm", DROP_IN)
        quiet.run("systemctl", "daemon-reload")
