"""Waiting for other threads: for what they tell, and for their end."""

import threading

from netsrvd.loop_thread import LoopThread
from tests.support.patience import SECONDS


def wait_event(event: threading.Event, what: str) -> None:
    """Return when `event` is set; fail if `what` it stands for does not come."""
    assert event.wait(SECONDS), f"{what} did not come within {SECONDS:g} s"


def wait_end(thread: LoopThread) -> None:
    """Return when a thread has ended; fail if it goes on."""
    assert thread.join(SECONDS), f"{thread.name} did not end within {SECONDS:g} s"
