"""How long tests wait for what should come at once, and waiting within it."""

import os
import select
import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = float(os.environ.get("NETSRVD_TEST_SECONDS", "60"))
"""How long a test waits for what should come at once, before it fails."""

Found = TypeVar("Found")


def wait_readable(descriptor: int, what: str, seconds: float = SECONDS) -> None:
    """Return as soon as a descriptor is readable; fail if it is not within so long."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(seconds * 1000), f"{what} did not come within {seconds:g} s"


def eventually(look: Callable[[], Found], what: str = "") -> Found:
    """Return what `look` finds as soon as that is true; fail if it is not within `SECONDS`."""
    deadline = time.monotonic() + SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what or look}"
        time.sleep(0.001)
    return found
