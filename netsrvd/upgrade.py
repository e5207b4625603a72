"""Tells whether an upgrade has replaced the package since this process started."""

from pathlib import Path

import netsrvd

Identity = tuple[int, int, int]


def identity() -> Identity | None:
    """Return what differs when the package has been replaced; None if it is gone."""
    try:
        found = Path(netsrvd.__file__).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


AT_START = identity()


def is_replaced() -> bool:
    """Return whether a module that is imported now may be of another version."""
    return AT_START is None or identity() != AT_START
