"""`netsrvd probe` against real reflectors, and against some that misbehave."""

import csv
import io
import os
import pty
import re
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from netsrvd.packets import stamp, udpechoplus
from tests.functional.conftest import Start
from tests.support.namespaces import link, namespace
from tests.support.probes import figures, only_target, probe, reflector, report, trips
from tests.support.run import COMMAND, ENVIRONMENT, LOOPBACK, PATIENCE, command, free_port
from tests.support.tmux import screen

PATIENT = ("-W", "60s")
"""For probes that all have answers: however slow the machine is, none is lost."""

SOON = ("-W", "2s")
"""For probes of which some have none."""

QUICK = ("-i", "10ms", "-n", 5, *PATIENT)
"""Few probes, one after the other."""


def echo(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
    """Send a datagram back."""
    yield received[0]


def silent(_received: object) -> Iterator[bytes]:
    """Answer nothing."""
    yield from ()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_echo_by_udp(start: Start, host: str) -> None:
    """Each probe has a line with its time, and the summary says that all came, by which stamps."""
    run = start()
    ended = probe(f"{host}:{run.port}", *QUICK)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    where = re.escape(f"{host}:{run.port}")
    assert lines[0] == f"probing {host}:{run.port}: udp, 64 bytes, every 0.01 s"
    for number, line in enumerate(lines[1:6]):
        assert re.fullmatch(rf"{where}: seq {number}: \d+\.\d{{3}} ms, TTL 64", line)
    assert "5 sent, 5 received, 0 lost (0 %)" in lines
    assert "stamps: kernel" in lines
    assert "TTL of answers: 64" in lines


def test_json_adds_up(start: Start) -> None:
    """The object has its version, the settings, and each round trip; the figures are of those."""
    run = start()
    found = report(f"127.0.0.1:{run.port}", "-i", "5ms", "-n", 20, "-s", 100, *PATIENT)
    assert (found["format"], found["version"], found["interrupted"]) == ("netsrvd-probe", 1, False)
    assert found["configuration"]["size_bytes"] == 100
    every = trips(found)
    times = sorted(trip["round_trip_ns"] for trip in every)
    assert [trip["sequence"] for trip in every] == [*range(20)]
    assert {(trip["state"], trip["stamps"], trip["length"]) for trip in every} == {
        ("received", "kernel", 100)
    }
    of_all = only_target(found)["statistics"]
    assert (of_all["sent"], of_all["received"], of_all["lost"]) == (20, 20, 0)
    assert (of_all["round_trip"]["least"], of_all["round_trip"]["most"]) == (times[0], times[-1])
    assert times[0] > 0


def test_csv_has_a_line_a_probe(start: Start) -> None:
    """Each probe is a line of values below the heading."""
    run = start()
    ended = probe("--csv", f"127.0.0.1:{run.port}", *QUICK)
    rows = [*csv.DictReader(io.StringIO(ended.stdout))]
    assert [row["sequence"] for row in rows] == [*"01234"]
    assert all(int(row["round_trip_ns"]) > 0 and row["state"] == "received" for row in rows)


def test_csv_counts_duplicates_and_marks_short_and_wrong_answers() -> None:
    """A line says how often a probe was answered once more, and whether bytes are missing or are
    other ones.
    """

    def reply(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        payload = received[0]
        number = int.from_bytes(payload[8:12], "big")
        yield from {0: [payload] * 3, 1: [payload[:20]], 2: [payload[:-1] + b"?"]}[number]

    with reflector(reply) as far:
        ended = probe("--csv", far.address, "-n", 3, "-i", "300ms", *PATIENT)
    rows = [*csv.DictReader(io.StringIO(ended.stdout))]
    found = [(row["duplicates"], row["truncated"], row["damaged"]) for row in rows]
    assert found == [("2", "0", "0"), ("0", "1", "0"), ("0", "0", "1")]


def test_lines_about_unasked_datagrams_have_a_limit() -> None:
    """A host that floods the prober gets few lines; the summary counts all datagrams."""

    def reply(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        yield from [b"unasked"] * 100
        yield received[0]

    with reflector(reply) as far:
        ended = probe(far.address, "-n", 1, *PATIENT)
    lines = [line for line in ended.stdout.splitlines() if "answers no probe" in line]
    assert len(lines) <= 20
    left = sum(map(int, re.findall(r"(?m)^and (\d+) answers more", ended.stdout)))
    [said] = re.findall(r"(\d+) unsolicited", ended.stdout)
    assert len(lines) + left == int(said) > 20


def test_the_programs_own_stamps(start: Start) -> None:
    """Without the kernel's stamps the times are the program's, and the summary says so."""
    run = start()
    ended = probe("-q", "--program-stamps", f"127.0.0.1:{run.port}", *QUICK)
    assert "5 received" in ended.stdout
    assert "stamps: program; times include its own delays" in ended.stdout


SLOW = """
from time import sleep
from netsrvd.probe.udp import UDPProber
def late(self, *events, on_ready=UDPProber.on_ready):
    sleep(0.1)
    return on_ready(self, *events)
UDPProber.on_ready = late
"""
"""What has the prober look at answers late, as it would with many targets or a slow terminal."""


def test_a_busy_prober_measures_the_same(start: Start) -> None:
    """If the prober comes to an answer after 100 ms, its time is still that of the network."""
    run = start()
    where = f"127.0.0.1:{run.port}"
    found = figures(where, "-i", "20ms", "-n", 9, *PATIENT, planted=SLOW)
    assert found["stamps"]["kernel"] == 9
    assert found["round_trip"]["median"] < 100e6
    own = figures(where, *("-i", "20ms", "-n", 9, "--program-stamps"), *PATIENT, planted=SLOW)
    assert own["round_trip"]["median"] > 100e6


def test_echo_by_tcp(start: Start) -> None:
    """One connection carries the probes; its time is told, and that the end came after all."""
    run = start()
    found = report("--tcp", f"localhost:{run.port}", "-4", *QUICK, "-s", 5000)
    of_all = only_target(found)["statistics"]
    assert (of_all["received"], of_all["connect"]["samples"]) == (5, 1)
    assert of_all["half_closes"] == {"complete": 1}
    assert of_all["stamps"]["kernel"] == 5
    run.wait_line(" closed: client")
    assert len(run.lines_with(" connected to ")) == 1


def test_connections_alone(start: Start) -> None:
    """With a size of 0 each probe is a connection."""
    run = start()
    found = figures("--tcp", "-s", 0, f"127.0.0.1:{run.port}", *QUICK)
    assert (found["received"], found["connect"]["samples"]) == (5, 5)
    run.wait_line(" connected to ", 5)


def test_half_close_that_fails() -> None:
    """A host that closes without sending the rest back is found out."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(
            [COMMAND, "probe", "--tcp", f"127.0.0.1:{server.getsockname()[1]}", "-n", "1"],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        peer = server.accept()[0]
        with peer:
            data = peer.recv(64, socket.MSG_WAITALL)
            peer.sendall(data[:40])
            assert peer.recv(64) == b""
        output, _ = process.communicate(timeout=PATIENCE)
    assert "seq 0: lost" in output
    assert "half-close: 24 bytes are missing" in output
    assert process.returncode == 2


def test_a_host_that_answers_nothing() -> None:
    """Probes are not sent without a limit to a host that takes no bytes: memory would grow."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        found = figures("--tcp", where, "-s", 65507, "-n", 600, "-i", "1ms", *SOON, status=2)
    assert (found["sent"], found["lost"]) == (600, 600)
    assert found["errors"] == {"not sent, as 512 probes have no answer": 88}
    assert list(found["half_closes"]) != ["complete"]


def test_other_bytes_by_tcp() -> None:
    """A host that sends other bytes back is found out."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        subprocess.Popen(
            [
                COMMAND,
                "probe",
                "--tcp",
                f"127.0.0.1:{server.getsockname()[1]}",
                "-n",
                "1",
                *PATIENT,
            ],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
        server.accept()[0] as peer,
    ):
        peer.sendall(peer.recv(64, socket.MSG_WAITALL)[::-1])
        output, _ = process.communicate(timeout=PATIENCE)
    assert "seq 0: failed: other bytes came back than were sent" in output
    assert "1 damaged" in output


def clocks(port: int) -> dict[str, object]:
    """Return a configuration of time and daytime."""
    return {
        "listener": {
            "time": {"service": "time", "host": LOOPBACK, "port": port},
            "daytime": {"service": "daytime", "host": LOOPBACK, "port": free_port(port + 1)},
            "echo": {"enabled": False},
        }
    }


@pytest.mark.parametrize("protocol", ["time", "daytime"])
def test_clocks(start: Start, port: int, protocol: str) -> None:
    """The bounds of the clock's offset enclose 0 for the own host, and are no wider than 1.1 s."""
    configuration = clocks(port)
    start(configuration)
    where = configuration["listener"][protocol]["port"]  # type: ignore[index]
    found = figures(f"--{protocol}", f"127.0.0.1:{where}", "-i", "130ms", "-n", 9, *PATIENT)
    assert found["received"] == 9
    offset = found["clock_offset"]
    assert offset["agree"]
    assert offset["least_ns"] < 0 < offset["most_ns"]
    assert offset["most_ns"] - offset["least_ns"] < 1e9 + found["round_trip"]["most"]


def test_a_clock_that_is_wrong() -> None:
    """A clock that is off by months or more is found out."""

    def ahead(_received: object) -> Iterator[bytes]:
        yield (0xF0000000).to_bytes(4, "big")  # of 2027 or 2163

    with reflector(ahead) as far:
        ended = probe("--time", far.address, "-n", 2, "-i", "10ms", *PATIENT)
    assert "clock: the target's is " in ended.stdout
    assert "so it may be right" not in ended.stdout


def test_duplicates() -> None:
    """Answers that come more than once are counted, and change nothing else."""

    def twice(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        yield from (received[0],) * 3

    with reflector(twice) as far:
        ended = probe(far.address, *QUICK)
    # further answers to the last probe may come after the end
    assert re.search(r"5 sent, 5 received, 0 lost \(0 %\), ([89]|10) duplicates", ended.stdout)
    assert "seq 0 was answered once more" in ended.stdout


def test_reordering_and_loss() -> None:
    """Answers in another order are reordered by RFC 4737, and what has no answer is lost."""
    kept: list[bytes] = []

    def shuffle(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        kept.append(received[0])
        if len(kept) == 5:
            yield from (kept[index] for index in (1, 4, 2, 0))

    with reflector(shuffle) as far:
        found = figures(far.address, *QUICK, *SOON)
        assert found["lost"] == 1
        assert found["reordering"] == {"reordered": 2, "ratio": 0.5, "extent": 3}


def test_late_answers() -> None:
    """An answer after the time-out is late: the probe stays lost."""
    kept: list[bytes] = []

    def later(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        kept.append(received[0])
        if len(kept) == 2:
            yield from kept

    with reflector(later) as far:
        ended = probe(far.address, "-n", 2, "-i", "1500ms", "-W", "1s")
    assert "seq 0: lost: no answer in 1 s" in ended.stdout
    assert "seq 0 was answered too late" in ended.stdout
    assert "1 received, 1 lost (50 %), 1 late" in ended.stdout


def test_truncated_and_damaged() -> None:
    """A shorter answer, and one with other bytes, are said to be so; strangers answer nothing."""

    def spoil(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        payload = received[0]
        number = payload[11]
        if number == 0:
            yield payload[:30]
        elif number == 1:
            yield payload[:-1] + b"?"
        else:
            yield b"nothing of the kind"

    with reflector(spoil) as far:
        ended = probe(far.address, "-n", 3, "-i", "10ms", *SOON)
    assert "seq 0: " in ended.stdout
    assert "truncated to 30 bytes" in ended.stdout
    assert "other bytes than were sent" in ended.stdout
    assert "1 unsolicited, 1 truncated, 1 damaged" in ended.stdout


def test_an_answer_from_another_address() -> None:
    """An answer that does not come from the address that was asked is taken, and told."""
    with (
        reflector(echo) as far,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        other.bind(("127.0.0.2", 0))
        far.sender = other
        ended = probe(far.address, *QUICK)
    where = f"127.0.0.2:{other_port(ended.stdout)}"
    assert f"answered by {where}" in ended.stdout
    assert f"answers from other addresses: {where}" in ended.stdout


def other_port(text: str) -> str:
    """Return the port of the first answer from another address."""
    found = re.search(r"answered by 127\.0\.0\.2:(\d+)", text)
    assert found, text
    return found[1]


def test_nothing_listens(port: int) -> None:
    """A port without a listener is told at once, and the status says that nothing answered."""
    for protocol, reason in (
        ("--udp", "port unreachable, says 127.0.0.1"),
        ("--tcp", "connection refused"),
        ("--time", "port unreachable, says 127.0.0.1"),
    ):
        ended = probe(protocol, f"127.0.0.1:{port}", "-n", 2, "-i", "10ms", "-W", "60s")
        assert ended.returncode == 2
        assert f"seq 1: failed: {reason}" in ended.stdout
        assert f"failed: {reason}: 2" in ended.stdout


WAITS = """
from netsrvd.probe import engine
from netsrvd.probe.trips import State
def turn(self, until, turn=engine.Engine._turn):
    pending = [trip for _, _, trip in self._pending if trip.state is State.PENDING]
    if not (pending or self._schedule or self._finishing):
        print("it waits for nothing", file=sys.stderr)
    return turn(self, until)
engine.Engine._turn = turn
"""
"""What tells if the prober waits although everything is known."""


def test_the_end_is_not_waited_for(port: int) -> None:
    """When all is known of the last probe the run ends: nothing is waited for."""
    ended = probe(f"127.0.0.1:{port}", "-n", 1, *PATIENT, planted=WAITS)
    assert "seq 0: failed: port unreachable" in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("protocol", ["--udp", "--stamp"])
def test_longer_than_the_mtu(protocol: str, host: str, port: int) -> None:
    """A probe that this host cannot send is one failure, with the reason."""
    with namespace() as here, here.entered():
        here.ip("link set lo mtu 1500")
        ended = probe(protocol, f"{host}:{port}", *QUICK, "-s", 2000, "--dont-fragment")
    assert ended.stdout.count("failed: 2000 bytes are too long for the MTU of the interface") == 6
    assert "5 sent, 0 received, 5 lost (100 %), 5 failed\n" in ended.stdout


def test_silence() -> None:
    """A host that does not answer loses each probe."""
    with reflector(silent) as far:
        ended = probe("-q", far.address, "-n", 3, "-i", "10ms", "-W", "50ms")
    assert ended.returncode == 2
    assert "3 sent, 0 received, 3 lost (100 %)" in ended.stdout


def test_several_targets(start: Start) -> None:
    """Each target has its summary, and the status says that some answer and some do not."""
    run = start()
    good, bad = f"127.0.0.1:{run.port}", f"127.0.0.1:{free_port(run.port + 1)}"
    ended = probe("-q", good, bad, f"[::1]:{run.port}", *QUICK)
    assert ended.returncode == 1
    assert ended.stdout.count("--- ") == 3
    assert ended.stdout.count("5 sent, 5 received") == 2
    assert "5 sent, 0 received, 5 lost (100 %), 5 failed" in ended.stdout


def test_all_addresses(start: Start) -> None:
    """With --all each address of a name is a target, otherwise the first one."""
    run = start()
    hosts = "127.0.0.1 both.example\\n::1 both.example"
    script = 'printf "$1" >"$0" && mount --bind "$0" /etc/hosts && shift && exec "$@"'
    file = run.config.parent / "hosts"
    under = ["unshare", "--mount", "sh", "-c", script, file, hosts]
    where = f"both.example:{run.port}"
    every = report("--all", where, *QUICK, under=under)
    assert {target["address"] for target in every["targets"]} == {"127.0.0.1", "::1"}
    assert only_target(report("-6", where, *QUICK, under=under))["address"] == "::1"
    assert len(report(where, *QUICK, under=under)["targets"]) == 1


def test_a_sweep_of_source_ports() -> None:
    """A sweep probes from that many ports, from the one that is given on, with a line for each."""
    first = free_port()
    with reflector(echo) as far:
        ended = probe("-q", "--sweep", 8, far.address, "-n", 2, "-i", "40ms", *PATIENT)
        ports = {source[1] for _, source, _, _ in far.received}
        assert len(ports) == 8
        for each in ports:
            assert re.search(rf"^ *{each} +2 +0 % ", ended.stdout, re.MULTILINE)
        far.received.clear()
        probe("-q", "--sweep", 3, "--source-port", first, far.address, "-n", 1, "-i", "20ms")
        assert [source[1] for _, source, _, _ in far.received] == [first, first + 1, first + 2]


def test_the_bad_path_stands_out() -> None:
    """Of sixteen source ports the one whose datagrams are lost is marked, and no other."""
    ports: list[int] = []

    def one_bad(received: tuple[bytes, tuple[str, int], int, int]) -> Iterator[bytes]:
        payload, (_, port), _, _ = received
        ports.append(port)
        if port != ports[0] or payload[11] % 2:
            yield payload

    with reflector(one_bad) as far:
        ended = probe("-q", "--sweep", 16, far.address, "-n", 10, "-i", "40ms", *SOON)
    [marked] = [line for line in ended.stdout.splitlines() if "<-" in line and "loses" in line]
    assert marked.split()[0] == str(ports[0])
    assert " 50 % " in marked


def test_ttl_and_dscp() -> None:
    """TTL and DSCP that were asked for arrive; those of the answer are told."""
    with reflector(echo) as far:
        far.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
        far.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 34 << 2)
        found = figures(far.address, *QUICK, "--ttl", 77, "--dscp", "EF")
        assert {(ttl, tos >> 2) for _, _, ttl, tos in far.received} == {(77, 46)}
    assert found["ttls"] == {"33": 5}
    assert found["dscps"] == {"34": 5}


def test_source_and_interface() -> None:
    """Probes have the source address that was asked for, and use the interface."""
    with reflector(echo) as far:
        assert figures(far.address, *QUICK, "--source", "127.0.0.3", "--interface", "lo")
        assert {source[0] for _, source, _, _ in far.received} == {"127.0.0.3"}


def test_routers_on_the_way() -> None:
    """A router that drops a probe is named: its TTL is used up, or it is too long for a link."""
    with namespace() as near, namespace() as router, namespace() as far:
        link(near, "near0", router, "router0")
        link(router, "router1", far, "far0")
        near.ip("addr add 10.9.1.1/24 dev near0", "route add default via 10.9.1.2")
        router.ip(
            "addr add 10.9.1.2/24 dev router0",
            "addr add 10.9.2.1/24 dev router1",
            "link set router1 mtu 1300",
        )
        router.sysctl("net/ipv4/ip_forward", 1)
        far.ip(
            "link set far0 mtu 1300",
            "addr add 10.9.2.2/24 dev far0",
            "route add default via 10.9.2.1",
        )
        with far.entered(), reflector(echo, "10.9.2.2") as peer, near.entered():
            assert figures(peer.address, *QUICK)["received"] == 5
            expired = probe(peer.address, "--ttl", 1, "-n", 1, *PATIENT)
            large = probe(peer.address, "-s", 1400, "--dont-fragment", "-n", 1, *PATIENT)
            allowed = figures(peer.address, "-s", 1400, *QUICK)
    assert "seq 0: failed: TTL exceeded, says 10.9.1.2" in expired.stdout
    text = "seq 0: failed: too big to pass unfragmented, MTU 1300, says 10.9.1.2"
    assert text in large.stdout
    assert allowed["received"] == 5


def test_a_limit_of_the_reflector(start: Start, port: int) -> None:
    """A sweep that is faster than the reflector answers a source is recognised, with the rate."""
    # At so low a rate a reflector that stands still for 0.2 s gives no more than a token away.
    limits = {"datagram_rate": 5, "datagram_burst": 5, "unlimited": []}
    listener = {"host": LOOPBACK, "port": port, **limits}
    run = start({"listener": {"echo": listener}}, ready=True)
    run.allow("udp", "refused", "rate")
    ended = probe("-q", f"127.0.0.1:{port}", "-i", "10ms", "-n", 1000, *SOON)
    assert re.search(
        r"seems to limit the rate: after \d+ answers .* about [456](\.\d+)? a second",
        ended.stdout,
    ), ended.stdout


def test_poisson_intervals() -> None:
    """With --poisson the intervals differ as those of a Poisson process do; else they are equal."""

    def spread(*arguments: str) -> float:
        with reflector(echo) as far:
            found = report(far.address, "-i", "20ms", "-n", 100, *arguments)
        times = [trip["sent_at_ns"] for trip in trips(found)]
        gaps = sorted(after - before for before, after in pairwise(times))
        return (gaps[75] - gaps[25]) / 20e6

    # Quartiles of an exponential distribution are ln 3 = 1.1 means apart.
    assert spread("--poisson") > 0.5
    assert spread() < 0.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_has_its_summary(start: Start, number: signal.Signals) -> None:
    """Ctrl-C or SIGTERM ends a run without end, with the summary and the usual status."""
    run = start()
    with subprocess.Popen(
        [COMMAND, "probe", f"127.0.0.1:{run.port}", "-n", "0", "-i", "10ms", "-W", "60s"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        seen = [process.stdout.readline() for _ in range(4)]
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE)
    assert "seq 2" in seen[3]
    assert " 0 lost (0 %)" in output
    assert process.returncode == 0


def test_an_ignored_signal_stays_ignored(start: Start) -> None:
    """Ctrl-C does not end what a shell without job control has put into the background."""
    run = start()
    shell = 'trap "" INT; exec "$0" "$@"'
    with subprocess.Popen(
        ["sh", "-c", shell, COMMAND, "probe", f"127.0.0.1:{run.port}", "-n", "0", "-i", "1ms"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert all(" seq " in process.stdout.readline() for _ in range(5000))
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
    assert " sent, " in output
    assert process.returncode == 0


def test_duration(start: Start) -> None:
    """With a duration alone probes are sent as long as that."""
    run = start()
    found = report("--duration", "100ms", "-i", "10ms", f"127.0.0.1:{run.port}")
    sent = [trip["sent_at_ns"] for trip in trips(found)]
    assert 1 < len(sent) <= 10


FPING = ("-C", 3, "-q", "-B1", "-r1", "-4", "-p50", "-i10", "-t60000", "-b56")


def test_fping(start: Start) -> None:
    """As fping it prints a line of times for each target on standard error, `-` for a loss."""
    run = start()
    good, bad = f"localhost:{run.port}", f"127.0.0.1:{free_port(run.port + 1)}"
    ended = probe("--fping", *FPING, good, bad)
    assert (ended.returncode, ended.stdout) == (1, "")
    first, second = ended.stderr.splitlines()
    assert re.fullmatch(rf"{good} +: [0-9.]+ [0-9.]+ [0-9.]+", first)
    assert re.fullmatch(rf"{bad} +: - - -", second)


def test_fping_as_smokeping_looks_at_it(start: Start) -> None:
    """What SmokePing runs first tells it the unit, and which options there are."""
    run = start()
    both = probe(
        "--fping", "-C", 1, f"localhost:{run.port}", under=("sh", "-c", 'exec "$0" "$@" 2>&1')
    )
    found = re.search(r"bytes, ([0-9.]+)\sms\s+.*\n.*\n.*:\s+([0-9.]+)", both.stdout)
    assert found, both.stdout
    assert found[1] == found[2]
    options = probe("--fping", "-h").stdout
    assert re.search(r"\s-S[,\s]", options)
    assert re.search(r"\s-O[,\s]", options)
    assert probe("--fping", "-Z", "host").returncode == 3


def test_fping_without_an_address(start: Start) -> None:
    """A name without an address is told, and the other hosts are probed all the same."""
    run = start()
    ended = probe("--fping", *FPING, "name.invalid", f"127.0.0.1:{run.port}")
    assert ended.returncode == 2
    first, second = ended.stderr.splitlines()
    assert first.startswith("name.invalid: ")
    assert re.fullmatch(rf"127.0.0.1:{run.port} : [0-9.]+ [0-9.]+ [0-9.]+", second)
    ended = probe("--fping", *FPING, "name.invalid")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("name.invalid: ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--fping", "required: HOST"),
        ("--fping -t 0 ::1", "argument -t: expected milliseconds such as 500, not '0'"),
        ("--fping -p nan ::1", "argument -p: expected milliseconds such as 500, not 'nan'"),
        ("--fping -p 0.001 ::1", "--interval: expected 10us at least"),
        ("--fping -b 65508 ::1", "argument -b: expected a number from 0 to 65507"),
        ("--fping -C 0 ::1", "argument -C: expected a number from 1 to"),
        ("--fping -H 256 ::1", "argument -H: expected a number from 1 to 255"),
        ("--fping -O 256 ::1", "argument -O: expected a number from 0 to 0xff, not '256'"),
        ("--fping -O x ::1", "argument -O: expected a number from 0 to 0xff, not 'x'"),
        ("--plot x.png --fping ::1", "--plot, --warn and --crit have no meaning with --fping"),
    ],
)
def test_wrong_arguments_of_fping(arguments: str, text: str) -> None:
    """A wrong argument has one line that names it, and the status of fping."""
    ended = probe(*arguments.split())
    assert (ended.returncode, ended.stdout) == (3, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("netsrvd probe --fping: ")
    assert text in line


class Verdict(NamedTuple):
    """Arguments of a plugin of Nagios, and what comes of them."""

    arguments: tuple[str, ...]
    status: int
    name: str


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict((), 0, "OK"),
        Verdict(("--warn", "10000,50%", "--crit", "20000,80%"), 0, "OK"),
        Verdict(("--warn", "0,50%", "--crit", "20000,80%"), 1, "WARNING"),
        Verdict(("--warn", "0,0%", "--crit", "0,80%"), 2, "CRITICAL"),
    ],
)
def test_nagios(start: Start, verdict: Verdict) -> None:
    """Thresholds decide on the status, and the line has performance data."""
    run = start()
    ended = probe("--nagios", f"127.0.0.1:{run.port}", *QUICK, *verdict.arguments)
    assert ended.returncode == verdict.status
    [line] = ended.stdout.splitlines()
    assert line.startswith(f"PROBE {verdict.name} - 127.0.0.1:{run.port}: median ")
    assert re.search(
        r" \| 'rtt'=[0-9.]+ms;[0-9]*;[0-9]*;0 'rtt_p99'=[0-9.]+ms;;;0 'loss'=0%;", line
    )


def test_nagios_without_an_answer(port: int) -> None:
    """No answer is critical, and what cannot be probed is unknown."""
    ended = probe("--nagios", f"127.0.0.1:{port}", *QUICK)
    assert ended.returncode == 2
    assert ended.stdout == f"PROBE CRITICAL - 127.0.0.1:{port}: loss 100% | 'loss'=100%;;;0;100\n"
    ended = probe("--nagios", "name.invalid")
    assert ended.returncode == 3
    assert ended.stdout.startswith("PROBE UNKNOWN - name.invalid: ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("--nagios --warn= ::1", "PROBE UNKNOWN - --warn : expected MILLISECONDS,PERCENT%"),
        ("--warn= ::1 --nagios", "PROBE UNKNOWN - --warn : expected MILLISECONDS,PERCENT%"),
        ("-n x --nagios ::1", "PROBE UNKNOWN - wrong arguments"),
        ("--nagios -n 0 ::1", "PROBE UNKNOWN - --nagios with --count 0 would not end"),
        ("--nagios --json ::1", "PROBE UNKNOWN - wrong arguments"),
        ("--nagios --bogus ::1", "PROBE UNKNOWN - wrong arguments"),
    ],
)
def test_nagios_with_wrong_arguments(arguments: str, text: str) -> None:
    """A wrong argument, also a threshold of an empty macro, is the status UNKNOWN, with a line."""
    ended = probe(*arguments.split())
    assert ended.returncode == 3
    [line] = ended.stdout.splitlines()
    assert line.startswith(text)


def test_a_mapped_address_is_probed_by_ipv4() -> None:
    """Its datagrams have the TTL and the DSCP that were asked for, and the TTL of answers shows."""
    with reflector(echo) as far:
        target = f"[::ffff:127.0.0.1]:{far.port}"
        found = figures(target, *QUICK, "--dscp", "EF", "--ttl", 9, "--source", "127.0.0.1")
        assert {(ttl, tos) for _, _, ttl, tos in far.received} == {(9, 46 << 2)}
    assert found["ttls"] == {"64": 5}


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ("", 64, "name a HOST, such as 192.0.2.1"),
        ("-s 5 127.0.0.1", 64, "--size 5: a probe of udp has 12 bytes at least"),
        ("-i 0 127.0.0.1", 64, "expected a time such as 0.2"),
        ("--dscp 64 127.0.0.1", 64, "expected a number from 0 to 63"),
        ("--udp --tcp 127.0.0.1", 64, "not allowed with argument"),
        ("--source 192.0.2.1 127.0.0.1", 69, "--source must be an address of this host"),
        ("--source ::1 127.0.0.1", 64, "needs an IPv4 address"),
        ("--source host 127.0.0.1", 64, "--source host: expected an IP address of this host"),
        ("--source fe80::1%none0 ::1", 64, "--source fe80::1%none0: expected an IP address of"),
        ("--interface none0 127.0.0.1", 69, "there is no such --interface"),
        ("--interface \udcff 127.0.0.1", 69, "there is no such --interface"),
        ("--source \udcff 127.0.0.1", 64, "--source \\udcff: expected an IP address of this host"),
        ("fe80::1", 64, "an address of one link alone, which needs the interface: fe80::1%eth0"),
        ("--tcp [fe80::1]:7", 64, "[fe80::1]:7: an address of one link alone"),
        ("--source-port 65535 --sweep 2 127.0.0.1", 64, "2 ports from there exceed 65535"),
        (
            "--sweep 4096 " + " ".join(f"127.0.0.{number}" for number in range(1, 18)),
            *(64, "17 targets from 4096 source ports are 69632 streams; 65536 are possible"),
        ),
        ("--time --source-port 5000 127.0.0.1", 64, "must be longer than the --timeout"),
        ("--time --size 64 127.0.0.1", 64, "--size: a request of time is empty; leave it out"),
        ("--stamp -s 40 127.0.0.1", 64, "a probe of stamp has 44 bytes at least"),
        ("--plot x.pdf 127.0.0.1", 64, "--plot x.pdf: expected a name that ends in .png or"),
        ("--plot /none/x.png 127.0.0.1", 64, "there is no folder /none"),
        ("--live 127.0.0.1", 64, "--live: standard output is no terminal"),
        ("--ssid 1 127.0.0.1", 64, "--key-file and --ssid need --stamp"),
        ("--stamp --key-file /none 127.0.0.1", 64, "--key-file: /none: No such file"),
        ("--warn 1,1% 127.0.0.1", 64, "--warn and --crit need --nagios"),
        ("--crit= 127.0.0.1", 64, "--warn and --crit need --nagios"),
        ("name.invalid", 68, "name.invalid: "),
        ("224.0.0.1", 64, "224.0.0.1 is the address of a group; a probe is for one host"),
        ("ff02::1%lo", 64, "is the address of a group"),
        ("::ffff:224.0.0.1", 64, "224.0.0.1 is the address of a group"),
    ],
)
def test_what_cannot_be_probed(arguments: str, status: int, text: str) -> None:
    """A wrong argument ends with its status, and one line says what is wrong."""
    ended = probe(*arguments.split())
    assert ended.returncode == status
    [line] = ended.stderr.splitlines()
    assert text in line


def test_an_error_is_one_line_of_a_plugin() -> None:
    """Nagios takes a second line, and what stands behind a |, for something else."""
    ended = probe("--nagios", "one\ntwo|three")
    assert ended.returncode == 3
    [line] = ended.stdout.splitlines()
    assert line.startswith("PROBE UNKNOWN - one\\ntwo!three: ")


def test_nothing_but_the_prober_is_imported(start: Start) -> None:
    """Neither rich nor matplotlib nor the daemon's loops are needed for lines."""
    run = start()
    planted = """
import atexit
atexit.register(lambda: print("IMPORTED", *sys.modules, file=sys.stderr))
"""
    ended = probe(f"127.0.0.1:{run.port}", "-n", 1, planted=planted)
    imported = {*ended.stderr.split()}
    assert "netsrvd.probe.engine" in imported
    assert not imported & {"rich", "matplotlib", "numpy", "netsrvd.daemon", "netsrvd.server"}


class FakeSTAMP:
    """A reflector of STAMP whose clock is ahead, and which loses some probes each way.

    `counts` is whether it counts its replies.
    """

    def __init__(
        self, ahead_ns: int = 0, out: Sequence[int] = (), back: Sequence[int] = (), *, counts: bool
    ) -> None:
        self._ahead_ns, self._out, self._back = ahead_ns, out, back
        self._counts, self._count = counts, 0

    def __call__(self, received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        came = time.time_ns()
        request = stamp.read_request(received[0])
        number = request.sequence
        if number in self._out:
            return
        count, self._count = self._count, self._count + 1
        if number in self._back:
            return
        yield stamp.make_reply(
            request,
            stamp.ntp_timestamp(time.time_ns() + self._ahead_ns),
            stamp.ntp_timestamp(came + self._ahead_ns),
            stamp.make_error_estimate(1000, is_synchronised=False),
            sequence=count if self._counts else number,
            ttl=received[2],
        )


def test_stamp_with_the_same_clock() -> None:
    """With one clock there are delays each way, which add up to the round trip."""
    with reflector(FakeSTAMP(counts=True)) as far:
        found = report("--stamp", far.address, *QUICK)
    for trip in trips(found):
        assert trip["out_ns"] + trip["back_ns"] == pytest.approx(trip["round_trip_ns"], abs=5)
        assert trip["out_ns"] > 0
        assert trip["reflector_ttl"] == 255
    of_all = only_target(found)["statistics"]
    assert of_all["clock_offset"]["agree"]
    assert of_all["synchronised"] is False
    assert of_all["directions"] == {"out": 0, "back": 0, "undecided": 0}


@pytest.mark.parametrize("ahead_ns", [3_600_000_000_000, -60_000_000_000])
def test_stamp_with_another_clock(ahead_ns: int) -> None:
    """With clocks that differ, the difference is told, and no delays each way are."""
    with reflector(FakeSTAMP(ahead_ns, counts=True)) as far:
        offset = figures("--stamp", far.address, *QUICK)["clock_offset"]
        ended = probe("-q", "--stamp", far.address, *QUICK)
    assert offset["least_ns"] - 1 <= ahead_ns <= offset["most_ns"] + 1
    assert not offset["agree"]
    assert "clocks differ: the reflector's is " in ended.stdout
    assert "delays each way are unknown" in ended.stdout
    assert not re.search(r"^(out|back) ", ended.stdout, re.MULTILINE)
    assert re.search(r"^out, IPDV ", ended.stdout, re.MULTILINE)


def test_stamp_tells_loss_each_way() -> None:
    """A reflector that counts tells how many probes were lost on which way; another does not."""
    lossy = {"out": (2, 5), "back": (3, 4, 9, 12)}
    with reflector(FakeSTAMP(counts=True, **lossy)) as far:
        found = figures("--stamp", far.address, "-n", 12, "-i", "5ms", *SOON)
    assert found["lost"] == 6
    assert found["directions"] == {"out": 2, "back": 3, "undecided": 1}
    with reflector(FakeSTAMP(counts=False, **lossy)) as far:
        ended = probe("-q", "--stamp", far.address, "-n", 12, "-i", "5ms", *SOON)
    assert "6 received, 6 lost (50 %)" in ended.stdout
    assert "loss each way: unknown, as the reflector does not count" in ended.stdout


def test_stamp_with_a_key(tmp_path: Path) -> None:
    """Authenticated probes have the key's HMAC, and only such replies are taken."""
    key = tmp_path / "key"
    key.write_text("hex:00ff10\n")
    key.chmod(0o600)

    def reflect(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        request = stamp.read_request(received[0], b"\x00\xff\x10")
        now = stamp.ntp_timestamp(time.time_ns())
        wrong = request.sequence == 2
        yield stamp.make_reply(
            request,
            now,
            now,
            1,
            sequence=request.sequence,
            ttl=1,
            key=b"another" if wrong else b"\x00\xff\x10",
        )

    with reflector(reflect) as far:
        found = figures("--stamp", "--key-file", key, far.address, *QUICK, *SOON)
    assert (found["received"], found["unsolicited"]) == (4, 1)
    key.chmod(0o644)
    ended = probe("--stamp", "--key-file", key, "127.0.0.1")
    assert ended.returncode == 64
    assert f"has mode 0644: chmod 600 {key}" in ended.stderr


def test_echoplus() -> None:
    """UDPEchoPlus tells the time in the reflector, and by its count the losses each way."""
    counted = []

    def reflect(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        packet = udpechoplus.read(received[0])
        assert packet
        if packet.generator_sequence == 3:  # lost on the way out
            return
        counted.append(packet)
        at = 2**32 - 1000 + 1000 * len(counted)
        if packet.generator_sequence not in (5, 6):  # lost on the way back
            yield udpechoplus.make_reply(received[0], 40 + len(counted), at, at + 5, 0)

    with reflector(reflect) as far:
        found = figures("--echoplus", far.address, "-n", 10, "-i", "5ms", *SOON)
    assert found["reflector"]["least"] == found["reflector"]["most"] == 5000
    assert found["directions"] == {"out": 1, "back": 2, "undecided": 0}
    assert found["clock_offset"] is None


def on_terminal(
    *arguments: object, columns: int = 120, environment: dict[str, str] | None = None
) -> tuple[str, int]:
    """Run `netsrvd probe` on a terminal; return what it shows, and its status."""
    near, far = pty.openpty()
    termios.tcsetwinsize(far, (40, columns))
    shown = b""
    with subprocess.Popen(
        [COMMAND, "probe", *map(str, arguments)],
        env=ENVIRONMENT | {"TERM": "xterm"} | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=far,
        stderr=far,
    ) as process:
        os.close(far)
        with suppress(OSError):  # EIO: the other side is closed
            while data := os.read(near, 65536):
                shown += data
        process.wait(PATIENCE)
    os.close(near)
    return shown.decode(), process.returncode


def test_a_table_that_changes(start: Start) -> None:
    """The table has a row for each stream with blocks and crosses, and the summary follows."""
    run = start()
    bad = f"127.0.0.1:{free_port(run.port + 1)}"
    shown, status = on_terminal("--live", f"127.0.0.1:{run.port}", bad, *QUICK, "--sweep", 2)
    assert status == 1
    table, _, summary = shown.partition("\x1b[?25h")  # the cursor is shown again
    rows = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", table).splitlines()[-4:]
    assert [row.split()[0] for row in rows] == [f"127.0.0.1:{run.port}"] * 2 + [bad] * 2
    assert all(re.search(r" 5 +0 .* [▁▂▃▄▅▆▇█]{5} *$", row) for row in rows[:2])
    assert all(re.search(r" 5 +100 .* ×{5} *$", row) for row in rows[2:])  # noqa: RUF001
    assert "10 sent, 10 received, 0 lost (0 %)" in summary


def test_a_table_in_another_encoding(start: Start) -> None:
    """Where the encoding has no blocks, the history is of ASCII characters, a loss is an x."""
    run = start()
    bad = f"127.0.0.1:{free_port(run.port + 1)}"
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    shown, _ = on_terminal("--live", f"127.0.0.1:{run.port}", bad, *QUICK, environment=ascii_only)
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.partition("\x1b[?25h")[0])
    good, lost = table.splitlines()[-2:]
    assert re.search(r" 5 +0 .* [_.=+*%#-]{5} *$", good)
    assert re.search(r" 5 +100 .* x{5} *$", lost)


def test_a_stop_of_the_job(start: Start, tmp_path: Path) -> None:
    """Ctrl-Z gives the shell a terminal with a cursor; continued, the table is drawn again."""
    run = start()
    command = [COMMAND, "probe", "--live", f"127.0.0.1:{run.port}", "-i", "100ms", *PATIENT]
    with screen(tmp_path) as terminal:
        terminal.start(command, ENVIRONMENT | {"TERM": "screen-256color"})
        terminal.wait_text("history")
        terminal.press("C-z")
        terminal.wait_text("Stopped")
        cursor = ("display-message", "-p", "#{cursor_flag}")
        assert terminal.do(*cursor) == "1\n"
        terminal.type("fg")
        terminal.wait(lambda _: terminal.do(*cursor) == "0\n", "no cursor")
        terminal.wait_text("history")
        terminal.press("C-c")
        terminal.wait_text(" 0 lost (0 %)")
        terminal.wait_text("status=0 >")


def test_a_terminal_that_cannot_draw() -> None:
    """With TERM=dumb no table would be seen."""
    shown, status = on_terminal("--live", "127.0.0.1", environment={"TERM": "dumb"})
    assert status == 64
    assert "--live: standard output is no terminal that can draw" in shown


def test_a_table_on_a_narrow_terminal() -> None:
    """The newest probes are shown, if there is no room for all of the history."""

    def first(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        if int.from_bytes(received[0][8:12], "big") < 40 - 5:
            yield received[0]

    with reflector(first) as far:
        shown, _ = on_terminal("--live", far.address, "-n", 40, "-i", "5ms", *SOON, columns=80)
    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.partition("\x1b[?25h")[0])
    heading, row = table.splitlines()[-2:]
    titles = re.split(" +", "target sent loss % last ms min median p99 history")
    assert heading.split() == titles
    assert re.search(r" 40 .* [▁▂▃▄▅▆▇█]+×{5} *$", row), row  # noqa: RUF001


def test_the_progress_is_visible(start: Start) -> None:
    """On a terminal a quiet run says how far it is, and wipes that before the summary."""
    run = start()
    shown, status = on_terminal("-q", f"127.0.0.1:{run.port}", "-n", 30, "-i", "40ms", *PATIENT)
    assert status == 0
    assert re.search(r"\r\d+ of 30 probes, 0 lost *\r", shown)
    assert "\nTTL of answers: 64" in shown
    lines = shown.partition("---")[0].split("\r")
    assert lines[-2].strip() == ""


@pytest.mark.parametrize(("ending", "start_of_file"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_picture(start: Start, tmp_path: Path, ending: str, start_of_file: bytes) -> None:
    """A picture is drawn besides the usual output."""
    run = start()
    picture = tmp_path / f"paths.{ending}"
    ended = probe("-q", "--plot", picture, f"127.0.0.1:{run.port}", *QUICK, "--sweep", 12)
    assert ended.returncode == 0
    assert "60 sent" in ended.stdout
    assert picture.read_bytes().startswith(start_of_file)


def test_a_picture_on_a_full_disk(start: Start, tmp_path: Path) -> None:
    """A picture that cannot be written is told, with its name and the status of output."""
    run = start()
    full = tmp_path / "full.svg"
    full.symlink_to("/dev/full")
    ended = probe(f"127.0.0.1:{run.port}", *QUICK, "--plot", full)
    assert ended.returncode == 74
    assert ended.stderr == f"netsrvd: --plot {full}: No space left on device\n"
    assert "5 sent, 5 received" in ended.stdout


def test_a_picture_that_fails_leaves_the_one_before(start: Start, tmp_path: Path) -> None:
    """A file that cannot be written as a whole is not begun: the one of before stays."""
    run = start()
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = folder / "paths.svg"
    picture.write_text("before")
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    ended = probe(f"127.0.0.1:{run.port}", *QUICK, "--plot", picture, planted=limited)
    assert (ended.returncode, ended.stderr) == (74, f"netsrvd: --plot {picture}: File too large\n")
    assert [(each.name, each.read_text()) for each in folder.iterdir()] == [("paths.svg", "before")]


def test_ctrl_c_while_the_picture_is_drawn(start: Start, tmp_path: Path) -> None:
    """The probes are over: it ends the command at once, quietly, and leaves no file."""
    run = start()
    planted = """
import os, signal
from netsrvd.probe import plot
def draw(report, path, draw=plot.draw):
    os.kill(os.getpid(), signal.SIGINT)
    draw(report, path)
plot.draw = draw
"""
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture = folder / "paths.svg"
    ended = probe(f"127.0.0.1:{run.port}", *QUICK, "--plot", picture, planted=planted)
    assert (ended.returncode, ended.stderr) == (130, "")
    assert "5 sent, 5 received" in ended.stdout
    assert not [*folder.iterdir()]


SLOW_RESOLVER = """
import ctypes, socket
libc = ctypes.CDLL(None)
def resolve(*_arguments):
    print("resolving", flush=True)
    while libc.sleep(60):  # goes on after a signal, as getaddrinfo(3) does
        pass
socket.getaddrinfo = resolve
"""


def test_ctrl_c_while_a_name_is_looked_up() -> None:
    """It ends the command at once, not when the resolver has given up."""
    with subprocess.Popen(
        [*command(SLOW_RESOLVER), "probe", "host.example"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "resolving\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output, errors) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("option", "module"), [(["--live"], "rich"), (["--plot", "x.png"], "matplotlib")]
)
def test_a_module_is_missing(option: list[str], module: str) -> None:
    """Without rich or matplotlib the option says what to install, and nothing is sent."""
    planted = f"sys.modules[{module!r}] = None\nsys.stdout.isatty = lambda: True"
    ended = probe(*option, "127.0.0.1", planted=planted)
    assert ended.returncode == 70
    assert ended.stderr == (
        f"netsrvd: {option[0]}: the Python module {module} is missing: install python3-{module}, "
        f"or by pip: {module}\n"
    )


def measuring(port: int, key: Path | None = None) -> dict[str, object]:
    """Return a configuration of reflectors, of which STAMP counts its replies."""
    stamp_keys = {"stamp_key": str(key)} if key else {}
    usual = {"protocols": ["udp"], "host": LOOPBACK}
    return {
        "listener": {
            "stamp": {
                "service": "stamp",
                "port": port,
                "stamp_stateful": True,
                **usual,
                **stamp_keys,
            },
            "echoplus": {"service": "echoplus", "port": free_port(port + 1), **usual},
            "echo": {"enabled": False},
        }
    }


def test_our_own_reflectors(start: Start, port: int, tmp_path: Path) -> None:
    """The daemon's reflectors tell each way, the DSCP that arrived, and take the same key."""
    key = tmp_path / "key"
    key.write_text("a secret\n")
    key.chmod(0o600)
    configuration = measuring(port, key)
    run = start(configuration)
    run.allow("packet")
    where = f"127.0.0.1:{port}"
    found = figures("--stamp", "--key-file", key, where, *QUICK, "-s", 200, "--dscp", "AF11")
    assert found["received"] == 5
    assert found["clock_offset"]["agree"]
    assert found["reflector_dscps"] == {"10": 5}
    assert found["reflector_ttls"] == {"255": 5}
    assert found["reflector"]["least"] > 0
    assert figures("--stamp", where, "-n", 1, "-W", "100ms", status=2)["lost"] == 1
    other = configuration["listener"]["echoplus"]["port"]  # type: ignore[index]
    found = figures("--echoplus", f"[::1]:{other}", *QUICK)
    assert found["received"] == 5
    assert found["reflector"]["least"] >= 0


SMALL_AND_SLOW = """
import socket
from time import sleep
from netsrvd.probe import udp
def small(*arguments, make=udp.make):
    sock = make(*arguments)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    return sock
udp.make = small
def slow(self, *events, on_ready=udp.UDPProber.on_ready):
    sleep(0.2)
    return on_ready(self, *events)
udp.UDPProber.on_ready = slow
"""
"""What has the prober look at its socket, which has room for few datagrams, too seldom."""


def test_answers_that_this_host_drops() -> None:
    """Answers that the prober's own host has dropped are told, as are probes sent too late."""

    def flood(received: tuple[bytes, object, int, int]) -> Iterator[bytes]:
        yield from (received[0],) * 100

    with reflector(flood) as far:
        ended = probe("-q", far.address, "-n", 5, "-i", "20ms", planted=SMALL_AND_SLOW)
    assert re.search(r"dropped by this host, which was too slow .*: \d+ answers", ended.stdout)
    assert "this host was too slow for the interval: probes were sent up to " in ended.stdout
