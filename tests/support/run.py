"""The installed command as a child process, watched from its start to its end."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Self, TypeVar

from tests.support.patience import SECONDS

Found = TypeVar("Found")

COMMAND = Path(sys.executable).with_name("netsrvd")

PATIENCE = 2 * SECONDS
"""How long anything may take that needs another process."""

LOOK_SECONDS = 0.01
"""How often to look at what cannot be waited for, such as /proc."""

MEMORY_KB = 64 * 1024
"""What a run may need at most; one that serves nobody needs a third of it."""

MOST_DESCRIPTORS = 253
"""That one message can carry (SCM_MAX_FD in unix(7))."""

PREFIXED = re.compile(r"<[3-7]>")
"""The priority that begins each line for systemd (sd-daemon(3))."""

STAMPED = re.compile(r"(<[3-7]>)(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d) ")
"""The same with the time of the record, which it has where the journal does not add one."""

NO_SHORTCUT = "from netsrvd import server\nserver._is_echo = lambda _: False"
"""What has echo answered by its service in a run, which the loop does not call otherwise."""


def failing_echo(condition: str, error: str) -> str:
    """Return what has echo raise an error in a run, both Python; the condition is on `data`."""
    return f"""{NO_SHORTCUT}
from netsrvd.services.echo import Stream
def respond(self, data, respond=Stream.respond):
    if {condition}:
        raise {error}
    return respond(self, data)
Stream.respond = respond
"""


LOOPBACK = ["127.0.0.1", "::1"]

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONWARNINGS": "error",
}


QUICK = {"WATCHDOG_USEC": "400000"}
"""Gives a run a tick every 0.1 s, on which it looks at what changes by itself, instead of 5 s."""


def toml(table: Mapping[str, object], path: str = "") -> str:
    """Return nested mappings as TOML."""
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lines = [f"[{path}]"] if path else []
    lines += [f"{key} = {json.dumps(value)}" for key, value in table.items() if key not in tables]
    inner = [toml(value, f"{path}.{key}".lstrip(".")) for key, value in tables.items()]
    return "\n".join([*lines, *inner])


def echo(port: int, **keys: object) -> dict[str, object]:
    """Return a configuration that serves echo on loopback; `keys` are more of its listener's."""
    return {"listener": {"echo": {"host": LOOPBACK, "port": port, **keys}}}


def free_port(least: int = 0) -> int:
    """Return a port, at `least` this one, that nobody has and that no client will be given."""
    for port in range(least or 20_000 + os.getpid() * 311 % 11_000, 32_000):
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET6, kind) as sock:
                    sock.bind(("::", port))
        except OSError as error:
            last = error
            continue
        return port
    raise OSError(f"no port can be had: {last}")


def command(planted: str = "") -> list[str | Path]:
    """Return the command, or what does the same after it has run the Python code `planted`."""
    program = f"import sys\nfrom netsrvd import __main__, cli\n{planted}\nsys.exit(__main__.main())"
    return [sys.executable, "-c", program] if planted else [COMMAND]


