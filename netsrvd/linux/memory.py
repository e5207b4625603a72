"""Memory that costs nothing until it is used."""

import mmap
from contextlib import suppress


def untouched_memory(size: int) -> mmap.mmap:
    """Return memory of which no page exists until it is written to, and then that page alone.

    Room for the largest datagram is 4 MiB a batch; the usual small ones touch a page each.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # EINVAL: a kernel without huge pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
