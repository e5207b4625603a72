"""Events of the daemon: start, ready, reload, stop, failure."""

from typing import Self

from netsrvd.counters import Counters, fields, recorded
from netsrvd.events import ERROR, NOTICE, WARNING, Event, one_line


class Starting(Event):
    """The daemon has read its configuration and has all its sockets; its threads start now."""

    __slots__ = ()
    MESSAGE_ID = "eac699f9b8fd4341b66c58e6566ef0e0"
    SUBJECT = "netsrvd is starting"
    version: str
    python: str
    pid: int

    def text(self) -> str:
        return f"netsrvd {self.version} starting, Python {self.python}, PID {self.pid}"


class NotServed(Event):
    """A connection that inetd or the like passed cannot be served, or not to its end; the client
    sees it close.

    The text is the error that a terminal would show: fix the configuration or the command line
    that inetd has. `netsrvd check` shows all faults of the configuration.
    """

    __slots__ = ()
    MESSAGE_ID = "b5d4949e6b9b483088199768c0e2c82b"
    PRIORITY = ERROR
    SUBJECT = "A connection that inetd passed is not served"
    error: str

    def text(self) -> str:
        return f"not served: {one_line(self.error)}"


class Ready(Event):
    """The daemon serves. Each listening socket was named in a record of its own before."""

    __slots__ = ()
    MESSAGE_ID = "bcc107c162364d98b23ce59f09246aab"
    PRIORITY = NOTICE
    SUBJECT = "netsrvd is ready"
    sockets: int
    seconds: float

    def text(self) -> str:
        return f"ready: {self.sockets} sockets, {self.seconds * 1000:.0f} ms"


class SettingIgnored(Event):
    """A file has a setting that this version does not use. All else in it is in force."""

    __slots__ = ()
    MESSAGE_ID = "cadabed9c98d48ed9da8fbd057bc2426"
    PRIORITY = WARNING
    SUBJECT = "A setting is no longer used"
    setting: str
    problem: str

    def text(self) -> str:
        return f"ignored: {one_line(self.problem)}"


class Reloaded(Event):
    """The configuration was read again and is in force. Live connections went on.

    What can only change by a restart is named; it keeps its old value until then. Settings
    that the sockets passed by systemd do not put into force have a record of their own.
    """

    __slots__ = ()
    MESSAGE_ID = "07054b3cb4fd4e5495c33fdb16505f25"
    PRIORITY = NOTICE
    SUBJECT = "netsrvd has a new configuration"
    changes: str
    needs_restart: str = ""

    def text(self) -> str:
        later = f"; only after a restart: {self.needs_restart}" if self.needs_restart else ""
        return f"configuration reloaded: {self.changes or 'nothing changed'}{later}"


class ReloadFailed(Event):
    """The new configuration cannot be used. The old one stays in force, nothing was changed.

    `netsrvd check` shows all faults of the files at once; fix them and reload again.
    """

    __slots__ = ()
    MESSAGE_ID = "af7535e9159944739b7aa9c202da1a00"
    PRIORITY = ERROR
    SUBJECT = "netsrvd keeps its old configuration"
    reason: str

    def text(self) -> str:
        return f"reload failed, the old configuration stays: {one_line(self.reason)}"


class Stopping(Event):
    """The daemon was asked to stop. It accepts no new client and waits for the live connections.

    The wait is bounded by `drain_timeout`; a second signal ends it at once. At a restart the live
    connections are handed over to the next process instead; if handlers have to be waited for,
    listeners without any go on accepting clients until then.
    """

    __slots__ = ()
    MESSAGE_ID = "3d846969bf5b4fea87672738574ad094"
    PRIORITY = NOTICE
    SUBJECT = "netsrvd is stopping"
    signal: str
    connections: int
    drain_seconds: float
    purpose: str = "stop"

    def text(self) -> str:
        if self.purpose == "restart":
            what = f"{self.connections} connections" if self.connections else "nothing"
            return f"restarting on {self.signal}: {what} to hand over"
        wait = f" for up to {self.drain_seconds:g} s" if self.drain_seconds else ", not waiting"
        drain = f"draining {self.connections} connections{wait}"
        return f"stopping on {self.signal}: {drain if self.connections else 'nothing to drain'}"


