"""The processes of one server: started on given CPUs, timed, weighed and ended together."""

import os
import re
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build/bench"
OUTPUT = BUILD / "output"
"""What each server said on standard output and error."""

PREFIX = "netsrvd-bench-"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
END_SECONDS = 3

UNPACKED = BUILD / "debian"
ENVIRONMENT = {
    "PATH": f"{os.environ['PATH']}:/usr/sbin:{UNPACKED}/usr/bin:{UNPACKED}/usr/sbin",
    "HOME": os.environ.get("HOME", "/"),
    "LANG": "C.UTF-8",
}

INTO_CGROUP = '[ -z "$0" ] || echo 0 >"$0/cgroup.procs"; exec taskset --cpu-list "$@"'


def cgroup_home() -> Path | None:
    """Return this process's folder in the hierarchy of version 2, if there is one.

    Where version 1 has the CPU controller (a hybrid host), the clock of version 2 still runs.
    """
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    tops = [where for _, where, kind, *_ in mounts if kind == "cgroup2"]
    own = re.search(r"^0::/(.*)$", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
    return Path(tops[0]) / own[1] if tops and own else None


@dataclass(frozen=True)
class Memory:
    """Pages in memory; shared ones count once a process in `rss`, by their share in `pss`."""

    rss_kib: int
    pss_kib: int


class Box:
    """A cgroup whose clock also counts processes that have ended.

    Without root there is no cgroup; then it is the sessions that were started, and their clocks
    are those of /proc: in steps of 10 ms, without the children that no process has waited for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._leaders: list[subprocess.Popen[bytes]] = []
        self._home: Path | None = None
        with suppress(OSError):
            self._home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=cgroup_home() or "/dev/null"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, command: list[str], cpus: str) -> None:
        """Start a process in the box, on these CPUs."""
        OUTPUT.mkdir(parents=True, exist_ok=True)
        with (OUTPUT / self.name).open("ab") as output:
            process = subprocess.Popen(
                ["sh", "-c", INTO_CGROUP, str(self._home or ""), cpus, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        self._leaders.append(process)

    def pids(self) -> list[int]:
        """Return the processes that are alive."""
        if self._home:
            inside = map(int, (self._home / "cgroup.procs").read_text().split())
            entering = (leader.pid for leader in self._leaders if leader.poll() is None)
            return [*{*inside, *entering}]
        sessions = {str(leader.pid) for leader in self._leaders}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                state, _, _, session = _stat(folder / "stat")[:4]
                if session in sessions and state != "Z":
                    found.append(int(folder.name))
        return found

    def clocks(self) -> list[str]:
        """Return the files that tell the CPU time; see server_cpu_us() in src/load.h."""
        if self._home:
            return [f"{self._home}/cpu.stat"]
        return [f"/proc/{pid}/stat" for pid in self.pids()]

    def cpu_us(self) -> int:
        """Return the CPU time so far."""
        if self._home:
            return int((self._home / "cpu.stat").read_text().split()[1])
        ticks = 0
        for clock in self.clocks():
            with suppress(OSError):
                ticks += sum(map(int, _stat(Path(clock))[11:15]))
        return ticks * 1_000_000 // TICKS_PER_SECOND

    def settle(self, patience: float = 10) -> None:
        """Wait until nothing is done any more, but for the last connections of a slow server."""
        deadline = time.monotonic() + patience
        before = self.cpu_us()
        while time.monotonic() < deadline:
            time.sleep(0.02)
            if (spent := self.cpu_us()) - before < 1000:
                return
            before = spent

    def memory(self) -> Memory:
        """Return the memory of all processes together."""
        rss = pss = 0
        for pid in self.pids():
            with suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                rss += int(re.search(r"^Rss: +(\d+)", text, re.MULTILINE)[1])
                pss += int(re.search(r"^Pss: +(\d+)", text, re.MULTILINE)[1])
        return Memory(rss, pss)

    def pin(self, cpus: set[int]) -> None:
        """Move all threads to these CPUs."""
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), cpus)

    def end(self) -> None:
        """Ask all processes to end, then kill those that did not."""
        for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, 10)):
            for pid in self.pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + seconds
            while self.pids() and time.monotonic() < deadline:
                time.sleep(0.005)
        for leader in self._leaders:
            leader.wait()
        with suppress(ChildProcessError):  # orphans come to this process, PID 1 of its namespace
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if self._home:
            self._home.rmdir()


def _stat(path: Path) -> list[str]:
    """Return the words of /proc/PID/stat from the third one on."""
    return path.read_text().rpartition(") ")[2].split()
