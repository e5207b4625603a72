"""The figures of a run agree with its records, whatever happens to its clients."""

import json
import socket
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from netsrvd import counters
from tests.functional.conftest import Start
from tests.support.activation import opened
from tests.support.clients import ended
from tests.support.patience import SECONDS
from tests.support.peers import connect, echoed, reset
from tests.support.run import LOOPBACK, Run, free_port
from tests.support.unit import Unit

HOST = "127.0.0.1"

PLANTED = """
import json, os, sys
from netsrvd import snapshot
from netsrvd.log import writer
from netsrvd.shutdown import Shutdown
def tell(word, value):
    line = f"{word} {json.dumps(value)}\\n".encode()  # in one call: two threads tell
    while line:
        line = line[os.write(2, line):]
def made(event, record=writer.record):
    found = record(event)
    tell("RECORD", [type(event).__name__, dict(found.fields)])
    return found
writer.record = made
def figures_of(server):
    steps = snapshot.steps(server)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
def summary(self, *figures, make=Shutdown._summary):
    taken = [[each.definition.name, each.labels, each.value]
        for each in snapshot.samples(figures_of(self._server))]
    tell("SAMPLES", taken)
    return make(self, *figures)
Shutdown._summary = summary
"""
"""Has the run print all fields of its records, and the figures at its end."""

Records = list[tuple[str, dict[str, str]]]


def configuration(port: int, other: int, *, more: bool) -> dict[str, object]:
    """Return one with listeners that refuse for several reasons; with `more`, one besides."""
    listeners: dict[str, object] = {
        "echo": {"host": LOOPBACK, "port": port, "unlimited": [], "flow_timeout": 0.5}
        | {"max_connections_per_source": 3, "datagram_rate": 1, "datagram_burst": 5},
        "closed": {"host": LOOPBACK, "port": other, "allow": ["192.0.2.1"]},
        "time": {"host": LOOPBACK, "port": other + 1, "service": "daytime"},
        "idle": {"host": LOOPBACK, "port": other + 3, "idle_timeout": 0.2},
    }
    if more:
        listeners["handler"] = {
            "host": LOOPBACK,
            "port": other + 2,
            "service": "python:tests.support.handlers:upper",
        }
    return {"listener": listeners}


def told(run: Run) -> Records:
    """Return the records of a run so far, with their fields in lower case."""
    found = []
    for line in run.lines_with("RECORD "):
        kind, fields = json.loads(line.partition(" ")[2])
        names = {key.removeprefix("NETSRVD_").lower(): value for key, value in fields.items()}
        found.append((kind, names))
    return found


def total(records: Records, kind: str, field: str, **having: str) -> int:
    """Return the sum of a field of the records of one kind that have these values."""
    return sum(
        int(fields.get(field, 0))
        for name, fields in records
        if name == kind and having.items() <= fields.items()
    )


def by_reason(records: Records, *kinds: str, **having: str) -> Counter[str]:
    """Return how many records of these kinds there are by reason; each stands for `times`."""
    found: Counter[str] = Counter()
    for name, fields in records:
        if name in kinds and having.items() <= fields.items():
            found[fields["reason"]] += int(fields.get("times", 1))
    return found


