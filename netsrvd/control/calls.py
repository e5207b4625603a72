"""Says who may call what, and answers a call of `Reload`.

What answers other calls is imported at the first of them. This module is imported soon after the
start, so that a reload works after an upgrade, too.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netsrvd.control.callers import (
    FAILED,
    INTERFACE,
    SERVICE,
    WAIT,
    Answer,
    Caller,
    CallError,
    Methods,
    invalid,
)
from netsrvd.errors import shortage
from netsrvd.event_loop import EventLoop
from netsrvd.linux.mounts import Outside
from netsrvd.run_state import ReloadRequest, ReloadRequests
from netsrvd.upgrade import is_replaced

RELOAD = f"{INTERFACE}.Reload"

LONGEST_REASONS = 32_768
"""Characters of the reasons that a caller is told; all of them stand in the log."""


class Calls:
    """Answers the calls of one control socket. Owned by the event loop that serves it."""

    def __init__(
        self,
        loop: EventLoop,
        requests: ReloadRequests,
        load: Callable[[], Methods],
        *,
        is_passed: bool,
    ) -> None:
        """Answer in a `loop`; `load` imports and makes what answers all but `Reload`.

        Who may look at the daemon by a socket that systemd `is_passed` is a matter of its file's
        mode. Only root reloads it by this one: in a user namespace all others have one user ID.
        """
        self._loop = loop
        self._requests = requests
        self._load = load
        self._is_passed = is_passed
        self._methods: Methods | None = None

    def __call__(self, method: str, parameters: dict[str, Any], caller: Caller) -> Answer:
        """Return the answer to a call. Raises CallError."""
        is_owner = caller.uid == 0 or (not self._is_passed and caller.uid == os.geteuid())
        if not is_owner and (method == RELOAD or not self._is_passed):
            raise CallError(f"{SERVICE}.PermissionDenied")
        if method == RELOAD:
            return self._reload(_outside(parameters), caller)
        if self._methods is None:
            self._methods = self._loaded()
        return self._methods(method, parameters, caller)

    def _loaded(self) -> Methods:
        """Import what answers. Raises CallError if an upgrade has replaced it, or it cannot be."""
        problem = CallError(f"{INTERFACE}.Upgraded")
        if is_replaced():
            raise problem
        try:
            methods = self._load()
        except Exception as error:
            if is_replaced():
                raise problem from error
            reason = str(shortage(error) or "its code cannot be imported")
            raise CallError(FAILED, reason=reason) from error
        if is_replaced():
            raise problem
        return methods

    def _reload(self, outside: Outside, caller: Caller) -> Answer:
        """Have the main thread reload, and wait for its result."""
        outcome: list[tuple[str, Sequence[str]]] = []

        def answered(problem: str, warnings: Sequence[str]) -> None:
            outcome.append((problem, warnings))
            caller.go_on()

        def answer(problem: str, warnings: Sequence[str]) -> None:
            self._loop.call_soon_threadsafe(answered, problem, warnings)

        self._requests.add(ReloadRequest(outside, answer))
        while not outcome:
            yield WAIT
        [(problem, warnings)] = outcome
        if problem:
            reasons = problem[:LONGEST_REASONS].split("\n")
            raise CallError(f"{INTERFACE}.NotReloaded", reasons=reasons)
        yield {"warnings": [*warnings]}


def _outside(parameters: Mapping[str, Any]) -> Outside:
    """Return what a caller says that it sees. Raises CallError."""
    given = {name: value for name, value in parameters.items() if value is not None}
    for name, value in given.items():
        if name not in Outside._fields or not isinstance(value, str):
            raise invalid(name)
    return Outside(**given)
