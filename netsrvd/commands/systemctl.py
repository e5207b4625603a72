"""Asks systemd about units, by systemctl(1)."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

BOOTED = Path("/run/systemd/system")
"""There if systemd is the service manager of this host (sd_booted(3))."""

PATIENCE_SECONDS = 10.0


def show(units: Sequence[str], properties: Sequence[str]) -> list[dict[str, str]]:
    """Return these properties of each unit, where a pattern stands for the units that are loaded.

    Raises OSError with a reason where there is no systemd, or none that answers.
    """
    if not BOOTED.is_dir():
        raise OSError("systemd does not manage this host")
    command = ["systemctl", "show", "--property", ",".join(properties), "--", *units]
    try:
        done = subprocess.run(  # noqa: S603 - the words are ours
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"systemctl has not answered for {PATIENCE_SECONDS:g} s") from error
    if done.returncode:
        raise OSError(f"systemctl: {done.stderr.strip() or 'failed'}")
    blocks = [block.splitlines() for block in done.stdout.strip().split("\n\n")]
    return [{key: value for key, _, value in (line.partition("=") for line in b)} for b in blocks]
