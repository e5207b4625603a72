"""Takes the steps of a plan, and takes all of them back when one fails."""

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from netsrvd.errors import SystemdError
from netsrvd.systemd import systemctl
from netsrvd.systemd.host import FOLDER, RUNNING, drop_in_path
from netsrvd.systemd.plan import Host, Plan, Steps, Target
from netsrvd.systemd.unit_files import drop_in

RUNTIME = Path("/run/systemd/system")
SIGNAL_SECONDS = 5.0
"""How long a daemon may take to take a signal."""

RESTORED = (
    "the socket units are as they were; the configuration files are as you wrote them: change them "
    "and try again, or `netsrvd apply --rollback`"
)

FOR_THIS_RESTART = "netsrvd-sockets-now.conf"
"""The drop-in by which one restart of the service starts its sockets."""


class Execution:
    """The steps of one plan. Owned by the command."""

    def __init__(self, plan: Plan, host: Host) -> None:
        self._plan = plan
        self._host = host
        self._before: dict[Path, bytes | None] = {}
        self._begun: list[Steps] = []
        self._since = time.time()

    def run(self) -> None:
        """Take all steps; raises SystemdError, with all of them taken back, also by Ctrl-C."""
        try:
            self._write_files()
            self._enable()
            systemctl.command("daemon-reload")
            for steps in self._plan.steps:
                if steps.stop or steps.start:
                    self._begun.append(steps)
                    _take(steps, self._since)
            self._remove_files()
        except (SystemdError, OSError, KeyboardInterrupt) as error:
            raise SystemdError(self._failure(error)) from error

    def _write_files(self) -> None:
        for name, text in self._plan.write.items():
            self._write(FOLDER / name, text)
        if self._plan.has_new_drop_in:
            self._write(drop_in_path(self._host.service), self._plan.drop_in)

    def _write(self, path: Path, text: str) -> None:
        """Write a file, or remove it if there is no text."""
        self._before.setdefault(path, path.read_bytes() if path.exists() else None)
        _put(path, text.encode() or None)

    def _enable(self) -> None:
        for steps in self._plan.steps:
            own = {steps.target.own(name) for name in self._plan.write}
            for unit in steps.enable:
                # A unit that changed may be wanted by others than before.
                _enable(unit, "reenable" if unit in own else "enable")
            for unit in steps.disable:
                _enable(unit, "disable")

    def _remove_files(self) -> None:
        if not self._plan.remove:
            return
        for name in self._plan.remove:
            self._write(FOLDER / name, "")
        systemctl.command("daemon-reload")
        for steps in self._plan.steps:
            if steps.stop:  # without a name it resets all units of the host
                with suppress(SystemdError):  # there is nothing to be reset if it had not failed
                    systemctl.command("reset-failed", *steps.stop)

    def _failure(self, error: BaseException) -> str:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        try:
            self._take_back()
        except (SystemdError, OSError) as second:
            return f"{reason}\nwhat was there could not be restored: {second}"
        return f"{reason}\n{RESTORED}"

    def _take_back(self) -> None:
        for steps in self._plan.steps:
            enabled = _enabled(steps)
            for unit in (*steps.enable, *steps.disable):
                if unit not in enabled:
                    with suppress(SystemdError):  # it may have no file yet
                        _enable(unit, "disable")  # which finds the links only of what has a file
        for path, content in self._before.items():
            _put(path, content)
        for steps in self._plan.steps:
            own = {steps.target.own(name) for name in self._plan.write}
            for unit in _enabled(steps):
                with suppress(SystemdError):
                    _enable(unit, "reenable" if unit in own else "enable")
        systemctl.command("daemon-reload")
        problems = []
        for steps in self._begun:
            try:
                _take(_reversed(steps), self._since)
            except SystemdError as error:
                problems.append(str(error))
        if problems:
            raise SystemdError("; ".join(problems))


def _enabled(steps: Steps) -> list[str]:
    """Return the units that are enabled or disabled on the way and were enabled before."""
    before = {unit.name: unit for unit in steps.target.units}
    return [
        unit
        for unit in (*steps.enable, *steps.disable)
        if unit in before and before[unit].is_enabled
    ]


