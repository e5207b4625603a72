"""A service with passed sockets, as systemd restarts it: what one run leaves the next one gets."""

import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netsrvd.sockets.activation import STORED_SOCKET
from tests.support.activation import passing
from tests.support.run import Run, echo

FORGOTTEN = ["handover/connection", "handover/state"]


class Unit:
    """The sockets of a service named `echo`, and how much its descriptor store holds."""

    def __init__(
        self, start: Callable[..., Run], port: int, sockets: Sequence[socket.socket], room: int = 99
    ) -> None:
        self.port = port
        self.sockets = sockets
        self.room = room
        self._start = start

    def start(
        self,
        left: Sequence[tuple[int, str]] = (),
        configuration: Mapping[str, object] | str | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Run:
        """Return a run that has the sockets, and what another run left in the store."""
        names = ["echo"] * len(self.sockets) + [name for _, name in left]
        given = [*self.sockets, *(descriptor for descriptor, _ in left)]
        run = self._start(
            echo(self.port) if configuration is None else configuration,
            environment={"NETSRVD_FDSTORE": str(self.room), **(environment or {})},
            **(passing(given, ":".join(names)) if given else {}),
            left=left,
            **how,
        )
        if how.get("ready", True) and any(not name.startswith(STORED_SOCKET) for _, name in left):
            run.wait(lambda: asked_last(run), "question whether systemd has read READY=1")
            run.wait(lambda: run.is_over or run.held()["pipe:"] <= 1, "end of that question")
            run.rest()
        return run

    def restart(self, run: Run, *more: Any, **how: Any) -> Run:
        """Return the successor of a run."""
        follow(run)
        return self.succeed(run, *more, **how)

    def succeed(self, run: Run, *more: Any, **how: Any) -> Run:
        """Return the successor of a run that has ended, once what was left is that one's alone."""
        names = {name for _, name in run.store}
        listening = {name for name in names if name.startswith(STORED_SOCKET)}
        successor = self.start(run.store, *more, **how)
        others = names - listening and {*FORGOTTEN, *names} - listening
        assert forgotten(successor) == sorted([*listening, *others])
        run.empty_store()
        return successor


def follow(run: Run) -> None:
    """Have a run end for a restart."""
    run.send(signal.SIGUSR1)
    run.send(signal.SIGTERM)
    run.wait_end()


def forgotten(run: Run) -> list[str]:
    """Return what a run had systemd forget before it was ready."""
    ready = next(place for place, notice in enumerate(run.notices) if "READY" in notice)
    return sorted(each["FDNAME"] for each in run.notices[:ready] if "FDSTOREREMOVE" in each)


def asked_last(run: Run) -> bool:
    """Return whether a run has sent a barrier after it was ready."""
    kinds = [next(iter(notice)) for notice in run.notices]
    return "BARRIER" in kinds[kinds.index("READY") :]
