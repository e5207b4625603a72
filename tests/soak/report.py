"""Makes the report of a soak from the lines that it left; it can be run again and again.

    python -m tests.soak.report FOLDER [--publish]

It goes to FOLDER/report with its plots, or with `--publish` to docs/soak.md and docs/soak. The exit
status is 1 if a check fails.
"""

import argparse
import csv
import json
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soak import load
from tests.soak.findings import (
    Check,
    Journal,
    Line,
    fit,
    lines,
    middle,
    scraped,
    unbalanced,
    window,
)
from tests.soak.plots import draw_all

ROOT = Path(__file__).parents[2]
FULL_SECONDS = 7200
TOLERANCE = 0.10
"""By how much memory and descriptors under the same load may differ from the second minute."""

TREND = 0.03
"""By how much a line through the second hour may rise, as a part of its beginning."""

LIVED = load.TALKERS + load.STREAMERS + load.CHARGEN_READERS
MEASURED = {"rss_kib": "`VmRSS` (KiB)", "pss_kib": "`Pss` (KiB)", "descriptors": "descriptors"}
NEAR_SECONDS = 25
"""A probe that was lost so soon after an action began is shown with it."""


class Soak:
    """All that one soak left, read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about: dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.samples = [*lines(folder / "samples.jsonl")]
        self.actions = [*lines(folder / "actions.jsonl")]
        self.scrapes = [*lines(folder / "scrapes.jsonl")]
        self.statuses = [*lines(folder / "statuses.jsonl")]
        self.load: Line = [*lines(folder / "load.jsonl")][-1]
        self.journal = Journal(lines(folder / "journal.jsonl"))
        self.probes = {
            path.stem.removeprefix("probe-"): [*csv.DictReader(path.read_text().splitlines())]
            for path in sorted(folder.glob("probe-*.csv"))
        }
        self.seconds: float = self.about["seconds"]
        self.counts: Counter[str] = Counter(self.load["counts"])

    @property
    def is_full(self) -> bool:
        """Whether it lasted for two hours."""
        return self.seconds >= FULL_SECONDS

    @property
    def under_load(self) -> list[Line]:
        """The samples while the load ran."""
        return [each for each in self.samples if each["when"] == "load"]

    @property
    def second_minute(self) -> list[Line]:
        """The samples that all others are compared with, before the first action."""
        first = min(each["s"] for each in self.deeds)
        return window(self.under_load, min(60, first / 2), max(120, first))[:7]

    @property
    def last_minutes(self) -> list[Line]:
        """The samples of the end, of the same load."""
        last = max(each["s"] for each in self.deeds)
        found = window(self.under_load, last + (self.seconds - last) / 3, self.seconds)
        return (
            found or window(self.under_load, 0, 2 * self.seconds)[-3:]
        )  # of a short run that took longer than it should

    @property
    def deeds(self) -> list[Line]:
        """The actions that do something to the daemon."""
        return [each for each in self.actions if each["action"] not in {"status", "fetch"}]

    @property
    def one_process(self) -> list[Line]:
        """The samples of the process that served longest, without its first sixth.

        By then each kind of client has come to it.
        """
        [(pid, _)] = Counter(each["pid"] for each in self.under_load if each["pid"]).most_common(1)
        own = [each for each in self.under_load if each["pid"] == pid]
        return own[len(own) // 6 :]


def checks(soak: Soak) -> Iterator[Check]:
    """Yield each promise with what was found."""
    yield from connection_checks(soak)
    yield from record_checks(soak)
    yield from client_checks(soak)
    yield from resource_checks(soak)
    yield from action_checks(soak)


def connection_checks(soak: Soak) -> Iterator[Check]:
    journal, sums = soak.journal, soak.journal.sums
    processes = journal.processes.values()
    whole = all(each.counted for each in processes)
    wrong = [each.pid for each in processes if not each.counted or each.missing]
    yield Check(
        "Counters: in each process accepted + restored = closed + handed over",
        f"{len(journal.processes)} processes, {sums['accepted']:,} accepted, {sums['closed']:,} "
        f"closed; wrong: {wrong or 'none'}",
        whole and not wrong and sums["accepted"] == sums["closed"],
    )
    pairs = Counter(map(tuple, journal.ids.values()))
    yield Check(
        "Journal: each connection has one record of its beginning and one of its end",
        f"{pairs.pop((1, 1), 0):,} have both; others: {dict(pairs) or 'none'}",
        not pairs and len(journal.ids) == sums["accepted"],
    )
    balances = [unbalanced(each["figures"]) for each in soak.scrapes if "figures" in each]
    off = [each for each in balances if each]
    yield Check(
        "Metrics: in each scrape accepted + restored = closed + live, for each listener",
        f"{len(balances)} scrapes; wrong: {off[:5] or 'none'}",
        bool(balances) and not off,
    )
    wrong_statuses = [
        each for each in map(status_off, (s["status"] for s in soak.statuses)) if each
    ]
    yield Check(
        "`netsrvd status`: the same in each answer",
        f"{len(soak.statuses)} answers; wrong: {wrong_statuses[:5] or 'none'}",
        bool(soak.statuses) and not wrong_statuses,
    )
    last = soak.about["figures"]
    process = journal.processes[soak.about["pid"]]
    at_end = {
        "metrics": scraped(last, "connections_accepted_total", "echo")
        + scraped(last, "connections_restored_total", "echo"),
        "status": status_sum(soak.about["status"], "echo"),
    }
    earlier = sum(
        each.counted["accepted"] for each in processes if each is not process and each.counted
    )
    others = scraped(last, "connections_accepted_total")
    yield Check(
        "At the end the counters, the metrics and the journal have the same sum",
        f"journal {sum(journal.accepted.values()):,}; counters {sums['accepted']:,}; metrics "
        f"{earlier + others:,} (last scrape, and the last records of earlier processes); echo in "
        f"the last process: {at_end}",
        sum(journal.accepted.values()) == sums["accepted"] == earlier + others
        and at_end["metrics"] == at_end["status"],
    )
    handed, restored = sums["handed_over"], sums["restored"]
    yield Check(
        "All connections that were handed over were restored",
        f"{handed:,} handed over, {restored:,} restored",
        handed == restored > 0,
    )


def status_sum(daemon: dict[str, Any], listener: str) -> int:
    """Return what `netsrvd status` says is accepted and restored by a listener."""
    rows = [each["counters"] for each in daemon["status"]["listeners"] if each["name"] == listener]
    return sum(row.get("accepted", 0) + row.get("restored", 0) for row in rows)


def status_off(status: dict[str, Any]) -> list[str]:
    """Return the listeners whose `accepted` + `restored` are not `closed` + live in a status."""
    found = []
    for daemon in status["daemons"]:
        for row in (daemon["status"] or {}).get("listeners", ()):
            if row["protocol"] == "tcp":
                had = row["counters"]["accepted"] + row["counters"]["restored"]
                has = sum(row["counters"]["closed"].values()) + row["gauges"]["connections"]
                found += [row["name"]] if had != has else []
    return found


def record_checks(soak: Soak) -> Iterator[Check]:
    journal = soak.journal
    names = "accepted", "closed", "refused", "datagrams_refused", "flows", "records_lost"
    differ = [
        (each.pid, name, each.counted[name], each.records[name])
        for each in journal.processes.values()
        for name in names
        if each.counted and each.counted[name] != each.records[name]
    ]
    sums = journal.sums
    yield Check(
        "The journal's records and the counters agree in each process",
        f"accepted, closed, refused ({sums['refused']:,} connections, "
        f"{sums['datagrams_refused']:,} datagrams), flows ({sums['flows']:,}), lost; "
        f"different (process, what, counter, records): {differ or 'none'}",
        not differ,
    )
    yield Check(
        "No record was lost",
        f"{sums['records_lost']} by the daemon; journald: {journal.suppressed or 'nothing'}",
        not sums["records_lost"] and not journal.suppressed,
    )
    yield Check(
        "No traceback is in the journal",
        f"{len(journal.tracebacks)} {journal.tracebacks[:3] or ''}".strip(),
        not journal.tracebacks,
    )


def client_checks(soak: Soak) -> Iterator[Check]:
    counts, journal = soak.counts, soak.journal
    ends = journal.ends
    known = [
        port for port, sent in soak.load.get("sent_bytes", {}).items() if (sent, sent) in ends[port]
    ]
    echoing = load.TALKERS + load.STREAMERS
    yield Check(
        "Each long-lived connection was kept to the end, with every byte in order",
        f"{counts['kept']} of {LIVED}; for {len(known)} of {echoing} the daemon counted the same "
        "bytes over all processes as the client",
        counts["kept"] == LIVED and len(known) == echoing,
    )
    faults = Counter(f"{each['who']}: {each['error'][:80]}" for each in soak.load["faults"])
    yield Check(
        "No client met anything that it should not",
        f"{counts['faults']}; {dict(faults) or 'none'}",
        counts["faults"] == 0 and soak.about["load"] == 0,
    )
    yield Check(*came_in(soak))
    sums = journal.sums
    sent = sum(number for key, number in counts.items() if key.startswith("sent "))
    probed = sum(len(soak.probes[name]) for name in ("udp", "stamp"))
    came = sums["datagrams_received"] + sums["datagrams_dropped"]
    yield Check(
        "Each datagram that was sent was received or counted as dropped",
        f"{sent + probed:,} sent (probes: {probed:,}), {sums['datagrams_received']:,} received, "
        f"{sums['datagrams_dropped']:,} counted as dropped; the kernel says that it dropped "
        f"{soak.samples[-1]['kernel_drops']:,}",
        sent + probed == came,
    )
    answers = "datagrams_sent", "datagrams_refused", "datagrams_unsent"
    yield Check(
        "Each probe was answered",
        "; ".join(f"{name}: {probe_text(soak, rows)}" for name, rows in soak.probes.items()),
        all(row["state"] == "received" for rows in soak.probes.values() for row in rows),
    )
    yield Check(
        "What was received was answered, refused or had no answer",
        ", ".join(f"{name.replace('_', ' ')} {sums[name]:,}" for name in answers),
        sum(sums[name] for name in answers) <= sums["datagrams_received"],
    )


def came_in(soak: Soak) -> tuple[str, str, bool]:
    """Compare the connections that clients made with those that the daemon served and refused."""
    counts, journal = soak.counts, soak.journal
    ports = {"echo": load.ECHO, "metrics": load.METRICS, "strict": load.STRICT, **load.SERVICES}
    made = {name: counts[f"connected {port}"] for name, port in ports.items()}
    made["extra"] = sum(counts[f"connected {port}"] for port in load.EXTRA)
    made["echo"] += sum(each.get("connections", 0) for each in soak.actions)
    made["echo"] += tcp_probe_connections(soak)
    made["metrics"] += 1  # the driver's own scrape at the end
    taken = journal.accepted + journal.refused
    differ = {
        name: f"{number} made, {taken[name]} taken"
        for name, number in made.items()
        if taken[name] != number
    }
    cut = sum(counts[f"cut {port}"] for port in load.EXTRA)
    return (
        "Each connection that a client made was served or refused",
        (
            f"{sum(made.values()):,} made, {sum(taken.values()):,} served or refused; different: "
            f"{differ or 'none'}; {cut} were in the queue of a listener that `apply` took away"
        ),
        not set(differ) - {"extra"} and made["extra"] - taken["extra"] in range(cut + 1),
    )


def tcp_probe_connections(soak: Soak) -> int:
    """Return how many connections the probes by TCP made, by their source ports."""
    return len({row["source_port"] for row in soak.probes["tcp"]})


def probe_text(soak: Soak, rows: list[dict[str, str]]) -> str:
    """Return how many were lost, and what happened at that time."""
    states = Counter(row["state"] for row in rows)
    near: Counter[str] = Counter()
    for row in rows:
        if row["state"] != "received":
            at = int(row["sent_at_ns"]) / 1e9
            deeds = [
                each["action"]
                for each in soak.deeds
                if each["began"] - NEAR_SECONDS <= at <= each["t"] + 2
            ]
            near[deeds[-1] if deeds else "nothing"] += 1
    longest = max((int(row["round_trip_ns"] or 0) for row in rows), default=0) / 1e9
    text = f"{states['received']:,} of {len(rows):,} (the slowest after {longest:.1f} s)"
    return text + (f", others: {dict(states)}, at the time of {dict(near)}" if near else "")


def resource_checks(soak: Soak) -> Iterator[Check]:
    begin, end = soak.second_minute, soak.last_minutes
    for name, shown in MEASURED.items():
        before, after = middle(begin, name), middle(end, name)
        yield Check(
            f"Under the same load: {shown} at the end as in the second minute, within "
            f"{TOLERANCE:.0%}",
            f"{before:,.0f} then, {after:,.0f} at the end ({after / before - 1:+.1%}); most at any "
            f"time: {max(each[name] for each in soak.under_load if each['pid']):,}",
            after <= before * (1 + TOLERANCE),
        )
    own = soak.one_process
    for name, shown in MEASURED.items():
        line = fit([(each["s"] / 3600, each[name]) for each in own])
        hours = (own[-1]["s"] - own[0]["s"]) / 3600
        yield Check(
            f"{shown} has no rising trend in the process that served longest "
            f"(line by least squares, at most {TREND:.0%})",
            f"{hours:.2f} h, {line.at_begin:,.1f} to {line.at_end:,.1f} "
            f"({line.at_end / line.at_begin - 1:+.2%})",
            line.at_end <= line.at_begin * (1 + TREND),
        )
    before, after = ([s for s in soak.samples if s["when"] == when] for when in ("before", "after"))
    counts = [(each[0]["descriptors"], each[0]["threads"]) for each in (before, after)]
    yield Check(
        "With all clients gone it has the descriptors and threads of before the first one",
        f"(descriptors, threads) {counts[0]} before, {counts[1]} after",
        counts[0][0] >= counts[1][0] and counts[0][1] >= counts[1][1],
    )


def action_checks(soak: Soak) -> Iterator[Check]:
    failed = [each for each in soak.actions if not each["ok"]]
    names = Counter(each["action"] for each in failed)
    yield Check("All actions ended as they should", f"failed: {dict(names) or 'none'}", not failed)
    restarts = soak.about["restarts_by_systemd"]
    yield Check(
        "Systemd never had to start a daemon again",
        f"NRestarts={restarts}, Result={soak.about['result']}",
        restarts == "0" and soak.about["result"] == "success",
    )


# The text.

ACTIONS = {
    "restart": "`systemctl restart netsrvd`",
    "apply": "`netsrvd apply`: one more listener comes, moves to another port, goes",
    "reload": "`systemctl reload netsrvd` with a changed setting",
    "faulty reload": "the same with a fault in the file, which must fail",
    "upgrade": "`apt-get install` of the same package with a higher version",
    "storm": "storm: 2,500 connections, opened and closed without a pause",
    "check": "`netsrvd check`",
    "status": "`netsrvd status --json`",
}

HOSTILE = {
    "half_open": "connections that say nothing, until `idle_timeout` ends them",
    "slow": "a byte every other second",
    "reset": "connections that are reset, also with answers unread, to four listeners each time",
    "never_reading": "4 MB sent and nothing read, until `write_timeout` ends it",
    "slow_chargen": "clients of `chargen` that read nothing",
    "half_close": "100 KB sent, the end of that side, and only then read",
    "flood_connections": "80 connections at once from one source, which may have 20",
    "fill": "120 connections from eight sources to a listener that may have 100",
    "flood_datagrams": "400 datagrams at once from one source, which may send 200",
    "odd_datagrams": "empty and longest datagrams, one from a refused port, five that are no STAMP",
    "denied": "from an address in `deny`",
    "garbage_http": "six kinds of wrong, slow and unread requests to the metrics",
    "garbage_control": "six kinds of wrong, unfinished and unread calls to the control socket",
}

MARK = {True: "yes", False: "**no**"}


def table(head: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Return a table of Markdown."""
    all_rows = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in all_rows) + "\n"


