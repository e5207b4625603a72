"""Events of the threads of Python handlers."""

from netsrvd.addresses import shown
from netsrvd.events import NOTICE, WARNING, Event


class HandlersBusy(Event):
    """All threads that a listener may have for its handler are in use. Further connections are
    accepted and wait for one, within `idle_timeout`.

    Raise `handler_threads`, or shorten `idle_timeout` if clients keep connections that they do not
    use; `max_connections_per_source` bounds the connections of one source. If it has fewer threads
    than `handler_threads`, no more could be started: raise `TasksMax=` of the unit.
    """

    __slots__ = ()
    MESSAGE_ID = "39ebf24d9b234d1e99ee2720fac019be"
    PRIORITY = WARNING
    SUBJECT = "All threads of a handler are in use"
    listener: str
    service: str
    threads: int

    def text(self) -> str:
        return (
            f"{self.listener}: all {self.threads} threads of {self.service} are busy; others wait"
        )


class HandlersFree(Event):
    """No connection waits for a thread of the handler any more."""

    __slots__ = ()
    MESSAGE_ID = "809d8057954f4dfdbe47873ff2851697"
    PRIORITY = NOTICE
    SUBJECT = "Threads of a handler are free again"
    listener: str
    service: str
    seconds: float

    def text(self) -> str:
        return (
            f"{self.listener}: threads of {self.service} are free again, "
            f"all were busy for {self.seconds:.1f} s"
        )


class HandlerStuck(Event):
    """A handler goes on although its connection has ended, or has worked on a datagram for long.
    It keeps one of the listener's threads until it returns, or until the daemon ends.

    It calls something that blocks without a time-out, computes for long, or goes on after the
    exception that reported the end; see `deadline` in docs/handlers.md.
    """

    __slots__ = ()
    MESSAGE_ID = "c03369f571114dc5bf9015b864fe1033"
    PRIORITY = WARNING
    SUBJECT = "A handler does not return"
    listener: str
    service: str
    peer_address: str
    peer_port: int
    seconds: float
    connection: str = ""

    def text(self) -> str:
        peer = shown(self.peer_address, self.peer_port)
        return (
            f"{self.listener}: {self.service} does not return for {peer}, after "
            f"{self.seconds:.1f} s; it keeps a thread"
        )
