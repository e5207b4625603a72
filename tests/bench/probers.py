"""`make bench-probe`: `netsrvd probe` side by side with other probers, against known truth.

All of them measure through a relay that delays each packet as planned and records when it came and
when it left (tests/support/impairment). An error is the difference between the figure of a prober
and the same figure of the record of the same packets.
"""

import argparse
import json
import os
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.support import reflectors
from tests.support.impairment.path import FAR, FAR_MANY, Network, Way, impaired, network
from tests.support.impairment.truth import Packet, Truth, echo_key
from tests.support.namespaces import Namespace
from tests.support.run import COMMAND

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/bench"
IRTT = BUILD / "debian/usr/bin/irtt"
RESULT = BUILD / "probers.json"
IRTT_PORT = 2112
US, MS = 1_000, 1_000_000

MARGIN_US = 5
"""How much larger than the smallest error of the median of the others ours may be."""

RoundTrips = Mapping[str, Sequence[float]]
"""Round-trip times in microseconds, by the address that was asked."""


class Outcome(NamedTuple):
    """What a program printed, and the CPU time of its process, kernel included."""

    stdout: str
    stderr: str
    cpu_us: float


@dataclass(frozen=True)
class Prober:
    """A program, how to start it, and how to read what it prints."""

    name: str
    argv: Callable[[int, int, Sequence[str]], Sequence[str | Path]]
    """Of the count of probes, the interval in milliseconds and the addresses."""
    read: Callable[[Outcome], RoundTrips]
    key: Callable[[Packet], Hashable | None]
    """Equal for a request and its answer alone; None for other packets."""
    about: str
    most_targets: int = 1


# --- the probers ----------------------------------------------------------------------------------


def read_netsrvd(said: Outcome) -> RoundTrips:
    """Read the JSON of `netsrvd probe`."""
    found = {}
    for target in json.loads(said.stdout)["targets"]:
        [stream] = target["streams"]
        trips = [each.get("round_trip_ns") for each in stream["round_trips"]]
        found[target["address"]] = [each / US for each in trips if each is not None]
    return found


def read_irtt(said: Outcome) -> RoundTrips:
    """Read the JSON of irtt."""
    trips = json.loads(said.stdout)["round_trips"]
    return {FAR: [each["delay"]["rtt"] / US for each in trips if each["lost"] == "false"]}


def read_fping(said: Outcome) -> RoundTrips:
    """Read the summary of `fping -C`, one line a target, milliseconds."""
    found = {}
    for line in said.stderr.splitlines():
        address, colon, times = line.partition(" : ")
        if colon:
            found[address.strip()] = [1000 * float(each) for each in times.split() if each != "-"]
    return found


def read_lines(pattern: str) -> Callable[[Outcome], RoundTrips]:
    """Return what reads the round-trip times, in milliseconds, of lines about one target."""

    def read(said: Outcome) -> RoundTrips:
        return {FAR: [1000 * float(each) for each in re.findall(pattern, said.stdout)]}

    return read


def irtt_key(packet: Packet) -> Hashable | None:
    """Return the sequence number of a request or reply of irtt, none of its handshake."""
    ports = packet.source_port, packet.destination_port
    if IRTT_PORT not in ports or len(packet.payload) < 16 or packet.payload[3] not in {0, 2}:
        return None
    return struct.unpack_from("<I", packet.payload, 12)


def icmp_key(packet: Packet) -> Hashable | None:
    """Return the other host, the identifier and the sequence number of ICMP echo."""
    far = packet.destination if packet.way == "there" else packet.source
    is_echo = packet.protocol == 1
    return (far, packet.source_port, packet.destination_port) if is_echo else None


def seconds(milliseconds: int) -> str:
    """Return milliseconds as seconds, for a command line."""
    return f"{milliseconds / 1000:g}"


def netsrvd(name: str, about: str, *options: str) -> Prober:
    """Return this project's prober with options."""
    return Prober(
        name,
        lambda count, interval, hosts: [
            *(COMMAND, "probe", "--udp", "--json", *options),
            *(f"--count={count}", f"--interval={seconds(interval)}", "--size=64", *hosts),
        ],
        read_netsrvd,
        echo_key,
        about,
        most_targets=len(FAR_MANY),
    )


