"""`make fuzz`: feeds each target with what atheris makes up, for a bounded time.

Without a TARGET all of them run, one after the other, each in a process of its own: the fuzzer ends
the process it is in. The inputs that reach new code stay in build/fuzz/corpus, for the next run.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/fuzz"
SEEDS = ROOT / "tests/data/fuzz"

LONGEST_BYTES = 4096
"""Of one input; longer ones reach no code that these do not, but for the limits on lengths."""
SLOWEST_SECONDS = 10
"""What takes longer counts as a finding: the usual input takes a millisecond."""
MOST_MEMORY_MB = 1024


def main() -> None:
    """Run one target or all; end with a failure status on a finding."""
    arguments = parser().parse_args()
    if arguments.target:
        fuzz(arguments.target, arguments.seconds)
    from tests.fuzz.targets import TARGETS

    verdicts = {name: run(name, arguments.seconds) for name in TARGETS}
    print("\n" + "\n".join(f"{name:14} {verdict}" for name, verdict in verdicts.items()))
    failed = [name for name, verdict in verdicts.items() if not verdict.startswith("kept")]
    sys.exit(f"\nfuzz: failed: {', '.join(failed)}" if failed else 0)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="tests.fuzz.run", description=__doc__)
    top.add_argument("target", nargs="?", metavar="TARGET", help="a row of tests/fuzz/targets.py")
    top.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    return top


def run(target: str, seconds: int) -> str:
    """Fuzz one target in a process of its own; return the verdict, in words."""
    print(f"{target}: {seconds} s ...", flush=True)
    findings = BUILD / "findings" / target
    before = {*findings.glob("*")}
    command = [sys.executable, "-m", "tests.fuzz.run", target, f"--seconds={seconds}"]
    BUILD.mkdir(parents=True, exist_ok=True)
    log = BUILD / f"{target}.log"
    with log.open("wb") as stream:
        status = subprocess.run(command, cwd=ROOT, stdout=stream, stderr=stream, check=False)
    said = log.read_text(errors="replace")
    runs = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said) or ["0"]
    found = sorted({*findings.glob("*")} - before)
    if status.returncode == 0 and not found and int(runs[-1]):
        return f"kept its promise in {runs[-1]} runs"
    explain(target, found, said)
    return f"FAILED after {runs[-1]} runs; all that was said is in {log.relative_to(ROOT)}"


def explain(target: str, found: list[Path], said: str) -> None:
    """Show what went wrong, where the input is, and how it becomes a test."""
    lines = [line for line in said.splitlines() if not line.startswith(("#", "stat::"))]
    print("\n".join(f"    {line[:200]}" for line in lines[-25:]))
    for path in found:
        seed = SEEDS.relative_to(ROOT) / target / path.name
        print(f"  the input:       {path.relative_to(ROOT)}")
        print(f"  as a test:       cp {path.relative_to(ROOT)} {seed}")
        print(f"  run that test:   .venv/bin/pytest tests/unit/test_fuzz.py -k {path.name}")


def fuzz(target: str, seconds: int) -> None:
    """Feed a target in this process, which the fuzzer ends: 0, or a failure status on a finding."""
    import atheris

    parsers = ["netsrvd", "tests.fuzz", "tomllib", "ipaddress", "h11"]
    with atheris.instrument_imports(include=parsers):
        from tests.fuzz.targets import TARGETS

    if target not in TARGETS:
        sys.exit(f"there is no target {target}; there are: {', '.join(TARGETS)}")
    corpus, findings, seeds = BUILD / "corpus" / target, BUILD / "findings" / target, SEEDS / target
    for folder in (corpus, findings, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    options = {
        "max_total_time": seconds,
        "max_len": LONGEST_BYTES,
        "timeout": SLOWEST_SECONDS,
        "rss_limit_mb": MOST_MEMORY_MB,
        "print_final_stats": 1,
        "artifact_prefix": f"{findings}/",
    }
    flags = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *flags, str(corpus), str(seeds)], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
