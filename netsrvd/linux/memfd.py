"""Files without a name, which nobody can change any more (memfd_create(2))."""

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