OWN = "netsrvd probe"
PROBERS = (
    netsrvd(OWN, "UDP echo of netsrvd, kernel stamps"),
    netsrvd(f"{OWN} --program-stamps", "the same without", "--program-stamps"),
    Prober(
        "irtt",
        lambda count, interval, hosts: [
            *(IRTT, "client", "-Q", "-o", "-", "-l", "64", "--tstamp=none", "--fill=rand"),
            *("-i", f"{interval}ms", "-d", f"{count * interval}ms", *hosts),
        ],
        read_irtt,
        irtt_key,
        "its own server",
    ),
    Prober(
        "fping",
        lambda count, interval, hosts: [
            *("fping", "-q", "-C", str(count), "-p", str(interval), "-t1000", "-i1", *hosts),
        ],
        read_fping,
        icmp_key,
        "ICMP; prints three digits",
        most_targets=len(FAR_MANY),
    ),
    Prober(
        "ping",
        lambda count, interval, hosts: [
            *("ping", "-n", "-c", str(count), "-i", seconds(interval), *hosts),
        ],
        read_lines(r"time=([0-9.]+) ms"),
        icmp_key,
        "iputils, ICMP; prints three digits",
    ),
    Prober(
        "hping3",
        lambda count, interval, hosts: [
            *("hping3", "-n", "-1", "-c", str(count), "-i", f"u{interval * 1000}", *hosts),
        ],
        read_lines(r"rtt=([0-9.]+) ms"),
        icmp_key,
        "ICMP; prints tenths of a millisecond",
    ),
)


# --- the scenarios --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scenario:
    """What the relay does, and what is asked."""

    name: str
    there: Way
    back: Way
    about: str
    count: int
    interval_ms: int
    targets: int = 1
    least_most_targets: int = 1
    """Probers that can ask this number of targets at once take part."""
    is_loaded: bool = False
    """Whether another process computes on the CPU of the prober."""


def exponential(least_ns: int, mean_ns: int, seed: int, *, losses: float = 0.0) -> list[int | None]:
    """Return delays of a fixed part and an exponential one, with some packets lost."""
    chance = random.Random(seed)
    return [
        None if chance.random() < losses else least_ns + int(chance.expovariate(1 / mean_ns))
        for _ in range(997)
    ]


