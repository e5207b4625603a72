"""The listener of a connection, in the test's thread: its loop does not run."""

from typing import Any

from netsrvd.connection import Connection
from netsrvd.counters import Counters
from netsrvd.event_loop import EventLoop
from netsrvd.settings import ListenerSettings
from tests.support.reports import Failures, Reports

PEER, LOCAL = ("192.0.2.1", 40_000), ("192.0.2.9", 7)


class Owner:
    """Keeps what connections report, those that have ended, and those that wait for memory."""

    def __init__(self, settings: ListenerSettings) -> None:
        self.settings = settings
        self.loop = EventLoop("test", Failures())
        self.counters = Counters()
        self.report = Reports()
        self.ended: list[Connection] = []
        self.retries: list[Connection] = []

    def retry_later(self, connection: Connection) -> None:
        """Note that a connection is to be watched for room again."""
        self.retries.append(connection)

    def connection_closed(self, connection: Connection) -> None:
        """Note that a connection is about to be closed."""
        self.ended.append(connection)
        self.loop.remove(connection.descriptor)

    def connection(self, sock: Any, identity: str = "c-1", **attributes: Any) -> Connection:
        """Return a connection that was accepted at 100 seconds, with some attributes changed."""
        made = Connection(self, sock, identity, PEER, LOCAL, None, 100.0)
        for name, value in attributes.items():
            setattr(made, name, value)
        return made

    def close(self) -> None:
        """End the loop, which never ran."""
        self.loop.join(0)