def actions_table(soak: Soak) -> str:
    rows: list[tuple[object, ...]] = []
    for name, text in ACTIONS.items():
        done = [each for each in soak.actions if each["action"] == name]
        failed = sum(not each["ok"] for each in done)
        rows.append((text, len(done), failed))
    return table(("action", "times", "not as expected"), rows)


def clients_table(soak: Soak) -> str:
    counts = soak.counts
    storms = sum(each.get("connections", 0) for each in soak.actions)
    udp = sum(number for key, number in counts.items() if key.startswith("answered "))
    rows: list[tuple[object, ...]] = [
        ("connections to `echo` and `chargen` for the whole run, each byte compared", LIVED),
        ("messages echoed on them, besides the streams", f"{counts['messages']:,}"),
        ("short visits to echo", f"{counts['visits']:,}"),
        ("connections of storms", f"{storms:,}"),
        ("crowds of 200 connections at once", counts["crowds"]),
        ("visits to the other services by TCP", f"{counts['services by TCP']:,}"),
        ("datagrams answered", f"{udp:,}"),
        ("scrapes, each 15 s", counts["scrapes"]),
        *(
            (f"probes by `netsrvd probe --{name}`, one a second", f"{len(rows):,}")
            for name, rows in soak.probes.items()
        ),
        *((f"hostile: {text}", counts[f"hostile {name}"]) for name, text in HOSTILE.items()),
    ]
    return table(("clients", "number"), rows)


