"""Finds the daemons of this host, and asks them by their control sockets.

systemd is asked first: a connection to the socket of a daemon that does not run would start it.
"""

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from netsrvd.commands.reply_types import is_reply
from netsrvd.control.listening import PRIVATE_NAME, credentials
from netsrvd.errors import ControlError, SystemdError, UsageError
from netsrvd.systemd import systemctl
from netsrvd.systemd.unit_files import is_control

UNITS = ("netsrvd.service", "netsrvd@*.service")

PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "Result", "MainPID", "StatusText"),
    *("TriggeredBy", "StateChangeTimestamp"),
)
SOCKET_PROPERTIES = ("Id", "ActiveState", "SubState", "Result", "Listen")

RUNNING = ("active", "reloading", "refreshing")
"""States of a unit whose daemon answers."""

RUN = Path("/run")
"""Where netsrvd-control.socket and netsrvd-control@.socket make the sockets."""

CGROUPS = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd")
"""The root of systemd's control groups, with cgroup v2 and v1 (cgroups(7))."""

PATIENCE_SECONDS = 10.0
"""How long a daemon may take for a part of its answer."""

RECEIVE_BYTES = 65_536
LONGEST_ANSWER = 64 << 20
"""Bytes of one reply. The figures of 10,000 listeners take 7 MB."""

Reply = dict[str, Any]


class SocketUnit(NamedTuple):
    """A socket unit that starts a daemon."""

    name: str
    state: str
    """Its ActiveState: active while it listens."""


class Found(NamedTuple):
    """A daemon that there may be: a unit of systemd, or a control socket that was named."""

    name: str
    """The unit, or the path of the socket."""
    path: str
    """Where it is asked."""
    is_running: bool
    state: str = ""
    """What systemd says of it, such as `active (running)`."""
    since: str = ""
    """Since when it has been in this state, as systemd writes it."""
    status: str = ""
    """What it has told systemd last (STATUS= in sd_notify(3))."""
    sockets: tuple[SocketUnit, ...] = ()


def find(path: str | None) -> list[Found]:
    """Return the daemon of a control socket, or those that systemd knows: one at least.

    Raises UsageError where there is no systemd, and ControlError where it has no such unit.
    """
    if path:
        return [Found(path, path, is_running=True)]
    try:
        units = systemctl.texts(UNITS, PROPERTIES)
    except SystemdError as error:
        if os.geteuid() and systemctl.is_running():
            return _found_by_cgroups()
        raise UsageError(f"name the socket of the daemon with --control: {error}") from error
    found = [_found(unit) for unit in units if unit.get("LoadState") == "loaded"]
    if not found:
        raise ControlError("systemd knows no netsrvd.service; is the package installed?")
    used = [
        each
        for each in found
        if each.is_running or any(one.state == "active" for one in each.sockets)
    ]
    return used or found[:1]


def _found(unit: dict[str, str]) -> Found:
    name, state = unit["Id"], unit.get("ActiveState", "")
    triggers = unit.get("TriggeredBy", "").split()
    names = [each for each in triggers if each.endswith(".socket") and not is_control(each)]
    sockets: list[dict[str, str]] = systemctl.texts(names, SOCKET_PROPERTIES) if names else []
    instance = name.removeprefix("netsrvd").removesuffix(".service")
    return Found(
        name,
        f"{RUN}/netsrvd-control{instance}.sock",
        state in RUNNING,
        f"{state} ({unit.get('SubState', '')})",
        unit.get("StateChangeTimestamp", ""),
        unit.get("StatusText", ""),
        tuple(SocketUnit(each["Id"], each.get("ActiveState", "")) for each in sockets),
    )


def _found_by_cgroups() -> list[Found]:
    """Return the daemons whose control groups have processes, the only one or one that has none.

    Without D-Bus only root can ask systemd. The control group of a unit is there for all to see.
    """
    instances = [
        path.stem.removeprefix("netsrvd-control") for path in RUN.glob("netsrvd-control*.sock")
    ]
    found = []
    for instance in sorted({"", *instances}):
        name = f"netsrvd{instance}.service"
        parent = "system.slice/system-netsrvd.slice" if instance else "system.slice"
        files = (root / parent / name / "cgroup.procs" for root in CGROUPS)
        is_running = any(_text(file) for file in files)
        path = f"{RUN}/netsrvd-control{instance}.sock"
        found.append(Found(name, path, is_running, "active" if is_running else "inactive"))
    return [each for each in found if each.is_running] or found[:1]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def private_path(pid: int) -> str:
    """Return the path of the private control socket of the daemon with this process ID.

    Raises UsageError if there is no such process, it is no daemon, or the kernel does not let the
    caller look at its descriptors (PTRACE_MODE_READ in ptrace(2)), and ControlError if it is one of
    an older version.
    """
    folder = Path(f"/proc/{pid}/fd")
    names: dict[str, str] = {}
    try:
        for link in folder.iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                names[link.readlink().name] = str(link)
    except FileNotFoundError as error:
        raise UsageError(f"there is no process {pid}") from error
    except PermissionError as error:
        raise UsageError(_DENIED[os.geteuid() == 0].format(pid)) from error
    if found := names.get(f"{PRIVATE_NAME} (deleted)"):
        return found
    if f"{OLD_NAME} (deleted)" in names:
        raise ControlError(
            f"process {pid} is a netsrvd of an older version, which cannot be asked: restart it; "
            f"`kill -HUP {pid}` reloads without an answer"
        )
    raise UsageError(f"process {pid} is no netsrvd that answers: it has no socket for that")


