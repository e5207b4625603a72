"""A real Debian with systemd as PID 1, in systemd-nspawn, from a tree that stays as it was."""

import json
import os
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Self

BOOT_SECONDS = 240
TEST_PORTS = "51400-51699"  # no connection that a test makes may have one of them on its own side
POWER_OFF_SECONDS = 120
COMMAND_SECONDS = 400
"""How long a command may take on a machine that has other work."""

# Runs in a mount namespace of its own: what is mounted here ends with the machine, however that
# ends. The tmpfs on /run also keeps the records that nspawn makes there off the host.
LAUNCH = """
echo $$ >"$CGROUP/cgroup.procs" &&
mount -t tmpfs tmpfs /run &&
mkdir /run/changes /run/work /run/root &&
mount -t overlay overlay -o lowerdir=.,upperdir=/run/changes,workdir=/run/work /run/root &&
exec "$@"
"""

# Starts it once more, where it was mounted.
AGAIN = """
echo $$ >"$CGROUP/cgroup.procs" &&
exec "$@"
"""

# Gives a tmpfs the size of what is in it. (Where the disk is mounted it is in /run as well.)
SHRINK = """
used=$(df --block-size=1k --output=used /run | tail -n 1 | tr -d ' ')
mount -o "remount,size=${used}k" /run
"""

# Reads a pipe from the test process to its end, which comes even if that process is killed.
GUARD = 'cat; echo 1 >"$1/cgroup.kill"'

# bpf(2) and its capabilities are what IPAddressDeny=, SocketBindDeny= and DevicePolicy= are made
# of; nspawn withholds them, and systemd then leaves these directives out without a word.
NSPAWN = [
    *["systemd-nspawn", "--directory=/run/root", "--boot", "--register=no", "--keep-unit"],
    *["--private-network", "--notify-ready=yes", "--console=pipe"],
    *["--resolv-conf=off", "--timezone=off"],
    *["--capability=CAP_BPF,CAP_PERFMON", "--system-call-filter=bpf"],
]

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class MachineError(Exception):
    """The machine did not boot, or a command in it failed."""


