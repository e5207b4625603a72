"""Runs a soak on a real Debian in systemd-nspawn and leaves what it saw in a folder.

    python -m tests.soak.driver FOLDER SECONDS SUITE

Lines of JSON in FOLDER: samples.jsonl (processes, each 10 s), actions.jsonl (what was done and how
it ended), statuses.jsonl, scrapes.jsonl, load.jsonl, journal.jsonl; probe-*.csv; run.json in the
end. `python -m tests.soak.report FOLDER` makes the report from them. A fault of one action is noted
and the run goes on.
"""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from tests.soak import load
from tests.support.installed import SERVICE, main_pid, shown
from tests.support.machine import Machine

ROOT = Path(__file__).parents[2]
FULL_SECONDS = 7200
SAMPLE_SECONDS, STATUS_SECONDS, FETCH_SECONDS = 10, 60, 600
THERE = "/srv/soak"
CONFIG = "/etc/netsrvd/conf.d/soak.toml"
CHANGED = "/etc/netsrvd/conf.d/soak-changed.toml"
FAULTY = "/etc/netsrvd/conf.d/soak-faulty.toml"
LOAD_NICE = 10

JOURNALD = """\
[Journal]
Storage=persistent
SystemMaxUse=4G
SystemKeepFree=64M
"""

QUOTES = "/etc/netsrvd/quotes"
NEEDS = {"qotd": f'quotes = "{QUOTES}"\n', "active": 'active_listeners = ["strict"]\n'}

BASE = f"""\
[listener.metrics]
service = "metrics"
host = ["127.0.0.1", "::1"]
port = {load.METRICS}
unlogged = []
max_connections = 100
[listener.stamp]
service = "stamp"
protocols = ["udp"]
port = {load.STAMP}
[listener.strict]
port = {load.STRICT}
unlimited = []
deny = ["127.9.0.0/16"]
max_connections = 100
max_connections_per_source = 20
connection_rate = 20
connection_burst = 40
datagram_rate = 100
datagram_burst = 200
idle_timeout = "20s"
write_timeout = "10s"
""" + "".join(
    f'[listener.{name}]\nservice = "{name}"\nport = {port}\nmax_connections = 100\n'
    + NEEDS.get(name, "")
    for name, port in load.SERVICES.items()
)

ECHO = "[listener.echo]\nmax_connections = 5000\n"
"""All limits together are below that on descriptors, which is 20,000 on some hosts."""

FIELDS = (
    *("MESSAGE", "MESSAGE_ID", "PRIORITY", "SYSLOG_IDENTIFIER", "_PID", "_SYSTEMD_UNIT", "UNIT"),
    *("NETSRVD_CONNECTION", "NETSRVD_LISTENER", "NETSRVD_REASON", "NETSRVD_PEER_PORT"),
    *("NETSRVD_BYTES_RECEIVED", "NETSRVD_BYTES_SENT", "NETSRVD_TIMES", "NETSRVD_PROTOCOL"),
    *("NETSRVD_ACCEPTED", "NETSRVD_RESTORED", "NETSRVD_CLOSED", "NETSRVD_CLOSED_REASONS"),
    *("NETSRVD_REFUSED", "NETSRVD_REFUSED_REASONS", "NETSRVD_HANDED_OVER", "NETSRVD_CUT"),
    *("NETSRVD_RECORDS", "NETSRVD_RECORDS_LOST", "NETSRVD_CONNECTIONS", "NETSRVD_LOST"),
    *("NETSRVD_SECONDS", "NETSRVD_FLOWS", "NETSRVD_FLOWS_ENDED", "NETSRVD_DATAGRAMS_RECEIVED"),
    *("NETSRVD_DATAGRAMS_SENT", "NETSRVD_DATAGRAMS_REFUSED", "NETSRVD_DATAGRAMS_DROPPED"),
    *("NETSRVD_DATAGRAMS_UNSENT", "NETSRVD_DATAGRAMS_TRUNCATED", "NETSRVD_TRACEBACK"),
    *("NETSRVD_DATAGRAMS_REFUSED_REASONS", "NETSRVD_DRAINED", "NETSRVD_VERSION", "NETSRVD_ERROR"),
)
"""What the report reads of the journal's records."""