def reasons_table(soak: Soak) -> str:
    shown = {
        "closed": "connections ended",
        "refused tcp": "connections refused",
        "refused udp": "datagrams refused",
    }
    rows: list[tuple[object, ...]] = [
        (text, ", ".join(f"{r} {n:,}" for r, n in soak.journal.reasons[name].most_common()))
        for name, text in shown.items()
    ]
    return table(("what", "by reason"), rows)


def loud_table(soak: Soak) -> str:
    rows: list[tuple[object, ...]] = [
        (f"`{text}`", number) for text, number in soak.journal.loud.most_common()
    ]
    return table(("warnings and errors of the daemon (numbers as N)", "times"), rows)


def wrapped(paragraph: str) -> str:
    """Return a paragraph in lines of 100 columns."""
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def summary(soak: Soak, found: list[Check]) -> str:
    """Return the result in a few lines."""
    sums, done = soak.journal.sums, Counter(each["action"] for each in soak.deeds)
    failed = [each for each in found if not each.holds]
    result = f"{len(found) - len(failed)} of {len(found)} promises hold"
    result += "; not: " + "; ".join(each.name for each in failed) if failed else ""
    return (
        f"**{result}.** {len(soak.journal.processes)} processes, one after the other, had "
        f"{sums['accepted']:,} connections and {sums['datagrams_received']:,} datagrams: "
        f"{done['restart']} restarts, {done['apply']} times `netsrvd apply`, an upgrade, "
        f"{done['reload']} reloads and {done['faulty reload']} faulty ones, {done['storm']} storms."
    )