def tcp_load(port: int, other: int) -> None:
    """Have connections end and be refused for several reasons."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect((HOST, port))) for _ in range(3)]
        for number, client in enumerate(clients, 1):
            assert echoed(client, b"x" * 1000 * number)
        for _ in range(2):
            assert ended(stack.enter_context(connect((HOST, port))))
        reset(clients[0])
        for client in clients[1:]:
            client.close()
        assert ended(stack.enter_context(connect((HOST, other + 3))))
        for address in ((HOST, other), ("::1", other)):
            assert ended(stack.enter_context(connect(address)))
        time = stack.enter_context(connect((HOST, other + 1)))
        assert time.makefile().read()
        handled = stack.enter_context(connect((HOST, other + 2)))
        handled.sendall(b"handled")
        assert handled.recv(100) == b"HANDLED"


def udp_load(port: int, other: int) -> None:
    """Have datagrams answered, exceed a rate, and be refused by access and by port."""
    for count in (3, 10):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((HOST, port))
            for _ in range(count):
                sock.send(b"datagram")
            sock.settimeout(SECONDS)
            if count == 3:
                for _ in range(count):
                    assert sock.recv(100) == b"datagram"
    for source, target in ((0, other), (7, port)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((HOST, source))
            sock.sendto(b"refused", (HOST, target))


def test_sums_agree_with_the_records(start: Start, port: int) -> None:
    """What the last record and a snapshot say is what the records of a mixed load add up to."""
    other = free_port(port + 1)
    root = str(Path(__file__).parents[2])
    run = start(
        configuration(port, other, more=True),
        planted=f"{PLANTED}\nsys.path.insert(0, {root!r})",
    )
    run.allow("RECORD ", "SAMPLES ")
    tcp_load(port, other)
    udp_load(port, other)
    run.wait_line(" closed: ", 6)
    run.wait_line(" refused: port")
    run.wait(lambda: total(told(run), "FlowEnded", "datagrams_received") == 13, "13 datagrams")
    run.reload(configuration(port, other, more=False))
    run.rest()
    run.end()
    records = told(run)
    [stopped] = [fields for kind, fields in records if kind == "Stopped"]
    assert_tcp(records, stopped)
    assert_udp(records, stopped)
    [line] = run.lines_with("SAMPLES ")
    assert_samples(json.loads(line.partition(" ")[2]), stopped)


def reasons(stopped: dict[str, str], name: str) -> dict[str, int]:
    """Return the counts of the last record by reason."""
    pairs = (each.split("=") for each in stopped.get(f"{name}_reasons", "").split())
    return {reason: int(count) for reason, count in pairs}


def assert_tcp(records: Records, stopped: dict[str, str]) -> None:
    """Check the figures of connections."""
    kinds = Counter(kind for kind, _ in records)
    assert int(stopped["accepted"]) == kinds["Accepted"] == int(stopped["closed"])
    closed = by_reason(records, "Closed")
    assert reasons(stopped, "closed") == closed
    assert {*closed} >= {"client", "reset", "idle", "finished"}
    refused = by_reason(records, "Refused", "RefusedAgain", protocol="tcp")
    assert reasons(stopped, "refused") == refused == {"source": 2, "access": 2}


def assert_udp(records: Records, stopped: dict[str, str]) -> None:
    """Check the figures of datagrams, and the bytes of both."""
    kinds = Counter(kind for kind, _ in records)
    assert int(stopped["flows"]) == kinds["FlowBegan"] == int(stopped["flows_ended"])
    assert reasons(stopped, "flows_ended") == by_reason(records, "FlowEnded")
    refused = by_reason(records, "Refused", "RefusedAgain", protocol="udp")
    assert reasons(stopped, "datagrams_refused") == refused
    assert {*refused} == {"access", "port", "rate"}
    without_flow = refused["access"] + refused["port"]
    of_flows = total(records, "FlowEnded", "datagrams_received")
    assert int(stopped["datagrams_received"]) == of_flows + without_flow == 15
    assert int(stopped["datagrams_sent"]) == total(records, "FlowEnded", "datagrams_sent")
    received = total(records, "Closed", "bytes_received") + total(
        records, "FlowEnded", "bytes_received"
    )
    assert int(stopped["bytes_received"]) == received + without_flow * len(b"refused")
    sent = total(records, "Closed", "bytes_sent") + total(records, "FlowEnded", "bytes_sent")
    assert int(stopped["bytes_sent"]) == sent


def assert_samples(samples: list[Any], stopped: dict[str, str]) -> None:
    """Check that the samples of the listeners that are left add up to the last record, but for the
    one that a reload removed.
    """
    sums: Counter[str] = Counter()
    for name, _, value in samples:
        sums[name] += value
    differing = {
        each.name: int(stopped[each.name]) - sums[each.name]
        for each in counters.definitions(counters.Counters)
        if int(stopped[each.name]) != sums[each.name]
    }
    assert differing == {"accepted": 1, "closed": 1, "bytes_received": 7, "bytes_sent": 7}
    assert sums["reload_successful"] == 1
    assert sums["log_records"] > 20
    assert sys.maxsize > sums["start_time"] > 1e9


def test_a_restart_counts_no_byte_twice(start: Start, port: int) -> None:
    """A connection that is handed over is accepted by one run and restored by the next; each run
    counts the bytes that it has moved, which are together those of the connection's record.
    """
    with ExitStack() as stack:
        unit = Unit(start, port, opened(stack, port, "tcp4", "tcp6", "udp4", "udp6"))
        first = unit.start(planted=PLANTED)
        first.allow("RECORD ", "SAMPLES ")
        with connect((HOST, port)) as client:
            assert echoed(client, b"x" * 1000)
            second = unit.restart(first, planted=PLANTED)
            second.allow("RECORD ", "SAMPLES ")
            assert echoed(client, b"y" * 10)
        second.wait_line(" closed: client")
        second.rest()
        second.end()
        runs = [told(each) for each in (first, second)]
    stopped = [fields for run in runs for kind, fields in run if kind == "Stopped"]
    [closed] = [fields for run in runs for kind, fields in run if kind == "Closed"]
    assert [int(each["bytes_received"]) for each in stopped] == [1000, 10]
    assert [int(each["bytes_sent"]) for each in stopped] == [1000, 10]
    assert (closed["bytes_received"], closed["bytes_sent"]) == ("1010", "1010")
    assert [int(each["accepted"]) for each in stopped] == [1, 0]
    assert [int(each["restored"]) for each in stopped] == [0, 1]
    assert [int(each["closed"]) for each in stopped] == [0, 1]