OLD_NAME = "netsrvd-reload"
"""The name of the socket at which versions before 1.0.0 were asked for a reload."""

_DENIED = {
    False: "process {0} is another user's, or has given up root; ask as root",
    True: "process {0} is another user's, and root lacks CAP_SYS_PTRACE; `kill -HUP {0}` reloads "
    "without an answer",
}
"""Why a daemon cannot be reached, by whether the caller is root."""


class CallError(ControlError):
    """A daemon has answered with an error."""

    def __init__(self, daemon: str, name: str, parameters: Reply) -> None:
        self.name = name
        self.parameters = parameters
        details = (str(value) for value in parameters.values())
        super().__init__(": ".join((daemon, *details, TEXTS.get(name, name))))
        if name in WRONG_ARGUMENTS:
            self.exit_status = os.EX_USAGE


UPGRADED = "io.netsrvd.Upgraded"

DENIED = "only root and its own user may ask it"

TEXTS = {
    UPGRADED: "an upgrade has replaced its code, so that it cannot answer: restart it",
    "io.netsrvd.NoSuchListener": "there is no such listener; `netsrvd status` shows them",
    "org.varlink.service.PermissionDenied": DENIED,
    "org.varlink.service.InvalidParameter": "it takes an IP address or a network",
}

WRONG_ARGUMENTS = {"io.netsrvd.NoSuchListener", "org.varlink.service.InvalidParameter"}
"""Errors of what the command line says."""


class Conversation:
    """A connection to the control socket of one daemon."""

    def __init__(self, sock: socket.socket, daemon: str) -> None:
        self._sock = sock
        self._daemon = daemon
        self._rest = bytearray()

    @property
    def pid(self) -> int:
        """The process that listens."""
        return credentials(self._sock)[0]

    def call(self, method: str, **parameters: object) -> Reply:
        """Return the answer to a call. Raises ControlError."""
        self._send(method, parameters, more=False)
        return self._receive(method)["parameters"]  # type: ignore[no-any-return]

    def replies(self, method: str, **parameters: object) -> Iterator[Reply]:
        """Yield the replies to a call that has several. Raises ControlError."""
        self._send(method, parameters, more=True)
        goes_on = True
        while goes_on:
            message = self._receive(method)
            goes_on = message.get("continues", False)
            yield message["parameters"]

    def end(self) -> None:
        """End it: a call that waits for its answer fails. For handlers of signals, too."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _send(self, method: str, parameters: Reply, *, more: bool) -> None:
        given = {name: value for name, value in parameters.items() if value is not None}
        call = {"method": f"io.netsrvd.{method}", "parameters": given, "more": more}
        try:
            self._sock.sendall(json.dumps(call).encode() + b"\0")
        except OSError as error:
            raise self._failed(error) from error

    def _receive(self, method: str) -> Reply:
        """Return the next message, a reply to this method. Raises ControlError, also for one that
        has other types than the interface says.
        """
        searched = 0
        while (end := self._rest.find(b"\0", searched)) < 0:
            searched = len(self._rest)
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except OSError as error:
                raise self._failed(error) from error
            if not data:
                raise ControlError(f"{self._daemon}: it has ended the connection; see its log")
            self._rest += data
            if len(self._rest) > LONGEST_ANSWER:
                raise self._foreign()
        try:
            message = json.loads(self._rest[:end])
            parameters = {**(message.get("parameters") or {})}
        except (ValueError, RecursionError, AttributeError, TypeError):
            raise self._foreign() from None
        del self._rest[: end + 1]
        if "error" in message:
            raise CallError(self._daemon, str(message["error"]), parameters)
        if not is_reply(method)(parameters):
            raise self._foreign()
        return {**message, "parameters": parameters}

    def _foreign(self) -> ControlError:
        return ControlError(f"{self._daemon}: what answers there is not this version of netsrvd")

    def _failed(self, error: OSError) -> ControlError:
        reason = "no answer came in time" if isinstance(error, TimeoutError) else error.strerror
        return ControlError(f"{self._daemon}: {reason}; see its log")


@contextmanager
def asking(found: Found, seconds: float = PATIENCE_SECONDS) -> Iterator[Conversation]:
    """Connect to the control socket of a daemon, which may take some seconds for each part of an
    answer. Raises ControlError with the remedy.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        try:
            sock.connect("\0" + found.path[1:] if found.path.startswith("@") else found.path)
        except OSError as error:
            raise _unreachable(found, error) from error
        yield Conversation(sock, found.name)


def _unreachable(found: Found, error: OSError) -> ControlError:
    if isinstance(error, PermissionError):
        who = "root and the group adm may ask; `adduser USER adm` adds a user"
        refused = ControlError(f"{found.path}: {who if found.state else DENIED}")
        refused.exit_status = os.EX_NOPERM
        return refused
    if error.errno == errno.EAGAIN:
        return ControlError(f"{found.name}: too many wait for its answers; see its log")
    if found.state:
        remedy = f"it runs without a control socket; `systemctl restart {found.name}` brings it up"
        return ControlError(f"{found.name}: {remedy} ({found.path}: {error.strerror})")
    return NotRunningError(f"{found.path}: no daemon answers: {error.strerror or error}")


class NotRunningError(ControlError):
    """Nothing listens at the socket that was named."""
