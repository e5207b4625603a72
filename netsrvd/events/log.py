"""Events of the log."""

from netsrvd.events import WARNING, Event


class RecordsLost(Event):
    """The log took records more slowly than they came; this number is missing before this record.

    The daemon never waits for its log unless `[log] when_full = "wait"` says so.
    """

    __slots__ = ()
    MESSAGE_ID = "c9cff6afc2c941af82fd00dd3a0016cc"
    PRIORITY = WARNING
    SUBJECT = "Log records were lost"
    records: int
    records_lost: int

    def text(self) -> str:
        return (
            f"{self.records} records lost, the log was too slow ({self.records_lost} since start)"
        )


class LogFallback(Event):
    """The configured log cannot be reached; records go to another one."""

    __slots__ = ()
    MESSAGE_ID = "1c75a41fb2ba4d3a84f70724f09a2ac6"
    PRIORITY = WARNING
    SUBJECT = "Another log is in use than configured"
    target: str
    used: str
    error: str

    def text(self) -> str:
        return f"log target {self.target} cannot be used ({self.error}); writing to {self.used}"
