"""The report of a soak, made of a few lines."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.lifecycle import Starting, Stopped
from tests.soak import load, report
from tests.soak.findings import COUNTED
from tests.soak.test_findings import record

LIVED = load.TALKERS + load.STREAMERS
PROBES = "sent_at_ns,state,round_trip_ns,source_port\n{},received,1000000,4711\n"


def lines(*found: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in found)


def journal() -> list[dict[str, str]]:
    """Return what two processes told, of which the second got all connections of the first."""
    counts = dict.fromkeys(COUNTED, 0) | {"accepted": LIVED + 2, "handed_over": LIVED}
    first = [record(Starting, "7", version="1")]
    second = [record(Starting, "8", version="1")]
    clients = [(f"c{n}", n, "echo") for n in range(LIVED)]
    visits = [("probe", 4711, "echo"), ("scrape", 4712, "metrics")]
    for name, port, listener in [*clients, *visits]:
        first.append(record(Accepted, "7", connection=name, listener=listener))
        ends = record(
            *(Closed, "7" if listener == "metrics" or name == "probe" else "8"),
            connection=name,
            listener=listener,
            reason="client",
            peer_port=port,
            bytes_received=5,
            bytes_sent=5,
        )
        (first if ends["_PID"] == "7" else second).append(ends)
    first.append(record(Stopped, "7", **counts | {"closed": 2, "datagrams_received": 2}))
    after = dict.fromkeys(COUNTED, 0) | {"restored": LIVED, "closed": LIVED}
    return [*first, *second, record(Stopped, "8", **after)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a soak of five minutes in which nothing went wrong."""
    process = {"rss_kib": 20000, "pss_kib": 15000, "descriptors": 60, "threads": 4}
    samples = [
        {"s": float(s), "t": s, "pid": 7 if s < 150 else 8, "when": "load", "cpu_seconds": 0.1}
        | {"kernel_drops": 0, **process}
        for s in range(0, 300, 10)
    ]
    ends = [samples[0] | {"when": "before"}, samples[-1] | {"when": "after"}]
    figures = {f"connections_{each}_total echo tcp": 9.0 for each in ("restored", "closed")}
    listener = {"counters": {"accepted": 0, "restored": 9, "closed": {"client": 9}}}
    listener |= {"name": "echo", "protocol": "tcp", "gauges": {"connections": 0}}
    status = {"status": {"listeners": [listener]}}
    about = {"seconds": 300.0, "suite": "trixie", "commit": "0123", "kernel": "6", "cores": 2}
    about |= {"systemd": "systemd 257", "python": "Python 3.13", "began": 0.0, "pid": "8"}
    about |= {"load": 0, "figures": figures, "status": status, "result": "success"}
    about |= {"restarts_by_systemd": "0"}
    ports = {str(number): 5 for number in range(LIVED)}
    counts = {f"connected {load.ECHO}": LIVED, "kept": report.LIVED, "scrapes": 1}
    done = {"counts": counts, "faults": [], "cpu_seconds": 1.0, "sent_bytes": ports}
    action = {"s": 150.0, "t": 150.0, "began": 149.0, "action": "restart", "ok": True}
    files = {
        "run.json": json.dumps(about),
        "samples.jsonl": lines(ends[0], *samples, ends[1]),
        "actions.jsonl": lines(action),
        "scrapes.jsonl": lines({"t": 15.0, "figures": figures}),
        "statuses.jsonl": lines({"t": 15.0, "status": {"daemons": [status]}}),
        "load.jsonl": lines(done),
        "journal.jsonl": lines(*journal()),
        **{f"probe-{each}.csv": PROBES.format(10**9) for each in ("udp", "tcp", "stamp")},
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing, which takes longest."""
    monkeypatch.setattr(report, "draw_all", lambda *_: None)


def reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Return the exit status and the text of the report."""
    monkeypatch.setattr(sys, "argv", ["report", str(folder)])
    with pytest.raises(SystemExit) as ended:
        report.main()
    return int(ended.value.code or 0), (folder / "report/soak.md").read_text()


def test_a_short_run_is_marked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All promises hold, and the page says how short it was."""
    status, text = reported(folder, monkeypatch)
    assert "**no**" not in text
    assert status == 0
    assert "**This was a short run of 300 s.**" in text
    assert sorted(path.name for path in (folder / "report/soak").iterdir()) == [
        *("connections.svg", "descriptors.svg", "memory.svg")
    ]


def changed(**counts: int) -> dict[str, Any]:
    return {"counts": {f"connected {load.ECHO}": LIVED, "kept": report.LIVED, **counts}}


FAULTS = {
    "a connection that no process served": changed(**{f"connected {load.ECHO}": LIVED + 1}),
    "a datagram that was neither received nor dropped": changed(**{"sent 51423": 1}),
    "a client that was not kept": changed(kept=report.LIVED - 1),
    "bytes that the daemon did not count": {"sent_bytes": {str(n): 6 for n in range(LIVED)}},
    "a fault": {"faults": [{"who": "visit", "error": "refused"}], **changed(faults=1)},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=[*FAULTS])
@pytest.mark.usefixtures("undrawn")
def test_what_clients_miss_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    """One promise does not hold, and the page names it."""
    path = folder / "load.jsonl"
    path.write_text(lines(json.loads(path.read_text()) | fault))
    status, text = reported(folder, monkeypatch)
    assert status == 1
    assert text.count("**no**") == 1


@pytest.mark.parametrize("name", ["rss_kib", "pss_kib", "descriptors"])
@pytest.mark.usefixtures("undrawn")
def test_a_leak_fails(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What grows steadily is more in the end, and has a trend."""
    path = folder / "samples.jsonl"
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    grown = [each | {name: each[name] * (1 + each["s"] / 1000)} for each in samples[:-1]]
    path.write_text(lines(*grown, samples[-1]))
    status, text = reported(folder, monkeypatch)
    assert status == 1
    assert text.count("**no**") == 2