def conditions(soak: Soak) -> str:
    about, own = soak.about, [each for each in soak.under_load if each["pid"]]
    used = sum(cpu_seconds(own).values())
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(about["began"]))
    versions = sorted({each.version for each in soak.journal.processes.values()})
    return (
        f"Begun {when}, {soak.seconds:,.0f} s; commit {about['commit']}, versions "
        f"{' and '.join(versions)}; Debian `{about['suite']}` booted in `systemd-nspawn`, "
        f"{about['systemd']}, {about['python']}, Linux {about['kernel']}, {about['cores']} cores "
        f"that other work shared. The load was light on purpose: the daemon used "
        f"{used / soak.seconds:.1%} of one core, its clients "
        f"{soak.load['cpu_seconds'] / soak.seconds:.1%}; nothing here is a measurement of speed. "
        f"The journal has {soak.journal.size:,} records of all programs."
    )


def cpu_seconds(samples: list[Line]) -> dict[int, float]:
    """Return what each process has used, by its last sample."""
    return {each["pid"]: each["cpu_seconds"] for each in samples}


def text(soak: Soak, found: list[Check], findings: str) -> str:
    """Return the report."""
    short = "" if soak.is_full else f"**This was a short run of {soak.seconds:g} s.**\n\n"
    rows: list[tuple[object, ...]] = [(each.name, MARK[each.holds], each.found) for each in found]
    return f"""# Two hours of load

You want to know whether netsrvd loses connections, records or memory when it runs for long and is
changed meanwhile.

{short}`make soak` runs the package on a booted Debian under a mixed load and hostile clients, while
it is restarted, reloaded, changed and upgraded. Then it compares what the clients, the counters,
the metrics and the journal say. It takes two hours (`SOAK_SECONDS=7200`) and is not part of the
tests that each change must pass. `python -m tests.soak.report` makes this page of the last run.

{wrapped(summary(soak, found))}

{wrapped(conditions(soak))}

{findings}## What was compared

{table(("promise", "holds", "found"), rows)}
## Memory

![Memory of the daemon's process](soak/memory.svg)

Vertical lines are new processes (restarts, `apply`, the upgrade). In the first half it is restarted
again and again; in the second half one process serves, so that a slow growth would show.

## Descriptors

![Descriptors of the daemon's process](soak/descriptors.svg)

The peaks are the crowds and storms.

## Connections

![Connections](soak/connections.svg)

## What was done

{actions_table(soak)}
{clients_table(soak)}
## How connections ended, and what was refused

{reasons_table(soak)}
{loud_table(soak)}"""


def main() -> None:
    """Make the report."""
    parser = argparse.ArgumentParser(prog="tests.soak.report")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--publish", action="store_true", help="write docs/soak.md")
    arguments = parser.parse_args()
    soak = Soak(arguments.folder)
    found = [*checks(soak)]
    into = ROOT / "docs" if arguments.publish else arguments.folder / "report"
    (into / "soak").mkdir(parents=True, exist_ok=True)
    notes = arguments.folder / "findings.md"
    written = text(soak, found, notes.read_text() if notes.exists() else "")
    (into / "soak.md").write_text(written)
    draw_all(soak.under_load, soak.scrapes, soak.about["began"], into / "soak")
    for each in found:
        print("ok  " if each.holds else "FAIL", each.name, "|", each.found)
    print(into / "soak.md")
    sys.exit(not all(each.holds for each in found))


if __name__ == "__main__":
    main()