def scenarios(count: int) -> tuple[Scenario, ...]:
    """Return the scenarios; each has about this number of probes."""
    steady = Way([200 * US])
    jitter = Way(exponential(3 * MS, MS, 1)), Way(exponential(3 * MS, MS // 2, 2))
    lossy = Way(exponential(3 * MS, MS, 3, losses=0.05)), Way(exponential(MS, MS, 4, losses=0.02))
    many = len(FAR_MANY)
    return (
        Scenario("steady", steady, steady, "0.2 ms each way", count, 10),
        Scenario(
            "busy", steady, steady, "the same beside a busy process", count, 10, is_loaded=True
        ),
        Scenario("jitter", *jitter, "3 ms each way and 1 or 0.5 ms exponential", count, 10),
        Scenario("lossy", *lossy, "jitter, and 5 or 2 % lost", count, 20),
        Scenario("1 target", steady, steady, "as steady", count // 5, 100, 1, many),
        Scenario(f"{many} targets", steady, steady, "as steady", count // 5, 100, many, many),
    )


# --- measuring ------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """What one run of a prober came to. Times in microseconds; errors are it less the truth."""

    scenario: str
    prober: str
    answered: int
    truly_answered: int
    median_error: float
    """Of several targets the median, as the error of the deviation."""
    worst_error: float
    """Of the median of that target that has the largest."""
    deviation_error: float
    truth_median: float
    truth_deviation: float
    start_cpu: float
    """Of a run with one probe."""
    cpu: float
    """Of each further probe."""
    relay_late: float
    """By how much more than planned half of the packets were delayed."""
    relay_late_p95: float


def truth_by_target(truth: Truth, prober: Prober) -> RoundTrips:
    """Return the round-trip times that the record of the relay has for a prober."""
    found: dict[str, list[float]] = {}
    for trip in truth.round_trips(prober.key):
        if trip.ns is not None:
            found.setdefault(trip.request.destination, []).append(trip.ns / US)
    return found


def run(space: Namespace, argv: Sequence[str | Path], cpu: int) -> Outcome:
    """Run a program in a namespace on one CPU until it ends."""
    with (
        tempfile.TemporaryFile("w+") as stdout,
        tempfile.TemporaryFile("w+") as stderr,
        space.entered(),
    ):
        pinned = ["taskset", "--cpu-list", str(cpu), *argv]
        process = subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read())
    if process.returncode > 1:
        sys.exit(f"{argv}: status {process.returncode}: {texts[1]}")
    return Outcome(*texts, 1e6 * (used.ru_utime + used.ru_stime))


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Start on this CPU what the block starts."""
    all_cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cpus)


@contextmanager
def busy(cpu: int) -> Iterator[None]:
    """Keep a CPU busy with a process that computes."""
    command = ["taskset", "--cpu-list", str(cpu), sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def _difference(
    figure: Callable[[Sequence[float]], float], measured: Sequence[float], true: Sequence[float]
) -> float:
    return figure(measured) - figure(true)


def measure(between: Network, scenario: Scenario, prober: Prober, folder: Path) -> Sample:
    """Run a prober once through a relay of its own."""
    hosts = FAR_MANY[: scenario.targets]
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    with ExitStack() as stack:
        with on_cpu(last):
            relay = stack.enter_context(impaired(between, folder, scenario.there, scenario.back))
        if scenario.is_loaded:
            stack.enter_context(busy(first))
        start_us = run(
            between.prober, prober.argv(1, scenario.interval_ms, hosts[:1]), first
        ).cpu_us
        relay.stop()
        with on_cpu(last):
            relay = stack.enter_context(impaired(between, folder, scenario.there, scenario.back))
        argv = prober.argv(scenario.count, scenario.interval_ms, hosts)
        said = run(between.prober, argv, first)
        truth = relay.stop()
    measured, true = prober.read(said), truth_by_target(truth, prober)
    late = truth.error()
    errors = [_difference(statistics.median, measured[host], true[host]) for host in hosts]
    deviations = [_difference(statistics.pstdev, measured[host], true[host]) for host in hosts]
    return Sample(
        scenario.name,
        prober.name,
        sum(map(len, measured.values())),
        sum(map(len, true.values())),
        statistics.median(errors),
        max(errors, key=abs),
        statistics.median(deviations),
        statistics.median(statistics.median(true[host]) for host in hosts),
        statistics.median(statistics.pstdev(true[host]) for host in hosts),
        start_us,
        (said.cpu_us - start_us) / (scenario.count * scenario.targets - 1),
        late.median / US,
        late.p95 / US,
    )


@contextmanager
def servers(between: Network, folder: Path) -> Iterator[None]:
    """Run the reflectors of all probers on the responder, on the last CPU."""
    with ExitStack() as stack:
        with on_cpu(max(os.sched_getaffinity(0))):
            stack.enter_context(reflectors.netsrvd(between.responder, folder))
            with between.responder.entered():
                command = [IRTT, "server", "-b", f"{FAR}:{IRTT_PORT}"]
                irtt = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        stack.enter_context(irtt)
        stack.callback(irtt.terminate)
        yield


def measure_all(wanted: Sequence[Scenario], rounds: int, probers: Sequence[str]) -> list[Sample]:
    """Measure in rounds; `probers` are names, none for all."""
    samples: list[Sample] = []
    with network() as between, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        stack.enter_context(servers(between, Path(name)))
        for number in range(rounds):
            for scenario in wanted:
                able = [
                    each
                    for each in PROBERS
                    if each.most_targets >= scenario.least_most_targets
                    and (not probers or each.name in probers)
                ]
                turn = number % len(able)
                samples += [
                    measure(between, scenario, prober, Path(name))
                    for prober in able[turn:] + able[:turn]
                ]
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return samples


# --- the report -----------------------------------------------------------------------------------


Figure = Callable[[Sample], float]


def cell(values: Sequence[float]) -> str:
    """Return the median of some rounds, and the least and the most."""
    if not values:
        return ""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def table(samples: Sequence[Sample], columns: Mapping[str, tuple[str, Figure]]) -> Iterator[str]:
    """Yield a table in Markdown; a column has a heading, and a figure of one scenario's samples."""
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "--:|" * len(columns)
    for name in dict.fromkeys(each.prober for each in samples):
        cells = [
            cell([figure(each) for each in samples if (each.prober, each.scenario) == (name, of)])
            for of, figure in columns.values()
        ]
        if any(cells):
            yield f"| {name} | {' | '.join(cells)} |"


def legend(samples: Sequence[Sample], wanted: Sequence[Scenario]) -> Iterator[str]:
    """Yield what each scenario is, and what its truth was."""
    for scenario in wanted:
        mine = [each for each in samples if each.scenario == scenario.name]
        median = statistics.median(each.truth_median for each in mine)
        deviation = statistics.median(each.truth_deviation for each in mine)
        yield (
            f"- *{scenario.name}*: {scenario.about}; {scenario.count} probes a target, one each "
            f"{scenario.interval_ms} ms. Median {median:.0f} µs, deviation {deviation:.0f} µs."
        )


def targets(samples: Sequence[Sample], wanted: Sequence[Scenario]) -> Iterator[str]:
    """Yield whether the error of the median is small enough in each scenario."""
    for scenario in wanted:
        errors: dict[str, list[float]] = {}
        for each in samples:
            if each.scenario == scenario.name:
                errors.setdefault(each.prober, []).append(abs(each.median_error))
        medians = {name: statistics.median(values) for name, values in errors.items()}
        own = medians.pop(OWN, None)
        others = {name: value for name, value in medians.items() if not name.startswith(OWN)}
        if own is None or not others:
            continue
        best = min(others, key=lambda name: others[name])
        verdict = "met" if own <= others[best] + MARGIN_US else "MISSED"
        yield (
            f"- {scenario.name}: {own:.1f} µs, the best of the others ({best}) "
            f"{others[best]:.1f} µs: {verdict}"
        )


def report(samples: Sequence[Sample], wanted: Sequence[Scenario]) -> str:
    """Return all that was measured, in Markdown."""
    single = [each.name for each in wanted if each.least_most_targets == 1]
    multiple = [each.name for each in wanted if each.least_most_targets > 1]
    late = statistics.median(each.relay_late for each in samples)
    p95 = statistics.median(each.relay_late_p95 for each in samples)
    wrong = Counter(each.prober for each in samples if each.answered != each.truly_answered)
    return "\n".join(
        [
            *legend(samples, wanted),
            "\nError of the median, µs:\n",
            *table(samples, {each: (each, lambda its: its.median_error) for each in single}),
            "\nError of the standard deviation, µs:\n",
            *table(samples, {each: (each, lambda its: its.deviation_error) for each in single}),
            "\nCPU time to start, ms, and of each further probe, µs:\n",
            *table(
                samples,
                {"to start": (wanted[0].name, lambda its: its.start_cpu / 1000)}
                | {each: (each, lambda its: its.cpu) for each in (*single, *multiple)},
            ),
            "\nError of the median with several targets, µs:\n",
            *table(
                samples,
                {each: (each, lambda its: its.median_error) for each in multiple}
                | {
                    f"the worst of {each}": (each, lambda its: its.worst_error)
                    for each in multiple[1:]
                },
            ),
            "",
            *targets(samples, wanted),
            "",
            f"Runs with another number of answers than the record: {dict(wrong) or 'none'}.",
            f"The relay let packets go {late:.1f} µs late (median; p95 {p95:.1f} µs).",
        ]
    )


def main() -> None:
    """Measure in rounds, in an order that changes, and print the report."""
    top = argparse.ArgumentParser(prog="tests.bench.probers", description=__doc__)
    top.add_argument("--rounds", type=int, default=5)
    top.add_argument("--count", type=int, default=300, help="probes of a run (300)")
    top.add_argument("--probers", default="", help="the names of probers, likewise")
    top.add_argument("--only", default="", help="the names of scenarios, with commas between them")
    top.add_argument("--report", action="store_true", help="print the report of the last run")
    arguments = top.parse_args()
    only = [each for each in arguments.only.split(",") if each]
    wanted = [each for each in scenarios(arguments.count) if not only or each.name in only]
    if not arguments.report:
        probers = [each for each in arguments.probers.split(",") if each]
        samples = measure_all(wanted, arguments.rounds, probers)
        RESULT.write_text(json.dumps([each._asdict() for each in samples], indent=1) + "\n")
    samples = [Sample(**each) for each in json.loads(RESULT.read_text())]
    measured = {each.scenario for each in samples}
    print(report(samples, [each for each in wanted if each.name in measured]))


if __name__ == "__main__":
    main()
