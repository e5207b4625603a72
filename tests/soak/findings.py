"""What the lines that a soak left say: sums, balances and fits, without any output."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.flows import FlowBegan, FlowRecordsSuppressed
from netsrvd.events.lifecycle import Starting, Stopped
from netsrvd.events.log import RecordsLost
from netsrvd.events.refusals import Refused, RefusedAgain

Line = dict[str, Any]

COUNTED = (
    *("accepted", "restored", "closed", "refused", "handed_over", "cut", "records_lost"),
    *("flows", "flows_ended", "datagrams_received", "datagrams_sent", "datagrams_refused"),
    *("datagrams_dropped", "datagrams_unsent", "datagrams_truncated"),
)
"""Fields of the last record of a process that are used here."""


class Check(NamedTuple):
    """A promise of the soak: what it says, what was found, and whether it holds."""

    name: str
    found: str
    holds: bool


class Fit(NamedTuple):
    """A straight line through points, by least squares."""

    slope: float
    at_begin: float
    at_end: float


def fit(points: Sequence[tuple[float, float]]) -> Fit:
    """Return the line through at least two points with different x."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    middle_x, middle_y = fmean(xs), fmean(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in points) / spread
    begin, end = (middle_y + slope * (x - middle_x) for x in (min(xs), max(xs)))
    return Fit(slope, begin, end)


def lines(path: Path) -> Iterator[Line]:
    """Yield the objects of a file of JSON lines; a file that is not there has none."""
    if path.exists():
        with path.open() as file:
            yield from map(json.loads, file)


class Process:
    """What the journal has of one process of the daemon."""

    def __init__(self, pid: str) -> None:
        self.pid = pid
        self.began = 0.0
        """Seconds since 1970."""
        self.version = ""
        self.records: Counter[str] = Counter()
        """What its records say: how many tell of each thing that is counted."""
        self.counted: dict[str, int] = {}
        """The figures of its last record; empty as long as there is none."""

    @property
    def missing(self) -> int:
        """How many connections are neither closed nor handed over, by the counters; 0 is right."""
        had = self.counted["accepted"] + self.counted["restored"]
        return had - self.counted["closed"] - self.counted["handed_over"]


