"""`netsrvd reload`: has a daemon read its configuration again, and says how that went."""

import argparse
import os
import sys

from netsrvd.commands import daemons
from netsrvd.commands.daemons import CallError, Found, Reply, asking
from netsrvd.config.files import DEFAULT_FILE
from netsrvd.errors import ConfigError, ControlError, NetsrvdError, SystemdError, UsageError
from netsrvd.escapes import escaped
from netsrvd.linux.mounts import look_outside
from netsrvd.log.stderr import is_journal
from netsrvd.systemd import systemctl

PATIENCE_SECONDS = 60.0

NOT_RELOADED = "io.netsrvd.NotReloaded"


def run(arguments: argparse.Namespace) -> int:
    """Ask the daemon with this PID, or each that systemd runs, and wait for the answers.

    Raises ConfigError with its reasons where the old configuration is still in force.
    """
    if arguments.pid is not None:
        _reload(arguments.pid)
        return os.EX_OK
    failed: list[tuple[str, NetsrvdError]] = []
    for unit, pid in _running():
        try:
            _reload(pid)
        except NetsrvdError as error:
            failed.append((unit, error))
    if failed:
        lines = [f"{unit}: {line}" for unit, error in failed for line in str(error).split("\n")]
        summary = NetsrvdError("\n".join(lines))
        summary.exit_status = failed[0][1].exit_status
        raise summary
    return os.EX_OK


def _running() -> list[tuple[str, int]]:
    """Return each unit of netsrvd that runs with the PID of its daemon.

    Raises UsageError where there is no systemd, and ControlError where it runs none.
    """
    try:
        units = systemctl.texts(daemons.UNITS, ["Id", "MainPID"])
    except SystemdError as error:
        raise UsageError(f"name the process ID of the daemon: {error}") from error
    running = [(unit["Id"], int(unit.get("MainPID", "0"))) for unit in units if unit.get("Id")]
    found = sorted((unit, pid) for unit, pid in running if pid)
    if not found:
        raise ControlError(
            "systemd runs neither netsrvd.service nor an instance: a start reads the "
            "configuration; for another daemon, name its process ID"
        )
    return found


def _reload(pid: int) -> None:
    """Have one daemon reload. Raises ConfigError, ControlError and UsageError.

    With standard error in the journal, as in ExecReload= of a unit, no line of the daemon's is
    shown: it has just written the same there.
    """
    is_shown = not is_journal(2)
    try:
        warnings = _lines(_asked(pid).get("warnings"))
    except CallError as error:
        if error.name != NOT_RELOADED:
            raise
        reasons = _lines(error.parameters.get("reasons"))
        raise ConfigError(reasons if is_shown else ()) from error
    for warning in warnings if is_shown else ():
        print(f"netsrvd: warning: {warning}", file=sys.stderr)


def _lines(answer: object) -> list[str]:
    """Return lines of an answer, which may be another program's, to be shown on a terminal."""
    return [escaped(str(each)) for each in answer] if isinstance(answer, list) else []


def _asked(pid: int) -> Reply:
    """Return the answer of one daemon. Raises ControlError and UsageError."""
    found = Found(f"process {pid}", daemons.private_path(pid), is_running=True)
    with asking(found, PATIENCE_SECONDS) as daemon:
        if daemon.pid != pid:  # a child may have its descriptors
            raise UsageError(f"process {daemon.pid} answers for {pid}; name that one")
        return daemon.call("Reload", **look_outside(str(DEFAULT_FILE.parent))._asdict())
