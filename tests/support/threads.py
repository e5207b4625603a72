"""Threads of the daemon in the test's process."""

import threading

from netsrvd.loop_thread import LoopThread
from tests.support.patience import SECONDS


def flushed(thread: LoopThread, seconds: float = SECONDS) -> bool:
    """Wait until the calls that were queued so far have run; return False if that takes longer."""
    done = threading.Event()
    thread.calls.put(done.set)
    return done.wait(seconds)
