"""A service manager's descriptor store: it keeps what it is given, and gives it to a successor."""

import os
from collections.abc import Sequence

from netsrvd.sockets.activation import Stored


class Store:
    """A store in this process. Each of its steps can be told to fail, by its name."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.stored: list[Stored] = []
        self.fails: dict[str, Exception] = {}
        self.has_no_room_for = ""
        """What it closes instead of keeping it, by its name."""

    def fdstore(self, name: str, descriptors: Sequence[int]) -> None:
        """Keep descriptors of the same files under this name."""
        self._step(f"store {name}")
        if name != self.has_no_room_for:
            self.stored += [(os.dup(each), name) for each in descriptors]

    def barrier(self) -> None:
        """Have done all."""
        self._step("barrier")

    def fdstore_remove(self, name: str) -> None:
        """Close all of this name."""
        self._step(f"forget {name}")
        for descriptor in [number for number, given in self.stored if given == name]:
            os.close(descriptor)
        self.stored = [each for each in self.stored if each[1] != name]

    def passed_on(self) -> list[Stored]:
        """Return other descriptors of all that is kept, as a successor gets them."""
        return [(os.dup(descriptor), name) for descriptor, name in self.stored]

    def close(self) -> None:
        """Close all that is kept."""
        while self.stored:
            os.close(self.stored.pop()[0])

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if error := self.fails.get(name):
            raise error
