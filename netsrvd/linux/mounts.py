"""What this process sees by mounts, and whether that is still there (proc_pid_mountinfo(5))."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
ROOT, POINT = 3, 4
"""Fields of a line: the mounted directory, by its present name, and where it is mounted."""

ESCAPE = re.compile(r"\\([0-7]{3})")


def roots() -> dict[str, str]:
    """Return for each mount point the path of what is mounted there, within its file system.

    That path follows a directory that is renamed, and ends in //deleted when it is removed. Return
    nothing where /proc is not there.
    """
    found = {}
    with suppress(OSError):
        for line in MOUNTS.read_text(errors="surrogateescape").splitlines():
            fields = [ESCAPE.sub(_character, each) for each in line.split(" ")[: POINT + 1]]
            found[fields[POINT]] = fields[ROOT]  # of several mounts the last one is seen
    return found


def moved(path: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the mount point through which a path is seen, if what is mounted there was renamed or
    removed between two calls of `roots`; else an empty text.
    """
    for each in (path, *map(str, Path(path).parents)):
        if each in now:
            return each if before.get(each, now[each]) != now[each] else ""
    return ""


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))
