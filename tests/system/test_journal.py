"""The commands of docs/monitoring.md answer its questions, from the journal of a real load."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import gmtime, strftime
from typing import IO

import pytest

from netsrvd.events import all_events
from netsrvd.events.connections import Accepted, Closed
from netsrvd.events.flows import FlowEnded
from netsrvd.events.lifecycle import Ready, Reloaded, Stopped
from netsrvd.events.log import RecordsLost
from netsrvd.events.refusals import RefusedAgain
from tests.support.documents import ROOT
from tests.support.installed import (
    CONFIG,
    SERVICE,
    SUPPORT,
    configure,
    main_pid,
    stopped,
    talk,
    tidy_up,
    wait_records,
)
from tests.support.machine import Machine
from tests.support.patience import eventually

DOCUMENT = ROOT / "docs/monitoring.md"
QUESTION = re.compile(
    r"^### (?P<question>[^\n]+\?)\n\n(?:[^`#]+\n\n)?```\n(?P<command>[^`]+)^```$", re.MULTILINE
)
QUESTIONS = {
    found["question"]: found["command"] for found in QUESTION.finditer(DOCUMENT.read_text())
}

WINDOW = 'refusal_window = "30s"'
"""In which one record stands for all further refusals of a source; a restart ends it."""

CONFIGURATION = f"""\
drain_timeout = "100ms"
[listener.echo]
deny = ["127.0.0.66", "127.0.0.67", "127.0.0.68"]
{WINDOW}
flow_timeout = "30s"
"""
LOAD = """
tcp 127.0.0.11 1000 tcp 127.0.0.11 1000 tcp 127.0.0.11 1000
tcp 127.0.0.12 50000
within 127.0.0.14 127.0.0.15
reset 127.0.0.16
refused 127.0.0.66 4
refused 127.0.0.67 1
udp 127.0.0.21 5
udp 127.0.0.22 2
hold 127.0.0.13 hold 127.0.0.13
wait
leave
"""
CONNECTIONS = {11: 3, 12: 1, 13: 2, 14: 1, 15: 1, 16: 1}
"""The connections of each 127.0.0.x that are not refused."""

FILTER = "/usr/share/doc/netsrvd/examples/fail2ban/filter.d/netsrvd.conf"
SAMPLE = "# failJSON: "
JAILS = "[sshd]\nenabled = false\n[netsrvd]\nbanaction = dummy\n"
"""Only the jail of netsrvd, and nothing is done to the packet filter."""

QUEUE = 100
KERNEL_RECORDS = 513
"""What the kernel keeps for a journald that does not read, see test_faults.py."""


@pytest.fixture(scope="module")
def tools(installed: Machine, trees: dict[str, Path]) -> Machine:
    """Install jq and fail2ban, whose service does not start by itself."""
    folder = ROOT / "build/journal" / installed.suite
    fetch = Path(__file__).with_name("fetch")
    tree = trees[installed.suite]
    subprocess.run([fetch, installed.suite, tree, folder, "fail2ban", "jq"], check=True)
    archives = installed.copy_in(folder / "archives")
    no_services = "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d"
    installed.run("sh", "-ec", f"{no_services}; chmod +x /usr/sbin/policy-rc.d")
    installed.run("sh", "-ec", f"apt-get install --yes {archives}/*.deb")
    installed.copy_in(SUPPORT / "journal_load.py")
    return installed


def restart_and_forget(machine: Machine) -> None:
    """Start the service anew, and remove the records until then from the journal, its own too."""
    machine.run("systemctl", "restart", SERVICE)
    wait_records(machine, main_pid(machine), Ready)
    forget(machine)


def forget(machine: Machine) -> None:
    """Remove the records of before from the journal."""
    machine.run("journalctl", "--rotate")
    machine.run("journalctl", "--vacuum-time=1us")


@pytest.fixture(scope="module")
def loaded(tools: Machine) -> Iterator[Machine]:
    """Let clients come; restart and reload the service while two connections stay open."""
    tidy_up(tools)
    configure(tools, CONFIGURATION)
    restart_and_forget(tools)
    command = tools.command("python3", "/srv/journal_load.py", *LOAD.split())
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as load:
        assert pipe(load.stdout).readline() == "held\n"
        tools.run("systemctl", "restart", SERVICE)
        tools.run("sh", "-c", f"echo nonsense >{CONFIG}")
        assert tools.run("systemctl", "reload", SERVICE, check=False).returncode != 0
        configure(tools, CONFIGURATION)
        tools.run("systemctl", "reload", SERVICE)
        for kind, count in ((FlowEnded, 2), (RefusedAgain, 1), (Reloaded, 1)):
            eventually(lambda kind=kind, count=count: told(tools, kind) == count, kind.SUBJECT)
        yield tools
        pipe(load.stdin).write("\n")
    assert load.returncode == 0
    tidy_up(tools)


def pipe(stream: IO[str] | None) -> IO[str]:
    """Return a stream that is there."""
    assert stream
    return stream


def told(machine: Machine, kind: type) -> int:
    """Return the number of records of a kind."""
    return len(machine.journal("-u", SERVICE, f"MESSAGE_ID={kind.MESSAGE_ID}"))  # type: ignore[attr-defined]


def answer(machine: Machine, question: str) -> list[list[str]]:
    """Run the command of a question; return the words of each line that it prints."""
    machine.run("journalctl", "--sync")
    # The test may run at midnight.
    command = QUESTIONS[question].replace("--since today", "--since yesterday")
    done = machine.run("bash", "-o", "pipefail", "-ec", command)
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_there_are_twelve_questions() -> None:
    """The document has twelve questions, each with a command, and only message ids that exist."""
    section = DOCUMENT.read_text().partition("\n## Twelve questions")[2].partition("\n## ")[0]
    assert len(QUESTIONS) == section.count("\n### ") == 12
    known = {event.MESSAGE_ID for event in all_events()}
    assert {*re.findall(r"MESSAGE_ID=([0-9a-f]{32})", DOCUMENT.read_text())} <= known


def test_connections_of_a_day(loaded: Machine) -> None:
    """The number of connections is that of the clients that came and were not refused."""
    [[number]] = answer(loaded, "How many connections came today?")
    assert int(number) == sum(CONNECTIONS.values())


def test_connections_of_each_hour(loaded: Machine) -> None:
    """The hours have all connections."""
    lines = answer(loaded, "When did they come?")
    assert sum(int(number) for number, _ in lines) == sum(CONNECTIONS.values())
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d", hour) for _, hour in lines)


def test_clients_that_connected_most_often(loaded: Machine) -> None:
    """Each client with its number of connections, the highest first."""
    lines = answer(loaded, "Which clients connected most often?")
    assert {address: int(number) for number, address in lines} == {
        f"127.0.0.{end}": number for end, number in CONNECTIONS.items()
    }
    assert [address for _, address in lines[:2]] == ["127.0.0.11", "127.0.0.13"]


def test_refused_clients(loaded: Machine) -> None:
    """Each refused source with its number of refusals and the reason."""
    assert answer(loaded, "Which clients were refused, and why?") == [
        ["4", "127.0.0.66", "access"],
        ["1", "127.0.0.67", "access"],
    ]


def test_longest_connections(loaded: Machine) -> None:
    """The connection during which another one began and ended stands above that one."""
    lines = answer(loaded, "Which connections lasted longest?")
    assert [float(line[0]) for line in lines] == sorted(
        (float(line[0]) for line in lines), reverse=True
    )
    clients = [line[1] for line in lines]
    assert clients.index("127.0.0.14") < clients.index("127.0.0.15")
    assert {(line[2], line[3]) for line in lines} == {("echo", "client"), ("echo", "reset")}


def test_clients_with_the_most_bytes(loaded: Machine) -> None:
    """Bytes in both directions of connections and flows that ended, by client."""
    lines = answer(loaded, "Which clients moved the most bytes?")
    moved = {address: int(number) for number, address in lines}
    wanted = {11: 6000, 12: 100_000, 14: 2, 15: 2, 16: 2, 21: 80, 22: 32}
    assert moved == {f"127.0.0.{end}": number for end, number in wanted.items()}
    assert [address for _, address in lines[:2]] == ["127.0.0.12", "127.0.0.11"]


def test_clients_with_the_most_datagrams(loaded: Machine) -> None:
    """The datagrams of each client, the highest number first."""
    lines = answer(loaded, "Which clients sent the most datagrams?")
    assert lines == [["5", "127.0.0.21"], ["2", "127.0.0.22"]]


def test_reasons_of_ends(loaded: Machine) -> None:
    """How many connections ended for which reason."""
    assert answer(loaded, "Why did connections end?") == [["6", "client"], ["1", "reset"]]


def test_open_connections(loaded: Machine) -> None:
    """The two connections that are open, also after a restart."""
    lines = answer(loaded, "Which connections are open?")
    assert [line[0] for line in lines] == ["echo:", "echo:"]
    assert all(line[1].startswith("127.0.0.13:") for line in lines)


def test_most_open_connections(loaded: Machine) -> None:
    """Never more than two connections were open at once."""
    [[number, _, at]] = answer(loaded, "How many connections were open at once?")
    assert number == "2"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)


def test_starts_and_reloads(loaded: Machine) -> None:
    """The restart with both connections, the reload that failed and the one that did not."""
    lines = answer(loaded, "When was it started, stopped, restarted and reloaded?")
    texts = [" ".join(line[3:]) for line in lines]
    for number, wanted in enumerate(
        (
            *("2 connections handed over", "stopped after", "netsrvd ", "2 connections restored"),
            *("reload failed", "configuration reloaded"),
        )
    ):
        assert texts[number].startswith(wanted), texts
    assert len(texts) == 6


def test_no_record_was_lost(loaded: Machine) -> None:
    """Where the log kept up the number is 0."""
    assert answer(loaded, "Were records lost?") == [["0"]]


def regex(machine: Machine, *arguments: str) -> list[str]:
    """Return what fail2ban-regex prints of each match with the filter of the package."""
    machine.run("cp", FILTER, "/etc/fail2ban/filter.d/")
    done = machine.run("fail2ban-regex", *arguments, "netsrvd")
    return done.stdout.splitlines()


def samples() -> Iterator[tuple[dict[str, str], str]]:
    """Yield the samples, each with what fail2ban is to find in it."""
    lines = (ROOT / "tests/data/fail2ban/netsrvd").read_text().splitlines()
    wanted: dict[str, str] = {}
    for line in lines:
        if line.startswith(SAMPLE):
            wanted = json.loads(line.removeprefix(SAMPLE))
        elif line and not line.startswith("#"):
            yield wanted, line


def test_samples_of_the_filter(tools: Machine) -> None:
    """The filter finds address and time in each sample of a refusal, and nothing in the others."""
    for wanted, line in samples():
        found = [
            ast.literal_eval(row.rstrip(",")) for row in regex(tools, "--out", "row", line) if row
        ]
        if wanted["match"]:
            [(host, at, *_)] = found
            assert host == wanted["host"], line
            assert strftime("%m-%dT%H:%M:%S", gmtime(at)) == wanted["time"][5:], line
        else:
            assert found == [], line


def test_filter_finds_refused_clients_in_the_journal(loaded: Machine) -> None:
    """The filter finds the records of refusals, none of which another program has written."""
    forged = "echo: tcp 192.0.2.99:40000 refused: access: no entry of allow contains it"
    loaded.run("logger", "--tag", "netsrvd", forged)
    loaded.run("journalctl", "--sync")
    found = regex(loaded, "--out", "ip", "systemd-journal")
    assert sorted(filter(None, found)) == ["127.0.0.66", "127.0.0.66", "127.0.0.67"]


def test_jail_bans_a_client_that_goes_on(loaded: Machine) -> None:
    """The commands of the document set up a jail, which bans a client after three records."""
    configure(loaded, CONFIGURATION.replace(WINDOW, 'refusal_window = "1s"'))
    loaded.run("systemctl", "reload", SERVICE)
    loaded.run("sh", "-c", "cat >/etc/fail2ban/jail.local", input=JAILS)
    loaded.run("systemctl", "start", "fail2ban.service")

    def answers() -> bool:
        return "pong" in loaded.run("fail2ban-client", "ping", check=False).stdout

    eventually(answers, "fail2ban takes commands, which systemd does not wait for")
    [block] = re.findall(r"(?m)^```\n(cp [^`]+)^```$", DOCUMENT.read_text())
    loaded.run("bash", "-ec", block)

    def banned() -> bool:
        loaded.run("python3", "/srv/journal_load.py", "refused", "127.0.0.68", "1")
        return "127.0.0.68" in loaded.run("fail2ban-client", "banned").stdout

    eventually(banned, "it is banned")
    records = loaded.journal("-u", SERVICE, "NETSRVD_SOURCE=127.0.0.68")
    assert len(records) >= 3
    assert "127.0.0.67" not in loaded.run("fail2ban-client", "banned").stdout
    loaded.run("systemctl", "stop", "fail2ban.service")


def test_filter_finds_refusals_of_an_instance(tools: Machine) -> None:
    """The records of an instance count as well."""
    tidy_up(tools)
    forget(tools)
    configure(tools, CONFIGURATION)
    tools.run("systemctl", "stop", "netsrvd.socket", SERVICE)
    tools.run("systemctl", "start", "netsrvd@1.socket")
    tools.run("python3", "/srv/journal_load.py", "refused", "127.0.0.66", "1")
    tools.run("systemctl", "stop", "netsrvd@1.socket", "netsrvd@1.service")
    tools.run("journalctl", "--sync")
    assert "127.0.0.66" in regex(tools, "--out", "ip", "systemd-journal")
    tidy_up(tools)


def test_lost_records(tools: Machine) -> None:
    """The number is that of the records which a journald that stood still did not take."""
    tidy_up(tools)
    configure(tools, f"[log]\nqueue = {QUEUE}\n")
    restart_and_forget(tools)
    visits = (QUEUE + KERNEL_RECORDS) // 2 + 100
    with stopped(tools, "systemd-journald.service"):
        steps = "tcp 127.0.0.31 1 " * visits
        tools.run("python3", "/srv/journal_load.py", *steps.split())
    talk(tools, "tcp", "once more")
    eventually(lambda: told(tools, RecordsLost), "records are lost")
    tools.run("systemctl", "stop", SERVICE)
    [[number]] = answer(tools, "Were records lost?")
    [last] = tools.journal("-u", SERVICE, f"MESSAGE_ID={Stopped.MESSAGE_ID}")
    assert number == last["NETSRVD_RECORDS_LOST"]
    kept = told(tools, Accepted) + told(tools, Closed)
    assert kept + int(number) == 2 * (visits + 1)
    tidy_up(tools)
