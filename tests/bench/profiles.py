"""Where the CPU time of a message goes: samples of perf(1), by part of the server.

`python -m tests.bench.profiles` prints a table; it wants perf (Debian: linux-perf) and root. It is
no part of `make bench`.
"""

import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.bench import stage
from tests.bench.boxes import BUILD, Box
from tests.bench.loads import measure
from tests.bench.peers import PEERS
from tests.bench.report import table
from tests.bench.scenarios import QUICK, SCENARIOS, Scenario
from tests.bench.servers import Server, log_cpu, server_cpu

PROFILED = ("tcp 64 x 1 KiB", "udp 1 x 64 B")
SECONDS, FREQUENCY = 4, 4000

KERNEL, LIBC, CTYPES, PROGRAM = "kernel", "libc", "ctypes", "the program itself"
BYTECODE, INTERPRETER = "interpreter: bytecode", "interpreter: all else"
PARTS = ("all", KERNEL, BYTECODE, INTERPRETER, CTYPES, LIBC, PROGRAM)


def main() -> None:
    """Print a table of parts for each profiled scenario: C, netsrvd, uvloop."""
    stage.enter(__spec__.name)
    for name in PROFILED:
        scenario = next(each for each in SCENARIOS if each.name == name)
        found: dict[str, Counter[str]] = {}
        with stage.journal(log_cpu()) as log:
            for peer in PEERS:
                if peer.name in QUICK:
                    with Server(peer, server_cpu()) as server:
                        found[peer.name] = profile(scenario, server, log)
        rows = [[part, *(f"{each[part]:.2f}" for each in found.values())] for part in PARTS]
        print("\n".join(table([f"{name}, µs", *found], rows)), end="\n\n", flush=True)


def profile(scenario: Scenario, server: Server, log: Box) -> Counter[str]:
    """Return the CPU µs that each part of a server has in a message."""
    file = BUILD / "perf.data"
    pids = ",".join(map(str, server.box.pids()))
    record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), "-o", str(file)]
    middle = [*record, "-p", pids, "--", "sleep", str(SECONDS / 2)]
    recording = threading.Timer(SECONDS / 4, subprocess.run, (middle,))
    recording.start()
    cost = measure(server, scenario, log, SECONDS)["server_us"]
    recording.join()
    parts = Counter({"all": cost})
    for part, percent in shares(file):
        parts[part] += percent * cost / 100
    return parts


def shares(file: Path) -> Iterator[tuple[str, float]]:
    """Yield the part and the percentage of each symbol that perf has seen."""
    columns = ["-t", ";", "-F", "overhead,dso,sym", "--sort", "dso,sym"]
    command = ["perf", "report", "-i", str(file), "--stdio", *columns]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in told.stdout.splitlines():
        words = [word.strip() for word in line.split(";")]
        if len(words) == 3 and not line.startswith("#"):
            yield part(words[1], words[2]), float(words[0].rstrip("%"))


def part(library: str, symbol: str) -> str:
    """Return the part of a server that a symbol belongs to."""
    if symbol.startswith("[k]") or "kernel" in library:
        return KERNEL
    if library.startswith(("libc.", "libc-", "ld-", "[vdso]")):
        return LIBC
    if "ctypes" in library or "ffi" in library:
        return CTYPES
    if "python" not in library:
        return PROGRAM
    return BYTECODE if "_PyEval_EvalFrameDefault" in symbol else INTERPRETER


if __name__ == "__main__":
    main()
