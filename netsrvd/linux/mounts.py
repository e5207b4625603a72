"""What this process sees by mounts, and whether that is still there (proc_pid_mountinfo(5)), and
what another process sees of the host.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mountinfo")
ROOT, POINT = 3, 4
"""Fields of a line: the mounted directory, by its present name, and where it is mounted."""

SYSTEM = "/usr"
"""The directory by which two processes find that they have the same files."""

ZONE = Path("/etc/localtime")

ESCAPE = r"\\([0-7]{3})"
"""A blank or a backslash in a path."""


def roots() -> dict[str, str]:
    """Return for each mount point the path of what is mounted there, within its file system.

    That path follows a directory that is renamed, and ends in //deleted when it is removed. Return
    nothing where /proc is not there.
    """
    found = {}
    with suppress(OSError):
        for line in MOUNTS.read_text(errors="surrogateescape").splitlines():
            fields = line.split(" ")  # of several mounts at one point the last one is seen
            found[_unescaped(fields[POINT])] = _unescaped(fields[ROOT])
    return found


def moved(path: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return the mount point through which a path is seen, if what is mounted there was renamed or
    removed between two calls of `roots`; else an empty text.
    """
    for each in (path, *map(str, Path(path).parents)):
        if each in now:
            return each if before.get(each, now[each]) != now[each] else ""
    return ""


def _unescaped(path: str) -> str:
    """Return a path as it is; most have no escape, and a start need not compile the pattern."""
    if "\\" not in path:
        return path
    return re.sub(ESCAPE, lambda found: chr(int(found[1], 8)), path)


class Outside(NamedTuple):
    """What `netsrvd reload` sees of the host. The daemon has a root directory of its own, in which
    a bind mount shows the directory that was there when the daemon started, even if another one
    has its name now. A field is empty if it is not known.
    """

    system: str = ""
    """Device and inode of /usr, as two numbers."""
    directory: str = ""
    configuration: str = ""
    """Device and inode of `directory`, in the same form."""
    zone: str = ""
    """The absolute path of the file of the time zone, to which /etc/localtime links."""


def look_outside(directory: str) -> Outside:
    """Return what this process sees, with this directory of the configuration."""
    zone = str(ZONE.resolve()) if ZONE.is_symlink() else ""
    return Outside(identity(SYSTEM), directory, identity(directory), zone)


def identity(directory: str) -> str:
    """Return the device and the inode of a directory; an empty text if it is not there."""
    try:
        found = Path(directory).stat()
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino}"
