"""Where everything is measured: namespaces of their own, with a journal in them.

The network is the loopback alone, so every port is free and 192.0.2.1 can be a stranger. /run and
/dev are private, so that the journal and /dev/log are those of the bench: a real journald, of the
machine's own systemd. PIDs are private, so that whatever was started ends with the driver.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.boxes import PREFIX, Box, cgroup_home

ON_STAGE = "NETSRVD_BENCH_ON_STAGE"
STRANGER = "192.0.2.1"
"""An address (RFC 5737) that the default configuration does not answer."""

JOURNALD = "/usr/lib/systemd/systemd-journald"
SOCKET = "/run/systemd/journal/socket"
QUEUE = "/proc/sys/net/unix/max_dgram_qlen"
STORE = Path("/run/log/journal")
SLOW_LOG = Path(__file__).with_name("peers") / "slow_log.py"

# As systemd does at boot, 512 datagrams may wait in a Unix socket, not 10 (only root can say so).
# The unit of netsrvd lifts the journal's rate limit for itself; here it is lifted for all servers.
SET_UP = f"""
ip link set lo up
ip address add {STRANGER}/32 dev lo
[ ! -e {QUEUE} ] || echo 512 >{QUEUE}
mount -t tmpfs tmpfs /run
mkdir -p /run/dev /run/systemd/journal /run/systemd/journald.conf.d
mount --rbind /dev /run/dev
mount -t tmpfs tmpfs /dev
ln -s /run/dev/* /dev
ln -sfn /run/systemd/journal/dev-log /dev/log
printf '%s\\n' '[Journal]' Storage=volatile RateLimitIntervalSec=0 RuntimeMaxUse=1G ReadKMsg=no \
    Audit=no >/run/systemd/journald.conf.d/bench.conf
exec "$@"
"""


def enter(module: str = "tests.bench.run") -> None:
    """Return on the stage. Elsewhere this process is replaced by one that runs a module there."""
    if ON_STAGE in os.environ:
        return
    if home := cgroup_home():
        for left_behind in home.glob(PREFIX + "*"):
            with suppress(OSError):  # of a run that goes on
                left_behind.rmdir()
    spaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        spaces += ["--user", "--map-root-user"]
    again = [sys.executable, "-m", module, *sys.argv[1:]]
    os.environ[ON_STAGE] = "yes"
    os.execvp("unshare", ["unshare", *spaces, "sh", "-ec", SET_UP, "sh", *again])


@contextmanager
def journal(cpus: str) -> Iterator[Box]:
    """Run a real journald with an empty journal."""
    shutil.rmtree(STORE, ignore_errors=True)
    with _log_daemon("journald", [JOURNALD], cpus) as box:
        yield box


@contextmanager
def slow_log(records_per_second: int, cpus: str) -> Iterator[Box]:
    """Run a program in the journal's place that takes only this number of records a second."""
    command = [sys.executable, str(SLOW_LOG), SOCKET, str(records_per_second)]
    with _log_daemon("slow log", command, cpus) as box:
        yield box


@contextmanager
def _log_daemon(name: str, command: list[str], cpus: str) -> Iterator[Box]:
    Path(SOCKET).unlink(missing_ok=True)
    with Box(name) as box:
        box.start(command, cpus)
        deadline = time.monotonic() + 10
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            while sock.connect_ex(SOCKET):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name} does not listen")
                time.sleep(0.01)
        yield box


def records(identifier: str) -> int:
    """Return how many records of this SYSLOG_IDENTIFIER the journal has."""
    command = ["journalctl", "--quiet", "--output=cat", "--directory", str(STORE), "-t", identifier]
    listing = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return listing.stdout.count(b"\n")
