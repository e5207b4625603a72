"""What the main thread knows of the run, for those that look at it from other threads."""


class RunNotes:
    """Texts about the configuration. Never changes: a new object takes its place.

    A NamedTuple would take four times as long to make at each start.
    """

    __slots__ = ("configuration", "fault", "problems")

    def __init__(
        self, configuration: str = "", fault: str = "", problems: tuple[str, ...] = ()
    ) -> None:
        self.configuration = configuration
        """The path of the file."""
        self.fault = fault
        """Why the last reload failed; empty if it succeeded."""
        self.problems = problems
        """What of the configuration the passed sockets do not put into force."""