class Journal:
    """What the journal says of the whole soak."""

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        self.processes: dict[str, Process] = {}
        self.ids: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        """For each connection the number of records of its beginning, and of its end."""
        self.accepted: Counter[str] = Counter()
        """By listener."""
        self.refused: Counter[str] = Counter()
        """Connections, by listener."""
        self.reasons: dict[str, Counter[str]] = defaultdict(Counter)
        """Reasons of `closed`, `refused tcp` and `refused udp`."""
        self.ends: dict[str, set[tuple[int, int]]] = defaultdict(set)
        """Bytes received and sent of the closed connections of echo, by the client's port."""
        self.tracebacks: list[str] = []
        self.suppressed: list[str] = []
        """What journald says of records that it dropped."""
        self.loud: Counter[str] = Counter()
        """Records of the daemon of the priorities warning and above, by their beginnings."""
        self.size = 0
        for record in records:
            self._read(record)

    def _read(self, record: Mapping[str, Any]) -> None:
        self.size += 1
        text = str(record.get("MESSAGE", ""))
        if record.get("SYSLOG_IDENTIFIER") == "systemd-journald":
            if "uppressed" in text or "issed" in text:
                self.suppressed.append(text)
            return
        if "Traceback" in text or record.get("NETSRVD_TRACEBACK"):
            self.tracebacks.append(text)
        if record.get("SYSLOG_IDENTIFIER") != "netsrvd" or "MESSAGE_ID" not in record:
            return
        if int(record["PRIORITY"]) <= 4:
            self.loud[_kind(text)] += 1
        pid = record["_PID"]
        process = self.processes.setdefault(pid, Process(pid))
        if reader := READERS.get(record["MESSAGE_ID"]):
            reader(self, process, record)

    def _starting(self, process: Process, record: Mapping[str, Any]) -> None:
        process.began = int(record["__REALTIME_TIMESTAMP"]) / 1e6
        process.version = record["NETSRVD_VERSION"]

    def _accepted(self, process: Process, record: Mapping[str, Any]) -> None:
        process.records["accepted"] += 1
        self.accepted[record["NETSRVD_LISTENER"]] += 1
        self.ids[record["NETSRVD_CONNECTION"]][0] += 1

    def _closed(self, process: Process, record: Mapping[str, Any]) -> None:
        process.records["closed"] += 1
        self.reasons["closed"][record["NETSRVD_REASON"]] += 1
        self.ids[record["NETSRVD_CONNECTION"]][1] += 1
        if record["NETSRVD_LISTENER"] == "echo":
            both = int(record["NETSRVD_BYTES_RECEIVED"]), int(record["NETSRVD_BYTES_SENT"])
            self.ends[record["NETSRVD_PEER_PORT"]].add(both)

    def _refused(self, process: Process, record: Mapping[str, Any]) -> None:
        times, protocol = int(record.get("NETSRVD_TIMES", 1)), record["NETSRVD_PROTOCOL"]
        process.records["refused" if protocol == "tcp" else "datagrams_refused"] += times
        self.reasons[f"refused {protocol}"][record["NETSRVD_REASON"]] += times
        if protocol == "tcp":
            self.refused[record["NETSRVD_LISTENER"]] += times

    def _flow(self, process: Process, record: Mapping[str, Any]) -> None:
        process.records["flows"] += int(record.get("NETSRVD_FLOWS", 1))

    def _lost(self, process: Process, record: Mapping[str, Any]) -> None:
        process.records["records_lost"] += int(record["NETSRVD_RECORDS"])

    def _stopped(self, process: Process, record: Mapping[str, Any]) -> None:
        process.counted = {name: int(record[f"NETSRVD_{name.upper()}"]) for name in COUNTED}

    @property
    def sums(self) -> Counter[str]:
        """The sums of the counters of all processes."""
        return sum((Counter(each.counted) for each in self.processes.values()), Counter())


Reader = Callable[[Journal, Process, Mapping[str, Any]], None]
READERS: dict[str, Reader] = {
    Starting.MESSAGE_ID: Journal._starting,
    Accepted.MESSAGE_ID: Journal._accepted,
    Closed.MESSAGE_ID: Journal._closed,
    Refused.MESSAGE_ID: Journal._refused,
    RefusedAgain.MESSAGE_ID: Journal._refused,
    FlowBegan.MESSAGE_ID: Journal._flow,
    FlowRecordsSuppressed.MESSAGE_ID: Journal._flow,
    RecordsLost.MESSAGE_ID: Journal._lost,
    Stopped.MESSAGE_ID: Journal._stopped,
}


def _kind(text: str) -> str:
    """Return a message without its numbers and addresses, so that those of one kind are equal."""
    words = ("N" if any(map(str.isdigit, word)) else word for word in text.split())
    return " ".join(words)[:90]


def scraped(figures: Mapping[str, float], name: str, listener: str = "") -> int:
    """Return the sum of the samples of a name, of one listener or of all."""
    found = 0.0
    for key, value in figures.items():
        words = key.split()
        if words[0] == name and listener in {"", *words[1:2]}:
            found += value
    return round(found)


def unbalanced(figures: Mapping[str, float]) -> dict[str, int]:
    """Return the listeners whose `accepted` + `restored` are not `closed` + live, by how many."""
    listeners = {words[1] for words in map(str.split, figures) if len(words) > 2}
    found = {}
    for each in listeners:
        had = sum(
            scraped(figures, f"connections_{n}_total", each) for n in ("accepted", "restored")
        )
        has = scraped(figures, "connections_closed_total", each)
        if left := had - has - scraped(figures, "connections", each):
            found[each] = left
    return found


def window(samples: Iterable[Line], begin: float, end: float) -> list[Line]:
    """Return the samples of a process from one time to another, in seconds of the soak."""
    return [each for each in samples if each.get("pid") and begin <= each["s"] <= end]


def middle(samples: Sequence[Line], name: str) -> float:
    """Return the median of a figure."""
    return median(each[name] for each in samples)
