"""A place in another process where it waits until the test lets it go on."""

import os
from contextlib import suppress
from pathlib import Path

from tests.support.run import Run


class Gate:
    """A FIFO that the other process reads to its end, which comes when the test closes it.

    Each is for one wait: another reader might come before the first one has seen that end.
    """

    def __init__(self, folder: Path, name: str = "gate") -> None:
        path = folder / name
        os.mkfifo(path)
        self._path = path
        self._writer = -1
        self.wait = f"__import__('pathlib').Path({str(path)!r}).read_text()"
        """The Python statement that waits at the gate."""

    def reached(self, run: Run) -> None:
        """Return when the run waits at the gate; it goes on waiting no longer than the test."""
        run.wait(self._try, "run at the gate")

    def _try(self) -> bool:
        with suppress(OSError):  # ENXIO: nobody waits there yet
            self._writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            return True
        return False

    def open(self) -> None:
        """Let the run go on."""
        os.close(self._writer)