def _reversed(steps: Steps) -> Steps:
    """Return the steps back: what was active is started, all else is stopped.

    A service that ran is to run again, also if its restart on the way has failed.
    """
    active = tuple(unit.name for unit in steps.target.units if unit.is_active)
    touched = {*steps.stop, *steps.start}
    wanted = steps.target.is_wanted or steps.target.is_running
    return steps._replace(
        target=steps.target._replace(is_wanted=wanted),
        stop=tuple(unit for unit in steps.start if unit not in active or unit in steps.stop),
        start=tuple(unit for unit in active if unit in touched),
        sockets=active,
    )


@contextmanager
def signals_undo() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM raise KeyboardInterrupt, so that what was begun is taken back.

    One that is ignored stays so. SIGHUP, by which a terminal goes away, is ignored meanwhile.
    """
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _take(steps: Steps, since: float) -> None:
    """Stop and start socket units, with one restart of the service if that runs.

    The running service goes on serving on its own descriptors until then; a socket cannot be
    started while its service runs.
    """
    service = steps.target.service
    if steps.stop:
        systemctl.command("stop", *steps.stop)
    if steps.target.is_wanted or _is_running(service):
        _restart(steps.target, steps.sockets, since)
    elif steps.start:
        try:
            systemctl.command("start", *steps.start)
        except SystemdError:
            if not _is_running(service):
                raise SystemdError(_why(steps.start, since)) from None
            _restart(
                steps.target, steps.sockets, since
            )  # a client of another socket came meanwhile
    # A socket that fails does not fail the restart.
    _raise_unless_active(steps.start, since)


def _restart(target: Target, sockets: Sequence[str], since: float) -> None:
    """Restart a service; in the same job its sockets start, between its stop and its start."""
    with _sockets_for_now(target, sockets):
        _release_sockets(target.service)
        try:
            systemctl.command("restart", target.service)
        except SystemdError as error:
            raise SystemdError(_with_reasons(str(error), target.service, since)) from error


def _release_sockets(service: str) -> None:
    """Make the daemon close the sockets that it has bound at its stop: systemd is to bind them.

    Returns when the daemon has taken the signal, as the signals of the restart have lower numbers
    and would be taken before it.
    """
    [properties] = systemctl.show([service], ("MainPID",))
    pid = int(properties["MainPID"][0])
    deadline = time.monotonic() + SIGNAL_SECONDS
    with suppress(OSError):  # it has ended
        if pid:
            os.kill(pid, signal.SIGWINCH)
        while pid and is_pending(pid, signal.SIGWINCH) and time.monotonic() < deadline:
            time.sleep(0.01)


def is_pending(pid: int, number: int) -> bool:
    """Return whether a signal waits to be taken by a process (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"(?m)^ShdPnd:\s*([0-9a-f]+)$", status)
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


@contextmanager
def _sockets_for_now(target: Target, sockets: Sequence[str]) -> Iterator[None]:
    path = RUNTIME / f"{target.service}.d" / FOR_THIS_RESTART
    _put(path, drop_in(target.service, sockets).encode())
    try:
        systemctl.command("daemon-reload")
        yield
    finally:
        _put(path, None)
        systemctl.command("daemon-reload")


def _raise_unless_active(names: Sequence[str], since: float) -> None:
    states = systemctl.show(names, ("Id", "ActiveState"))
    failed = [each["Id"][0] for each in states if each["ActiveState"][0] != "active"]
    if failed:
        raise SystemdError(_why(failed, since))


def _why(names: Sequence[str], since: float) -> str:
    states = systemctl.show(names, ("Id", "ActiveState"))
    failed = [each["Id"][0] for each in states if each["ActiveState"][0] != "active"]
    return "\n".join(
        _with_reasons(f"{name} does not start", name, since) for name in failed or names
    )


def _with_reasons(text: str, unit: str, since: float) -> str:
    return "\n".join([text, *(f"  {line}" for line in systemctl.reasons(unit, since))])


def _is_running(service: str) -> bool:
    [properties] = systemctl.show([service], ("ActiveState",))
    return properties["ActiveState"][0] in RUNNING


def _enable(unit: str, verb: str) -> None:
    systemctl.command(verb, "--no-reload", "--quiet", unit)


def _put(path: Path, content: bytes | None) -> None:
    """Give a file its content, None to remove it and a folder of drop-ins that is empty then."""
    if content is None:
        path.unlink(missing_ok=True)
        if path.parent.suffix == ".d":
            with suppress(OSError):
                path.parent.rmdir()
        return
    path.parent.mkdir(exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_bytes(content)
        new.chmod(0o644)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
