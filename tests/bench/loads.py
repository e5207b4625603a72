"""Puts loads on servers and keeps what was measured."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.boxes import TICKS_PER_SECOND, Box, Memory
from tests.bench.figures import Sample, Samples
from tests.bench.peers import BIN, Peer
from tests.bench.scenarios import START, Scenario
from tests.bench.servers import BenchError, Server, everywhere, load_cpu, server_cpu

IDLE, IOWAIT = 3, 4
"""The places of these times in the first line of /proc/stat."""


class Bench:
    """Measures servers under scenarios, and keeps what was measured."""

    def __init__(self, rounds: int, seconds: float) -> None:
        self.rounds, self.seconds = rounds, seconds
        self.samples: Samples = {}

    def note(self, number: int, scenario: str, peer: str, sample: Sample) -> None:
        """Keep a sample of one round."""
        self.samples.setdefault(scenario, {}).setdefault(peer, {})[str(number)] = sample

    def start(self, number: int, peer: Peer) -> Server | None:
        """Start a server and keep its memory; or keep why it did not start."""
        try:
            server = Server(peer, server_cpu())
        except BenchError as error:
            self.note(number, START, peer.name, {"failed": str(error)})
            return None
        memory = server.box.memory()
        weight = {"rss_mib": memory.rss_kib / 1024, "pss_mib": memory.pss_kib / 1024}
        self.note(number, START, peer.name, weight)
        return server

    def ask(self, number: int, scenario: Scenario, server: Server, log: Box) -> Sample:
        """Measure one server under one scenario; a failure is kept like any sample."""
        name = server.peer.name
        print(f"{number + 1}/{self.rounds} {scenario.name}: {name}", file=sys.stderr, flush=True)
        if not scenario.pinned:
            server.box.pin(os.sched_getaffinity(0))
        try:
            sample = measure(server, scenario, log, self.seconds)
        except BenchError as error:
            sample = {"failed": str(error)}
        if not scenario.pinned:
            server.box.pin({int(server_cpu())})
        self.note(number, scenario.name, name, sample)
        return sample


def measure(server: Server, scenario: Scenario, log: Box, seconds: float) -> Sample:
    """Return what a server does under a scenario, and what else was busy meanwhile."""

    def weigh() -> Memory:
        """Wait until what came before is done, such as the log of new connections."""
        server.box.settle()
        log.settle()
        return server.box.memory()

    crowd = server.peer.crowd if "{crowd}" in scenario.loads[0] else 0
    cpus = load_cpu() if scenario.pinned else everywhere()
    clocks = [f"-u{clock}" for clock in server.box.clocks()]
    commands = []
    for load in scenario.loads:
        program, *options = load.format(crowd=crowd).split()
        words = ["taskset", "-c", cpus, f"{BIN}/{program}", *options, "-t", seconds, *clocks]
        commands.append([str(word) for word in (*words, server.port)])
    before, work = weigh(), Work(server.box, log)
    parts, crowded = run(commands, weigh)
    sample = combined(parts) | work.since()
    if scenario.quiet is not None:
        quiet = parts[scenario.quiet]
        sample |= {"quiet_p50_us": quiet["p50_us"], "quiet_p99_us": quiet["p99_us"]}
    if crowd:
        sample["crowd"] = crowd
        sample["crowd_kib"] = (crowded.pss_kib - before.pss_kib) / crowd
    return sample


class Work:
    """What has used the machine since this was made."""

    def __init__(self, server: Box, log: Box) -> None:
        self._server, self._log = server, log
        self._before = self._now()

    def _now(self) -> list[float]:
        """Return the seconds of the clock, all CPUs, the log, and the rest of the bench."""
        kinds = Path("/proc/stat").read_text().split()[1:9]
        busy = sum(map(int, kinds)) - int(kinds[IDLE]) - int(kinds[IOWAIT])
        own = [
            resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        bench = sum(each.ru_utime + each.ru_stime for each in own) + self._server.cpu_us() / 1e6
        return [time.monotonic(), busy / TICKS_PER_SECOND, self._log.cpu_us() / 1e6, bench]

    def since(self) -> Sample:
        """Return how many CPUs the log used, and how many what is no part of the bench."""
        used = [after - before for after, before in zip(self._now(), self._before, strict=True)]
        seconds, busy, log, bench = used
        others = max(0.0, busy - log - bench)
        return {"log_busy": log / seconds, "others_busy": others / seconds}


def run(commands: list[list[str]], weigh: Callable[[], Memory]) -> tuple[list[Sample], Memory]:
    """Run load generators at the same time; call `weigh` when all their connections stand."""
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(each, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for each in commands
    ]
    try:
        for generator in started:
            if generator.stdout.readline() != "ready\n":
                raise BenchError(generator.stderr.read().strip() or "the load ended")
        weight = weigh()
        for generator in started:
            generator.stdin.write("go\n")
            generator.stdin.flush()
        ended = [generator.communicate() for generator in started]
    finally:
        for generator in started:
            generator.kill()
            generator.wait()
            for stream in (generator.stdin, generator.stdout, generator.stderr):
                stream.close()
    for output, errors in ended:
        if not output:
            raise BenchError(errors.strip() or "the load ended without a result")
    return [json.loads(output) for output, _ in ended], weight


def combined(parts: list[Sample]) -> Sample:
    """Return the figures of loads that ran at the same time, first those of the first one."""
    messages = sum(part["messages"] for part in parts)
    if not messages:
        raise BenchError(parts[0]["trouble"] or "nothing came back")
    first, seconds = parts[0], parts[0]["seconds"]
    rates = [part["messages"] / part["seconds"] for part in parts]
    lost = sum(part["lost"] for part in parts)
    return {
        "rate": sum(rates),
        "p50_us": first["p50_us"],
        "p99_us": first["p99_us"],
        "server_us": first["server_us"] / messages,
        "server_busy": first["server_us"] / seconds / 1e6,
        "load_busy": sum(part["load_us"] for part in parts) / seconds / 1e6,
        "lost_percent": 100 * lost / (messages + lost),
        "errors": sum(part["errors"] for part in parts),
        "trouble": next((part["trouble"] for part in parts if part["trouble"]), ""),
        "total": sum(part["total"] for part in parts),
        "parts": [
            {"rate": rate, "p50_us": part["p50_us"], "p99_us": part["p99_us"]}
            for rate, part in zip(rates, parts, strict=True)
        ],
    }
