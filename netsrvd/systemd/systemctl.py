"""Asks systemd about units, and has it do things with them."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from netsrvd.errors import SystemdError

RUNNING = Path("/run/systemd/system")
"""Exists where systemd is PID 1 (sd_booted(3))."""

SHOW_SECONDS = 10.0
"""How long an unprivileged look may take."""

Properties = dict[str, list[str]]
"""The values of each property; those of Listen= are several."""


def is_running() -> bool:
    """Return whether systemd runs this host."""
    return RUNNING.is_dir()


def show(units: Sequence[str], properties: Sequence[str]) -> list[Properties]:
    """Return the properties of each unit, in the order of `units`. Raises SystemdError.

    Times are seconds of the epoch, as `@1700000000`.
    """
    if not units:
        return []
    text = command("show", "--timestamp=unix", f"--property={','.join(properties)}", "--", *units)
    return [properties_of(block) for block in text.strip("\n").split("\n\n")]


def texts(units: Sequence[str], properties: Sequence[str]) -> list[dict[str, str]]:
    """Return the properties of each unit as systemd writes them for people, in no sure order.

    A pattern stands for the units that are loaded. Raises SystemdError where systemd does not run
    this host, or does not answer within `SHOW_SECONDS`.
    """
    if not is_running():
        raise SystemdError("systemd does not manage this host")
    text = _run(
        *("systemctl", "show", f"--property={','.join(properties)}", "--", *units),
        seconds=SHOW_SECONDS,
        errors="surrogateescape",  # of paths
    )
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return [dict(line.partition("=")[::2] for line in lines) for lines in blocks]


def properties_of(text: str) -> Properties:
    """Return what `systemctl show` says of one unit."""
    found: Properties = {}
    for line in text.splitlines():
        name, _, value = line.partition("=")
        found.setdefault(name, []).append(value)
    return found


def list_units(*patterns: str) -> list[str]:
    """Return the names of the loaded units that the patterns describe. Raises SystemdError."""
    text = command("list-units", "--all", "--plain", "--no-legend", "--full", "--", *patterns)
    return [line.split()[0] for line in text.splitlines() if line.strip()]


def command(*argv: str) -> str:
    """Run systemctl to its end and return what it prints; raises SystemdError with its reason."""
    return _run("systemctl", "--no-pager", "--no-ask-password", *argv)


def reasons(unit: str, since: float, lines: int = 3) -> list[str]:
    """Return why a unit failed: the last records of a service, what systemd says of a socket.

    `since` is a time in seconds of the epoch.
    """
    words = (f"--unit={unit}", "--priority=warning")
    if unit.endswith(".service"):
        words = (f"_SYSTEMD_UNIT={unit}", "--priority=info")
    try:
        text = _run(
            *("journalctl", "--quiet", "--no-pager", "--boot", "--output=cat"),
            *(f"--lines={lines}", f"--since=@{since:.6f}", *words),
        )
    except SystemdError:
        return []
    return text.splitlines()


def _run(*argv: str, seconds: float | None = None, errors: str = "replace") -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    try:
        done = subprocess.run(  # noqa: S603 - a list, without a shell
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors=errors,
            env=environment,
            timeout=seconds,
        )
    except OSError as error:
        raise SystemdError(f"{argv[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise SystemdError(f"{argv[0]} has not answered for {seconds:g} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        words = " ".join(each for each in argv if not each.startswith("-"))
        raise SystemdError(f"{words} failed ({done.returncode}): {said}")
    return done.stdout