class Machine:
    """One boot of a tree; all it writes goes to memory and is gone after `power_off`.

    Owned by the test thread. It ends with the test process at the latest, even a killed one.
    """

    def __init__(self, suite: str, tree: Path) -> None:
        """Describe the machine; `boot` starts it."""
        self.suite = suite
        self.pid = 0
        self.cgroup = Path()
        self._tree = tree
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Boot."""
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        """Power off."""
        self.power_off()

    def boot(self) -> None:
        """Return when systemd has finished its start-up; a failed boot leaves nothing behind."""
        if os.geteuid() != 0:
            raise MachineError("a machine needs root, for systemd-nspawn")
        with ExitStack() as undo:
            self.cgroup = undo.enter_context(own_cgroup())
            own_mounts = ["unshare", "--mount", "--propagation=private"]
            nspawn = self._start_up(undo, [*own_mounts, "sh", "-c", LAUNCH, "sh"])
            mounts = os.open(f"/proc/{nspawn.pid}/ns/mnt", os.O_RDONLY)
            undo.callback(os.close, mounts)
            self._nspawn, self._mounts = nspawn, mounts
            self._undo = undo.pop_all()

    def reboot(self) -> None:
        """Restart the machine from what is on its disk; return when its start-up is over.

        What was added to its network is gone, as nspawn makes it a new one.
        """
        self.run("systemctl", "reboot", check=False)  # it may end before the command does
        self._nspawn.wait(POWER_OFF_SECONDS)
        self._nspawn = self._start_up(self._undo, [*self._in_mounts, "sh", "-c", AGAIN, "sh"])

    @property
    def _in_mounts(self) -> list[str]:
        """The words before a command of the host that sees the machine's disk mounted."""
        return ["nsenter", f"--mount=/proc/{os.getpid()}/fd/{self._mounts}", "--wd=/"]

    def _start_up(self, undo: ExitStack, launcher: list[str]) -> subprocess.Popen[bytes]:
        notices = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notices.bind("")  # the kernel chooses an abstract name
        console = undo.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - this is one
        nspawn = subprocess.Popen(
            [*launcher, *NSPAWN, f"--machine={self.suite}"],
            cwd=self._tree,
            env=ENVIRONMENT
            | {
                "CGROUP": str(self.cgroup),
                "NOTIFY_SOCKET": "@" + notices.getsockname()[1:].decode(),
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests; they power the machine off
        )
        undo.callback(end, nspawn)
        self.pid = wait_ready(nspawn, notices, console)
        notices.close()  # with nobody reading, nspawn would hang at what systemd tells later
        state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        if state not in {"running", "degraded"}:
            raise MachineError(f"{self.suite} started up to be {state or 'unreachable'}")
        self.run("sysctl", "-q", f"net.ipv4.ip_local_reserved_ports={TEST_PORTS}")
        return nspawn

    def power_off(self) -> None:
        """Shut the machine down and end what does not; harmless when it is off."""
        self._undo.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have every process of the machine stand still meanwhile, as a hypervisor does."""
        (self.cgroup / "cgroup.freeze").write_text("1")
        try:
            wait_event(self.cgroup, "frozen 1")
            yield
        finally:
            (self.cgroup / "cgroup.freeze").write_text("0")

    @contextmanager
    def full(self, *places: str) -> Iterator[None]:
        """Leave no room on the disk (`/`), or in `/run`, meanwhile."""
        ways = [[*self._in_mounts] if place == "/" else self.command() for place in places]
        for way in ways:
            subprocess.run([*way, "sh", "-ec", SHRINK], check=True)
        try:
            yield
        finally:
            for way in ways:
                subprocess.run([*way, "mount", "-o", "remount,size=20%", "/run"], check=True)

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs `argv` in the machine as root, for `Popen`."""
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        enter = ["nsenter", f"--target={self.pid}", "--all", "--"]
        return [*enter, "env", "--ignore-environment", "--chdir=/", *environment, *argv]

    def beside(self, *argv: str) -> list[str]:
        """Return the command line that runs `argv` of the host in the machine's network."""
        return ["nsenter", f"--target={self.pid}", "--net", "--", *argv]

    def run(
        self,
        *argv: str,
        check: bool = True,
        input: str | None = None,  # noqa: A002  # the name it has in subprocess.run
        timeout: float = COMMAND_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` in the machine as root to its end; raises MachineError if it fails.

        A command that outlives its time limit ends with the machine.
        """
        done = subprocess.run(
            self.command(*argv),
            input=input or "",
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise MachineError(
                f"{self.suite}: {shlex.join(argv)} ended with {done.returncode}\n"
                f"{done.stdout}{done.stderr}",
            )
        return done

    def copy_in(self, path: Path) -> str:
        """Copy a file or folder of the host into /srv of the machine; return its path there."""
        there = f"/srv/{path.name}"
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, f"/proc/{self.pid}/root{there}")
        return there

    def journal(self, *args: str) -> list[dict[str, Any]]:
        """Return the journal's records that `args` of journalctl select, with all their fields.

        What was written to the journal's sockets before this call is in it.
        """
        self.run("journalctl", "--sync")
        listing = self.run("journalctl", "--quiet", "--no-pager", "--all", "--output=json", *args)
        return [json.loads(line) for line in listing.stdout.splitlines()]


def cgroup_homes() -> list[Path]:
    """Return this process's cgroup in the unified hierarchy, then its twin on a hybrid host."""
    top = Path("/sys/fs/cgroup")
    is_hybrid = (top / "unified").is_dir()
    listing = Path("/proc/self/cgroup").read_text().splitlines()
    [own] = [line.removeprefix("0::/") for line in listing if line.startswith("0::/")]
    return [top / "unified" / own, top / "systemd" / own] if is_hybrid else [top / own]


@contextmanager
def own_cgroup() -> Iterator[Path]:
    """Make a cgroup for one machine; in the end kill what is left in it, and remove it.

    On a hybrid host nspawn gives it a twin of the same name in systemd's v1 hierarchy.
    """
    cgroup = Path(tempfile.mkdtemp(prefix="netsrvd-machine-", dir=cgroup_homes()[0]))
    guard = subprocess.Popen(
        ["sh", "-c", GUARD, "sh", cgroup], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield cgroup
    finally:
        guard.communicate()
        wait_empty(cgroup)
        for home in cgroup_homes():
            for folder, _, _ in os.walk(home / cgroup.name, topdown=False):
                Path(folder).rmdir()


def wait_empty(cgroup: Path) -> None:
    """Return when no process is left in the cgroup."""
    wait_event(cgroup, "populated 0")


def wait_event(cgroup: Path, line: str) -> None:
    """Return when cgroup.events has this line; the kernel announces a change as POLLPRI."""
    deadline = time.monotonic() + POWER_OFF_SECONDS
    with (cgroup / "cgroup.events").open() as events:
        change = select.poll()
        change.register(events, select.POLLPRI)
        while line not in events.read():
            if not change.poll(1000 * max(0, deadline - time.monotonic())):
                raise MachineError(f"{cgroup} does not come to be {line}")
            events.seek(0)


def wait_ready(nspawn: subprocess.Popen[bytes], notices: socket.socket, console: IO[bytes]) -> int:
    """Return the PID of the machine's systemd once it says that start-up is over."""
    pid = 0
    deadline = time.monotonic() + BOOT_SECONDS
    ended = os.pidfd_open(nspawn.pid)
    try:
        while True:
            patience = max(0, deadline - time.monotonic())
            speakers, _, _ = select.select([notices.fileno(), ended], [], [], patience)
            if notices.fileno() not in speakers:
                console.seek(0)
                raise MachineError(f"the machine did not boot\n{console.read().decode()}")
            notice = notices.recv(4096).decode().splitlines()
            fields = {name: value for name, _, value in (line.partition("=") for line in notice)}
            pid = int(fields.get("X_NSPAWN_LEADER_PID", pid))
            if pid and fields.get("READY") == "1":
                return pid
    finally:
        os.close(ended)


def end(nspawn: subprocess.Popen[bytes]) -> None:
    """Have nspawn shut its machine down, or kill both when that takes too long."""
    nspawn.terminate()
    try:
        nspawn.wait(POWER_OFF_SECONDS)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()
