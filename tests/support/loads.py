"""Clients that put load on the daemon in a machine, and what is known of them afterwards."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.flows import FlowBegan, FlowEnded
from netsrvd.events.lifecycle import Ready, Starting, Stopped, Stopping
from netsrvd.events.log import RecordsLost
from netsrvd.events.sockets import Listening
from tests.support.installed import (
    LOAD_CLIENT,
    SERVICE,
    SUPPORT,
    main_pid,
    run_records,
    shown,
)
from tests.support.machine import Machine
from tests.support.patience import SECONDS, wait_readable

TALKERS, UDP_TALKERS, VISITORS = 8, 4, 8

KINDS = {
    kind.MESSAGE_ID: kind
    for kind in (
        *(Accepted, Closed, FlowBegan, FlowEnded, RecordsLost),
        *(Starting, Listening, Ready, Stopping, Stopped),
    )
}

OWN_EVENTS = {Starting: 1, Listening: 2, Ready: 1, Stopping: 1, Stopped: 1}
"""What a run tells besides its clients and its losses: it has a TCP and a UDP socket."""


class Load:
    """The program `load_client.py` in the machine; what its figures are stands there."""

    def __init__(
        self, machine: Machine, mode: str, count: int, messages: int = 1, *, beside: bool = False
    ) -> None:
        """`beside`: the host runs the program, with its Python, in the machine's network."""
        self.spells: list[dict[str, Any]] = []
        """The figures of each time that it had to go on."""
        self.sent_bytes: dict[str, int] = {}
        """What each socket that stayed open has sent in all, by its port."""
        if beside:
            program = machine.beside(sys.executable, str(SUPPORT / "load_client.py"))
        else:
            program = machine.command("python3", LOAD_CLIENT)
        self._argv = [*program, mode, str(count), str(messages)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Have it leave."""
        rest, _ = self._process.communicate(timeout=2 * SECONDS)
        assert self._process.returncode == 0, "its last words are on standard error"
        self.sent_bytes = json.loads(rest.splitlines()[-1]).get("bytes", {})

    def begin(self, seconds: float | None = None) -> None:
        """Have it go on for so long, or until `stop`."""
        self._process.stdin.write(f"{seconds or ''}\n")

    def wait(self, seconds: float = 0) -> dict[str, Any]:
        """Return the figures of the time that was begun, which should end within so long."""
        wait_readable(self._process.stdout.fileno(), "the figures of a load", seconds + SECONDS)
        self.spells.append(json.loads(self._process.stdout.readline()))
        return self.spells[-1]

    def stop(self) -> dict[str, Any]:
        """End the time that was begun, and return its figures."""
        self.begin()
        return self.wait()

    @property
    def faults(self) -> list[str]:
        """What was wrong so far."""
        return [fault for spell in self.spells for fault in spell.get("faults", ())]

    @property
    def connections(self) -> int:
        """How many connections visitors have made so far."""
        refused = sum(fault.startswith("refused") for fault in self.faults)
        return sum(spell["count"] for spell in self.spells) + len(self.faults) - refused


def go_on(loads: list[Load], seconds: float) -> list[dict[str, Any]]:
    """Have all of them go on for so long; return their figures."""
    for load in loads:
        load.begin(seconds)
    return [load.wait(seconds) for load in loads]


@contextmanager
def visited(machine: Machine, count: int = 1, messages: int = 1) -> Iterator[Load]:
    """Have `count` clients at a time come and go meanwhile."""
    with Load(machine, "visits", count, messages) as load:
        load.begin()
        yield load
        load.stop()


class Crowd:
    """Clients of each kind, and the run of the daemon that serves them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.tcp = Load(machine, "tcp", TALKERS)
        self.udp = Load(machine, "udp", UDP_TALKERS)
        self.visitors = Load(machine, "visits", VISITORS)

    @property
    def loads(self) -> list[Load]:
        return [self.tcp, self.udp, self.visitors]

    @property
    def connections(self) -> int:
        return TALKERS + self.visitors.connections

    @contextmanager
    def comes(self) -> Iterator[None]:
        """Have the daemon started and everybody come; in the end they leave and it stops."""
        self.machine.run("systemctl", "start", SERVICE)
        self.pid = main_pid(self.machine)
        with ExitStack() as stack:
            for load in self.loads:
                stack.enter_context(load)
            yield
        self.machine.run("systemctl", "stop", SERVICE)
        assert shown(self.machine, "Result") == "success"
        assert shown(self.machine, "NRestarts") == "0"
        self.records = run_records(self.machine, self.pid)
        self.kinds = Counter(KINDS.get(each["MESSAGE_ID"]) for each in self.records)

    def told(self, kind: type) -> list[dict[str, str]]:
        """Return the records of one kind."""
        return [each for each in self.records if each["MESSAGE_ID"] == kind.MESSAGE_ID]

    @property
    def told_lost(self) -> int:
        """How many records the journal says are lost, by the sum of all that told it."""
        return sum(int(each["NETSRVD_RECORDS"]) for each in self.told(RecordsLost))

    @property
    def missing(self) -> int:
        """How many records of connections are neither in the journal nor told to be lost."""
        there = self.kinds[Accepted] + self.kinds[Closed] + self.told_lost
        return 2 * self.connections - there

    def assert_served(self) -> None:
        """Nobody was refused, and every byte came back; each side counts the same ones."""
        assert self.visitors.faults == []
        assert int(self.told(Stopped)[0]["NETSRVD_ACCEPTED"]) == self.connections
        for load, kind in ((self.tcp, Closed), (self.udp, FlowEnded)):
            ends = {each["NETSRVD_PEER_PORT"]: each for each in self.told(kind)}
            for name in ("NETSRVD_BYTES_RECEIVED", "NETSRVD_BYTES_SENT"):
                counted = {port: int(ends[port][name]) for port in load.sent_bytes}
                assert counted == load.sent_bytes

    def assert_told(self, losses: int) -> None:
        """The journal has all other records, too, and this number of records of losses."""
        flows = {FlowBegan: UDP_TALKERS, FlowEnded: UDP_TALKERS, RecordsLost: losses}
        others = self.kinds - Counter({Accepted: len(self.records), Closed: len(self.records)})
        assert others == Counter(OWN_EVENTS | flows)