class Run:
    """One `netsrvd run`, or another command line that becomes it.

    Enter it to start. When it is left the run ends with SIGTERM, unless it has ended, and is
    looked at: see `end`. Whatever happens nothing of it lives on.
    """

    def __init__(
        self,
        *arguments: str | Path,
        under: Sequence[str | Path] = (),
        planted: str = "",
        environment: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        stderr: int = subprocess.PIPE,
        limits: Callable[[], None] | None = None,
        left: Sequence[tuple[int, str]] = (),
        most_kept: int = 10_000,
    ) -> None:
        """Describe the run.

        `under` is a program that executes the command, in the same process; `planted` is Python
        that runs in it before; `limits` is called in the child before the command begins;
        `left` is the store of the run before, in which what this one has forgotten is closed;
        `most_kept` is how many descriptors systemd keeps, whatever it has told the run.
        """
        self.argv = [*under, *command(planted), "run", *arguments]
        self.said: list[str] = []
        """Its lines as they are."""
        self.lines: list[str] = []
        """Its lines without the times of records."""
        self.notices: list[dict[str, str]] = []
        self.heard_at: dict[str, float] = {}
        """When each kind of notice came last."""
        self.store: list[tuple[int, str]] = []
        """Descriptors that it has systemd keep, each with its name (FDSTORE=1 in sd_notify(3))."""
        self._left = left
        self._most_kept = most_kept
        self._others: tuple[str, ...] = ()
        self.port = 0
        self.config = Path()
        self._rest = b""
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notify.bind("")  # the kernel chooses an abstract name
        notify = {"NOTIFY_SOCKET": "@" + self._notify.getsockname()[1:].decode()}
        self._how = {
            "env": ENVIRONMENT | notify | dict(environment or {}),
            "pass_fds": pass_fds,
            "stderr": stderr,
            "preexec_fn": limits,
        }

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            **self._how,  # type: ignore[call-overload]
        )
        self.pid = self.process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._pipe = self.process.stderr
        if self._pipe:
            os.set_blocking(self._pipe.fileno(), False)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self.process.poll() is None:
                self.end()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self._pipe:
                self._pipe.close()
            self._notify.close()
            os.close(self._pidfd)
            self.empty_store()

    # --- what it says ---------------------------------------------------------------------

    def wait(self, look: Callable[[], Found], what: str) -> Found:
        """Return what `look` finds as soon as it finds anything, hearing what the run says."""
        deadline = monotonic() + PATIENCE
        while True:
            over = self._is_over() or monotonic() > deadline
            self._hear()
            if found := look():
                return found
            assert not over, f"no {what}; {self!r}"

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def _is_over(self) -> bool:
        """Return whether it has ended and all that it said has been heard."""
        return self.process.poll() is not None and (not self._pipe or self._pipe.closed)

    def _hear(self) -> None:
        """Take what was said on standard error and to NOTIFY_SOCKET, waiting a little for it."""
        pipe = [self._pipe] if self._pipe and not self._pipe.closed else []
        ended = [self._pidfd] if self.process.returncode is None else []
        ready, _, _ = select.select([self._notify, *pipe, *ended], [], [], LOOK_SECONDS)
        if self._notify in ready:
            self._take_notices()
        if self._pipe in ready:
            said = os.read(self._pipe.fileno(), 1 << 20)
            if not said:
                self._pipe.close()
            *lines, self._rest = (self._rest + said).split(b"\n")
            self.said += [line.decode() for line in lines]
            self.lines += [STAMPED.sub(r"\1", line.decode(), count=1) for line in lines]

    def _take_notices(self) -> None:
        with suppress(BlockingIOError):
            while True:
                said, descriptors, *_ = socket.recv_fds(self._notify, 65536, MOST_DESCRIPTORS)
                lines = said.decode().splitlines()
                notice = {key: value for key, _, value in (each.partition("=") for each in lines)}
                self.notices.append(notice)
                self.heard_at |= dict.fromkeys(notice, monotonic())
                self._keep(notice, descriptors)

    def _keep(self, notice: Mapping[str, str], descriptors: Sequence[int]) -> None:
        """Do with descriptors what systemd does: keep them or, of a barrier, close them."""
        if "FDSTORE" in notice:
            fit = max(0, self._most_kept - len(self.store))
            self.store += [(each, notice["FDNAME"]) for each in descriptors[:fit]]
            descriptors = descriptors[fit:]
        for each in descriptors:
            os.close(each)
        if "FDSTOREREMOVE" in notice:
            for kept in (self.store, self._left):
                for each in [each for each in kept if each[1] == notice["FDNAME"]]:
                    if isinstance(kept, list):  # otherwise they are the test's own
                        os.close(each[0])
                        kept.remove(each)

    def empty_store(self) -> None:
        """Close all that it has had kept."""
        while self.store:
            os.close(self.store.pop()[0])

    def wait_line(self, text: str, count: int = 1) -> str:
        """Return the line that has `text`, the `count`th such line of the run."""
        return self.wait(lambda: self.lines_with(text)[count - 1 :], f"line with {text!r}")[0]

    def lines_with(self, text: str) -> list[str]:
        """Return the lines that have come so far and have `text`."""
        return [line for line in self.lines if text in line]

    def wait_notice(self, key: str, count: int = 1) -> dict[str, str]:
        """Return the message to systemd that has `key`, the `count`th such message of the run."""
        return self.wait(lambda: self.notices_with(key)[count - 1 :], f"notice of {key}")[0]

    def notices_with(self, key: str) -> list[dict[str, str]]:
        """Return the messages to systemd that have come so far and have `key`."""
        return [notice for notice in self.notices if key in notice]

    def wait_ready(self) -> None:
        """Return when it serves, and remember how it is at rest."""
        self.wait_notice("READY")
        self.rest()

    # --- what it is -----------------------------------------------------------------------

    def rest(self) -> None:
        """Take what it holds now as what it is to come back to when nobody is served."""
        self._at_rest: Counter[str] = Counter()
        while not self.is_over and self._at_rest != (
            held := self.held()
        ):  # telling systemd takes a socket for a moment
            self._at_rest = held
            self._hear()

    def links(self) -> list[str]:
        """Return what its descriptors are, such as "socket:[4711]"."""
        found = []
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(entry.readlink()))
        return found

    def held(self) -> Counter[str]:
        """Return its descriptors and threads, counted by kind."""
        kinds = Counter(re.sub(r"\[\d+\]| \(deleted\)", "", link) for link in self.links())
        return kinds + Counter(threads=sum(1 for _ in Path(f"/proc/{self.pid}/task").iterdir()))

    def memory_kb(self, field: str = "VmHWM") -> int:
        """Return a figure of /proc/PID/status, by default the most memory that it ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0])

    def cpu_seconds(self) -> float:
        """Return the time that it has spent on a processor."""
        figures = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(figures[11]) + int(figures[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> list[str]:
        """Return the PIDs of its children, of which it never has any."""
        return Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()

    # --- what is done to it ---------------------------------------------------------------

    def configure(self, configuration: Mapping[str, object] | str) -> None:
        """Write its configuration file."""
        text = configuration if isinstance(configuration, str) else toml(configuration)
        self.config.write_text(text)

    def reload(self, configuration: Mapping[str, object] | str) -> dict[str, str]:
        """Have it read a new configuration; return what it tells systemd when it has done so."""
        before = len(self.notices_with("READY"))
        self.configure(configuration)
        self.send(signal.SIGHUP)
        return self.wait_notice("READY", before + 1)

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def settle(self) -> None:
        """Wait until it holds no more than at rest, and look at its memory and for children."""
        # An import that was under way held a file that is closed by now: less is no leak.
        self.wait(lambda: not self.held() - self._at_rest, f"rest with {self._at_rest}")
        assert self.memory_kb() < MEMORY_KB
        assert self.children() == []

    def end(self, number: signal.Signals = signal.SIGTERM, status: int = 0) -> None:
        """Check that it is at rest, end it by a signal and check how it ends."""
        self.settle()
        self.send(number)
        self.wait_end(status)

    def wait_end(self, status: int = 0) -> None:
        """Wait until it has ended, with this exit status and nobody left behind.

        All that it said on standard error must have been records, or `allow`ed.
        """
        self.wait(self._is_over, "end")
        assert self.process.returncode == status, repr(self)
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            pass
        else:
            raise AssertionError(f"a process was left behind by {self!r}")
        records = [line for line in self.lines if not line.startswith(self._others)]
        assert [line for line in records if not PREFIXED.match(line)] == [], repr(self)
        assert self._rest == b""

    def wait_failure(self, status: int) -> None:
        """Wait until it has ended without having served, with this status and its reasons, which
        systemd has heard as well.
        """
        self.allow("netsrvd: ")
        self.wait_end(status)
        said = [line for line in self.lines if line.startswith("netsrvd: ")]
        reasons = "; ".join(line.removeprefix("netsrvd: ") for line in said)
        assert self.notices == [{"STATUS": f"Not started: {reasons}"}]

    def allow(self, *beginnings: str) -> None:
        """Let lines on standard error begin like that, too."""
        self._others += beginnings

    def kill(self) -> None:
        """End it by force, because what it is like afterwards cannot be told."""
        self.send(signal.SIGKILL)
        self.wait_end(-signal.SIGKILL)

    def __repr__(self) -> str:
        said = "\n  ".join([*self.lines, *map(str, self.notices)])
        return f"{self.argv} (status {self.process.poll()}) said:\n  {said}"
