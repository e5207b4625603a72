"""Sealed files without a name, which cannot be changed (memfd_create(2))."""

import fcntl
import os

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

READ_BYTES = 1 << 20


def sealed(name: str, data: bytes) -> int:
    """Return the descriptor of a sealed file with this content; the caller closes it."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def content(descriptor: int) -> bytes:
    """Return what a sealed file holds; raises ValueError for any other descriptor."""
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise ValueError("it is no sealed file") from error
    if seals & SEALS != SEALS:
        raise ValueError("it is not sealed")
    size, found = os.fstat(descriptor).st_size, bytearray()
    while len(found) < size:
        found += os.pread(descriptor, READ_BYTES, len(found))
    return bytes(found)


def locked(descriptor: int) -> int:
    """Lock a file, and return another descriptor of it, for `is_held`; the caller closes it.

    The lock is that of the open file (flock(2)): it lasts until no process has that open any more,
    whatever number it has there. Raises OSError where there is no /proc.
    """
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def is_held(other: int) -> bool:
    """Return whether any process has the file open that `locked` has returned `other` for."""
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
