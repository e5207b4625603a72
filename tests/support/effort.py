"""Counts what a piece of work costs, on a clock that no busy machine can make run faster."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def steps(work: Callable[[], object]) -> int:
    """Return how many instructions of Python's virtual machine a call takes, its callees included.

    What is done in C counts as one step however long it takes.
    """
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def in_proportion(work: Callable[[int], object], size: int = 50) -> bool:
    """Return whether four times the size takes about four times the steps, and not the square."""
    # The first look at a function is not whole since Python 3.12, which prepares each when it is
    # seen; and tables that are made once are made.
    steps(lambda: work(size))
    small, large = (steps(lambda count=count: work(count)) for count in (size, 4 * size))
    return large < 6 * small
