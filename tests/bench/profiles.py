"""Where the CPU time of a message goes: samples of perf(1), by part of the program.

`python -m tests.bench.profiles` prints a table; it wants perf (Debian: linux-perf) and root. It is
no part of `make bench`.
"""

import subprocess
import sys
import threading
from collections import Counter

from tests.bench import stage
from tests.bench.boxes import BUILD, Box
from tests.bench.loads import measure
from tests.bench.peers import OWN, PEERS, REFERENCE, UVLOOP
from tests.bench.scenarios import SCENARIOS, Scenario
from tests.bench.servers import Server, log_cpu, server_cpu

PROFILED = ("tcp 64 x 1 KiB", "udp 1 x 64 B")
SECONDS, FREQUENCY = 4, 4000

EVAL_LOOP = "_PyEval_EvalFrameDefault"


def main() -> None:
    """Measure C, netsrvd and uvloop under the profiled scenarios."""
    stage.enter(__spec__.name)
    for name in PROFILED:
        scenario = next(each for each in SCENARIOS if each.name == name)
        with stage.journal(log_cpu()) as log:
            for peer in PEERS:
                if peer.name in (REFERENCE, OWN, UVLOOP):
                    with Server(peer, server_cpu()) as server:
                        _show(scenario, server, log)


def _show(scenario: Scenario, server: Server, log: Box) -> None:
    file = BUILD / "perf.data"
    pids = ",".join(map(str, server.box.pids()))
    watch = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), "-o", str(file)]
    seconds = str(SECONDS / 2)  # in the middle of the load
    recording = threading.Timer(
        SECONDS / 4, subprocess.run, ([*watch, "-p", pids, "--", "sleep", seconds],)
    )
    recording.start()
    sample = measure(server, scenario, log, SECONDS)
    recording.join()
    shares, symbols = read_report(file)
    cost = sample["server_us"]
    print(f"{scenario.name}: {server.peer.name}: {cost:.2f} µs, p50 {sample['p50_us']:.1f} µs")
    for part, share in shares.most_common():
        print(f"    {part:40} {share:5.1f} % {share * cost / 100:6.2f} µs")
    for symbol, share in symbols.most_common(25):
        print(f"        {symbol:60} {share:5.1f} % {share * cost / 100:6.2f} µs")
    sys.stdout.flush()


def read_report(file: object) -> tuple[Counter[str], Counter[str]]:
    """Return the shares of the parts, and of the symbols, in percent."""
    command = ["perf", "report", "-i", str(file), "--stdio", "-t", ";", "--sort", "dso,sym"]
    told = subprocess.run(
        [*command, "-F", "overhead,dso,sym"], capture_output=True, text=True, check=True
    )
    shares: Counter[str] = Counter()
    symbols: Counter[str] = Counter()
    for line in told.stdout.splitlines():
        words = [word.strip() for word in line.split(";")]
        if line.startswith("#") or len(words) != 3:
            continue
        share, library, symbol = float(words[0].rstrip("%")), words[1], words[2]
        shares[part(library, symbol)] += share
        symbols[f"{library} {symbol}"] += share
    return shares, symbols


def part(library: str, symbol: str) -> str:
    """Return the part of a program that a symbol belongs to."""
    if symbol.startswith("[k]") or "kernel" in library:
        return "kernel"
    if library.startswith(("libc.", "libc-", "ld-", "[vdso]")):
        return "libc"
    if "ctypes" in library or "ffi" in library:
        return "ctypes"
    if EVAL_LOOP in symbol:
        return "interpreter: bytecode"
    return "interpreter: other" if "python" in library else "the program itself"


if __name__ == "__main__":
    main()
