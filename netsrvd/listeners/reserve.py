"""One descriptor kept for the case that there is no other."""

import os


class Reserve:
    """Without it nobody could be turned away: accept(2) needs a descriptor even to refuse.

    Owned by one thread, which closes it.
    """

    __slots__ = ("_descriptor",)

    def __init__(self) -> None:
        self._descriptor = -1

    def take(self) -> None:
        """Have a descriptor in reserve again, if one can be had."""
        if self._descriptor < 0:
            try:
                self._descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self._descriptor = -1

    def release(self) -> bool:
        """Free it for one accept; False if there is none."""
        if self._descriptor < 0:
            return False
        os.close(self._descriptor)
        self._descriptor = -1
        return True

    def close(self) -> None:
        """Close it."""
        self.release()
