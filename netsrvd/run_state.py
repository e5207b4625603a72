"""What the main thread knows of the run, for those that look at it from other threads."""

from typing import NamedTuple


class RunNotes(NamedTuple):
    """Texts about the configuration. Replaced as a whole."""

    configuration: str = ""
    """The path of the file."""
    fault: str = ""
    """Why the last reload failed; empty if it succeeded."""
    problems: tuple[str, ...] = ()
    """What of the configuration the passed sockets do not put into force."""