class Stopped(Event, more=recorded()):
    """The last record of a run, with all that was counted since its start.

    Fields whose names end in REASONS have the numbers of a count by its reasons. docs/monitoring.md
    explains each count.
    """

    __slots__ = ()
    MESSAGE_ID = "d0676d8776e0408491aabbb0e1ad3c4c"
    PRIORITY = NOTICE
    SUBJECT = "netsrvd has stopped"
    seconds: float
    drained: int
    cut: int
    handed_over: int
    records_lost: int

    @classmethod
    def of(
        cls,
        counters: Counters,
        *,
        seconds: float,
        drained: int,
        cut: int,
        handed_over: int,
        records_lost: int,
    ) -> Self:
        """Return the record of a run that has counted this."""
        return cls(seconds, drained, cut, handed_over, records_lost, *fields(counters).values())

    def text(self) -> str:
        counted = dict(zip(self.FIELDS, self, strict=True))
        return (
            f"stopped after {self.seconds:.1f} s: {counted['accepted']} connections accepted, "
            f"{counted['refused']} refused, {self.handed_over} handed over, {self.cut} cut off at "
            f"the end; {counted['datagrams_received']} datagrams received, "
            f"{counted['datagrams_sent']} sent; {self.records_lost} records lost"
        )


class NotHandedOver(Event):
    """The daemon is being restarted, and these connections cannot be handed over to the next
    process; they are drained instead.

    The store has room for `FileDescriptorStoreMax=` of the unit. The connections of handlers are
    never handed over, nor are those whose clients have left more than 32 MiB together unread.
    """

    __slots__ = ()
    MESSAGE_ID = "deb7b560baf3447983ab2261cd40b0b0"
    PRIORITY = WARNING
    SUBJECT = "Connections cannot be handed over"
    connections: int
    reason: str

    def text(self) -> str:
        return f"{self.connections} connections are not handed over: {one_line(self.reason)}"


class CodeMissing(Event):
    """A module that the daemon may need later cannot be imported. What needs it will fail, with an
    error; at a restart connections may be drained instead of being handed over.

    The files of the package are damaged, or were replaced while the daemon was starting: reinstall
    it and restart the service.
    """

    __slots__ = ()
    MESSAGE_ID = "d231471570ad4574a30afb3b21d92cb8"
    PRIORITY = WARNING
    SUBJECT = "A module of netsrvd cannot be imported"
    module: str
    error: str

    def text(self) -> str:
        return f"{self.module} cannot be imported: {one_line(self.error)}; restart the service"


class ControlFailed(Event):
    """The answer to a caller of the control socket failed: a bug in netsrvd. Nothing else is
    concerned. Please report the traceback.
    """

    __slots__ = ()
    MESSAGE_ID = "13128af9881149ae87cd2081e211defa"
    PRIORITY = ERROR
    SUBJECT = "An answer on the control socket failed"
    error: str
    traceback: str

    def text(self) -> str:
        return f"an answer on the control socket failed: {one_line(self.error)}"


class ThreadFailed(Event):
    """One of the daemon's own threads ended by an exception: a bug in netsrvd.

    The whole process ends with a failure status, so that systemd restarts it. Please report the
    traceback.
    """

    __slots__ = ()
    MESSAGE_ID = "d3a5d976d59048fdb7ba6c56df5dd33b"
    PRIORITY = ERROR
    SUBJECT = "A thread of netsrvd failed"
    thread: str
    error: str
    traceback: str

    def text(self) -> str:
        return f"thread {self.thread} failed, the daemon ends: {one_line(self.error)}"