class Run:
    """One soak. The main thread acts, a second one samples; each file has one writer."""

    def __init__(self, machine: Machine, folder: Path, seconds: float) -> None:
        self.machine, self.folder, self.seconds = machine, folder, seconds
        self.scale = max(1.0, FULL_SECONDS / seconds)
        """By how much the pauses between actions are shorter than in a full run."""
        self.began = time.monotonic()
        self.over = threading.Event()
        self.numbers: dict[str, int] = {}

    def write(self, name: str, **line: object) -> None:
        """Add a line to one of the files."""
        times = {"t": time.time(), "s": round(time.monotonic() - self.began, 1)}
        with (self.folder / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(times | line) + "\n")

    def number(self, what: str) -> int:
        """Return how often this was asked before."""
        self.numbers[what] = self.numbers.get(what, -1) + 1
        return self.numbers[what]

    # What is looked at.

    def sample(self, when: str = "load") -> None:
        """Write what the daemon's process has and uses, as the host's /proc says."""
        cpu = (self.machine.cgroup / "cpu.stat").read_text().split()
        more = {"when": when, "machine_cpu_seconds": int(cpu[1]) / 1e6}
        more["kernel_drops"] = kernel_drops(self.machine)
        for pid in service_pids(self.machine):
            with suppress(OSError):  # it has ended meanwhile
                self.write("samples", **process(pid), **more)
                return
        self.write("samples", pid=0, **more)

    def sampling(self) -> None:
        """Sample until all is over."""
        number = 0
        began = time.monotonic()
        while not self.over.wait(max(0, began + number * SAMPLE_SECONDS - time.monotonic())):
            number += 1
            try:
                self.sample()
            except Exception as error:  # noqa: BLE001 - the run must go on
                self.write("trouble", what="sample", error=repr(error))

    def status(self, name: str = "statuses") -> dict[str, Any]:
        """Write what `netsrvd status` says."""
        done = self.machine.run("nice", "netsrvd", "status", "--json", check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        self.write(name, code=done.returncode, status=found)
        return found

    def fetch(self) -> None:
        """Bring the journal's new records and the files of the load to the folder."""
        self.machine.run("journalctl", "--sync")
        command = [
            *("journalctl", "--quiet", "--no-pager", "--all", "--output=json", "--boot"),
            *(f"--cursor-file={THERE}/cursor", f"--output-fields={','.join(FIELDS)}"),
        ]
        with (self.folder / "journal.jsonl").open("ab") as file:
            subprocess.run(
                self.machine.command("nice", "-n", str(LOAD_NICE), *command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                check=True,
                timeout=600,
            )
        there = Path(f"/proc/{self.machine.pid}/root{THERE}")
        for path in there.iterdir():
            if path.suffix in {".jsonl", ".csv", ".err"}:
                (self.folder / path.name).write_bytes(path.read_bytes())

    # What is done.

    def systemctl(self, *argv: str, fails: bool = False) -> dict[str, Any]:
        """Run systemctl, which is to succeed, or to fail."""
        done = self.machine.run("systemctl", *argv, check=False, timeout=120)
        return {"ok": (done.returncode != 0) == fails, "said": (done.stdout + done.stderr)[-500:]}

    def configure(self, path: str, text: str) -> None:
        """Write a file of the configuration."""
        self.machine.run("sh", "-c", f"cat >{path}", input=text)

    def restart(self) -> dict[str, Any]:
        pid = main_pid(self.machine)
        found = self.systemctl("restart", SERVICE)
        return found | {"ok": found["ok"] and main_pid(self.machine) != pid}

    def reload_good(self) -> dict[str, Any]:
        seconds = 600 + self.number("reload")
        self.configure(CONFIG, f"{BASE}{ECHO}idle_timeout = {seconds}\n")
        return self.systemctl("reload", SERVICE)

    def reload_faulty(self) -> dict[str, Any]:
        self.configure(FAULTY, "nonsense = 1\n")
        found = self.systemctl("reload", SERVICE, fails=True)
        self.machine.run("rm", FAULTY)
        return found

    def apply(self) -> dict[str, Any]:
        """Bring in, move or remove one more listener, in turn."""
        ports = (load.EXTRA[0], load.EXTRA[1], 0)
        port = ports[self.number("apply") % 3]
        if port:
            self.configure(CHANGED, f"[listener.extra]\nport = {port}\nmax_connections = 1000\n")
        else:
            self.machine.run("rm", "-f", CHANGED)
        done = self.machine.run("netsrvd", "apply", check=False, timeout=120)
        said = (done.stdout + done.stderr)[-700:]
        return {"ok": done.returncode == 0 and said.endswith("in force\n"), "said": said}

    def apply_nothing(self) -> dict[str, Any]:
        """See that there is nothing to do, and what check says."""
        done = self.machine.run("netsrvd", "check", check=False)
        return {"ok": done.returncode == 0, "said": done.stderr[-500:]}

    def upgrade(self) -> dict[str, Any]:
        pid = main_pid(self.machine)
        done = self.machine.run(
            "apt-get", "install", "--yes", f"{THERE}/next.deb", check=False, timeout=300
        )
        said = (done.stdout + done.stderr)[-500:]
        return {"ok": done.returncode == 0 and main_pid(self.machine) != pid, "said": said}

    def storm(self) -> dict[str, Any]:
        message = ["x"] if self.number("storm") % 2 else []
        argv = ["python3", f"{THERE}/storm.py", str(load.ECHO), "2500", "5", *message]
        done = self.machine.run("nice", "-n", str(LOAD_NICE), *argv, timeout=120)
        return {"ok": True, "connections": int(done.stdout)}

    def plan(self) -> list[tuple[float, str, Callable[[], dict[str, Any]]]]:
        """Return what is done and when: restarts in the first half, one process in the second."""
        full = [
            *every(110, 3590, 300, "restart", self.restart),
            *every(230, 3590, 420, "apply", self.apply),
            *every(80, 6900, 180, "reload", self.reload_good),
            *every(400, 6900, 720, "faulty reload", self.reload_faulty),
            *every(170, 6900, 200, "storm", self.storm),
            *every(500, 6900, 900, "check", self.apply_nothing),
            (3650, "upgrade", self.upgrade),
            *every(6630, 6760, 60, "restart", self.restart),
            (6800, "apply", self.apply),
        ]
        warm_up = min(60.0, self.seconds / 5)
        rest = (self.seconds - warm_up) / FULL_SECONDS
        return [(warm_up + at * rest, name, action) for at, name, action in full]

    def act(self, name: str, action: Callable[[], dict[str, Any]]) -> None:
        """Do something, and note how it ended."""
        began = time.time()
        try:
            found = action()
        except Exception as error:  # noqa: BLE001 - the run must go on
            found = {"ok": False, "error": repr(error)[-1500:]}
        self.write("actions", action=name, began=began, **found)

    def go(self) -> None:
        """Do all at its time."""
        plan = self.plan()
        looks = [
            *every(30, self.seconds, STATUS_SECONDS, "status", lambda: {"ok": bool(self.status())}),
            *every(FETCH_SECONDS, self.seconds, FETCH_SECONDS, "fetch", self.fetching),
        ]
        for at, name, action in sorted(plan + looks, key=lambda each: each[0]):
            time.sleep(max(0, self.began + at - time.monotonic()))
            self.act(name, action)
        time.sleep(max(0, self.began + self.seconds - time.monotonic()))

    def fetching(self) -> dict[str, Any]:
        self.fetch()
        return {"ok": True}


def every(
    first: float, last: float, step: float, name: str, action: Callable[[], dict[str, Any]]
) -> Iterator[tuple[float, str, Callable[[], dict[str, Any]]]]:
    """Yield an action with each of its times, in seconds."""
    at = first
    while at < last:
        yield at, name, action
        at += step


def service_pids(machine: Machine) -> list[int]:
    """Return the PIDs on this host of daemons of the service."""
    found = []
    for path in machine.cgroup.glob(f"**/{SERVICE}/cgroup.procs"):
        for pid in map(int, path.read_text().split()):
            with suppress(OSError):
                argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if argv[-2:-1] == [b"run"]:
                    found.append(pid)
    return found


def kernel_drops(machine: Machine) -> int:
    """Return how many datagrams the kernel has dropped at the daemon's UDP sockets that are there.

    It counts by the socket, whichever process has it, and also while none reads.
    """
    ports = {load.ECHO, load.STAMP, load.STRICT, *load.SERVICES.values()}
    drops = 0
    for name in ("udp", "udp6"):
        for line in Path(f"/proc/{machine.pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if int(words[1].rpartition(":")[2], 16) in ports:
                drops += int(words[-1])
    return drops


def process(pid: int) -> dict[str, Any]:
    """Return what a process has and uses."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    rollup = (proc / "smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
    stat = (proc / "stat").read_text().rpartition(")")[2].split()
    return {
        "pid": int(status["NSpid"].split()[-1]),
        "rss_kib": int(status["VmRSS"].split()[0]),
        "pss_kib": kib["Pss"],
        "descriptors": sum(1 for _ in (proc / "fd").iterdir()),
        "threads": int(status["Threads"]),
        "cpu_seconds": (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
    }


def package() -> Path:
    """Return the package that `make deb` has built last."""
    built = (ROOT / "build/deb").glob("netsrvd_*_all.deb")
    return max(built, key=lambda path: path.stat().st_mtime)


def next_package(folder: Path) -> Path:
    """Make the same package with a higher version."""
    tree = folder / "next"
    subprocess.run(["dpkg-deb", "-R", package(), tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines(keepends=True)
    versions = [
        f"{line.rstrip()}+soak1\n" if line.startswith("Version:") else line for line in lines
    ]
    control.write_text("".join(versions))
    made = folder / "next.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, made], check=True)
    subprocess.run(["rm", "-r", tree], check=True)
    return made


def prepare(run: Run) -> None:
    """Install the package, set it up and have it serve."""
    machine = run.machine
    machine.run("mkdir", "-p", THERE, "/etc/systemd/journald.conf.d")
    root = Path(f"/proc/{machine.pid}/root{THERE}")
    programs = [Path(load.__file__), ROOT / "tests/support/storm.py"]
    for path in (*programs, package(), next_package(run.folder)):
        (root / path.name).write_bytes(path.read_bytes())
    machine.run("sh", "-c", "cat >/etc/systemd/journald.conf.d/soak.conf", input=JOURNALD)
    machine.run("systemctl", "restart", "systemd-journald")
    machine.run("apt-get", "install", "--yes", f"{THERE}/{package().name}", timeout=300)
    run.configure(QUOTES, "Patience is a virtue.\n%\nTime will tell.\n")
    run.configure(CONFIG, BASE + ECHO)
    machine.run("netsrvd", "apply", timeout=120)
    machine.run("systemctl", "start", SERVICE)


def probes(run: Run) -> Iterator[subprocess.Popen[bytes]]:
    """Start probes that run to the end."""
    seconds = max(10, int(run.seconds - 5))
    kinds = {"udp": ["--udp", f"[::1]:{load.ECHO}"], "tcp": ["--tcp", f"127.0.0.1:{load.ECHO}"]}
    kinds["stamp"] = ["--stamp", f"127.0.0.1:{load.STAMP}"]
    for name, argv in kinds.items():
        options = f"--csv -n 0 --duration {seconds}s -i 1s -W 20s"
        program = f'exec nice -n {LOAD_NICE} netsrvd probe {options} "$@" >{THERE}/probe-{name}.csv'
        yield subprocess.Popen(
            run.machine.command("sh", "-c", f"{program} 2>{THERE}/probe-{name}.err", "sh", *argv),
            stdin=subprocess.DEVNULL,
        )


def wait_quiet(run: Run) -> dict[str, Any]:
    """Return the status once no connection is live, and the figures of a scrape besides."""
    deadline = time.monotonic() + 120
    while True:
        [daemon] = run.status("final")["daemons"]
        rows = daemon["status"]["listeners"]
        live = sum(row["gauges"].get("connections", 0) for row in rows if row["name"] != "metrics")
        if not live or time.monotonic() > deadline:
            text = run.machine.run("curl", "-sf", f"http://127.0.0.1:{load.METRICS}/metrics").stdout
            return {"status": daemon, "figures": load.figures(text), "live": live}
        time.sleep(1)


def journald(machine: Machine) -> IO[str] | str:
    """Return what systemd-journald says of itself, its losses above all."""
    return machine.run("journalctl", "--no-pager", "-u", "systemd-journald", check=False).stdout


def soak(run: Run) -> dict[str, Any]:
    """Run it all; return what is known besides the lines."""
    machine = run.machine
    prepare(run)
    pid = main_pid(machine)
    argv = ["nice", "-n", str(LOAD_NICE), "python3", f"{THERE}/load.py", THERE, str(run.scale)]
    run.sample("before")
    run.began = time.monotonic()
    found: dict[str, Any] = {"began": time.time(), "first_pid": pid, "scale": run.scale}
    errors = (run.folder / "load.err").open("wb")
    with ExitStack() as stack:
        stack.enter_context(errors)
        sampler = threading.Thread(target=run.sampling)
        sampler.start()
        stack.callback(sampler.join)
        stack.callback(run.over.set)
        clients = subprocess.Popen(
            machine.command(*argv), stdin=subprocess.PIPE, stdout=errors, stderr=errors
        )
        probing = [*probes(run)]
        run.go()
        found["probes"] = [each.wait(120) for each in probing]
        clients.communicate(timeout=180)
        found["load"] = clients.returncode
        found["ended"] = time.time()
    found |= wait_quiet(run)
    time.sleep(1)
    run.sample("after")
    found["pid"] = main_pid(machine)
    found["restarts_by_systemd"] = shown(machine, "NRestarts")
    found["journald"] = journald(machine)
    machine.run("systemctl", "stop", SERVICE, timeout=120)
    found["result"] = shown(machine, "Result")
    run.fetch()
    found["journal_bytes"] = machine.run("journalctl", "--disk-usage").stdout.strip()
    return found


def commit() -> str:
    """Return the commit of the working tree."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return said.stdout.strip()


def main(folder: str, seconds: str, suite: str) -> None:
    """Run a soak."""
    into = Path(folder)
    into.mkdir(parents=True)
    tree = subprocess.run(
        [ROOT / "tests/system/trees", suite], stdout=subprocess.PIPE, text=True, check=True
    )
    about = {"seconds": float(seconds), "suite": suite, "commit": commit()}
    about |= {"kernel": platform.release(), "cores": os.cpu_count()}
    with Machine(suite, Path(tree.stdout.strip())) as machine:
        about["systemd"] = machine.run("systemctl", "--version").stdout.splitlines()[0]
        about["python"] = machine.run("python3", "--version").stdout.strip()
        run = Run(machine, into, float(seconds))
        try:
            about |= soak(run)
        except BaseException as error:
            about["failed"] = repr(error)
            with suppress(Exception):
                run.fetch()
            raise
        finally:
            about["version"] = machine.run("netsrvd", "--version", check=False).stdout.strip()
            (into / "run.json").write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
