"""Events of live connections at a restart."""

from netsrvd.events import NOTICE, WARNING, Event, one_line


class HandedOver(Event):
    """The daemon is being restarted: these live connections wait in systemd's descriptor store for
    the next process, which will write the records of their ends, with the same ids.
    """

    __slots__ = ()
    MESSAGE_ID = "d7011afca93d47fbb11f575e96cc5515"
    PRIORITY = NOTICE
    SUBJECT = "Connections were handed over"
    connections: int
    seconds: float

    def text(self) -> str:
        return (
            f"{self.connections} connections handed over to the next process "
            f"in {self.seconds * 1000:.0f} ms"
        )


class ConnectionsRestored(Event):
    """The daemon serves the live connections of the process before.

    `lost` are those whose sockets did not arrive. `seconds` is the time in which none was served.
    """

    __slots__ = ()
    MESSAGE_ID = "b5fd25e154a14213a119cd687da8f7b1"
    PRIORITY = NOTICE
    SUBJECT = "Connections were restored"
    connections: int
    lost: int
    seconds: float

    def text(self) -> str:
        return (
            f"{self.connections} connections restored, {self.lost} lost; "
            f"they were not served for {self.seconds * 1000:.0f} ms"
        )


class HandoverUnusable(Event):
    """Something in systemd's descriptor store could not be used, and was closed. An older version
    that follows a newer one closes connections that still wait for the header of their proxy. If
    other connections ended by that, this is a bug in netsrvd: please report it.
    """

    __slots__ = ()
    MESSAGE_ID = "c2de1ab6ef084fbb8b413c0c8779cbe1"
    PRIORITY = WARNING
    SUBJECT = "Something that was handed over is unusable"
    error: str

    def text(self) -> str:
        return f"handed over, but unusable: {one_line(self.error)}"
