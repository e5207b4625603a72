"""How many connections may be live in all: one count for several threads, without a lock."""

from collections import deque
from collections.abc import Callable


class Places:
    """A pool of places. Any thread may take one and give it back; only main resizes.

    A place is an element of a deque, whose append and pop are atomic, as those of a dict are. Of
    those that a resize took away while somebody had them, as many are owed, and not put back.
    """

    __slots__ = ("_free", "_owed", "_waiting", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = deque([True]) * count
        self._owed: deque[bool] = deque()
        self._waiting: dict[Callable[[], None], None] = {}

    def take(self) -> bool:
        """Take a place; False if there is none."""
        try:
            return self._free.pop()
        except IndexError:
            return False

    def take_anyway(self) -> None:
        """Take a place, and where there is none the next one that is given back."""
        if not self.take():
            self._owed.append(True)

    def give_back(self) -> None:
        """Give a place back, and wake those who wait for one."""
        try:
            self._owed.pop()
        except IndexError:
            self._free.append(True)
            self._wake()

    def are_left(self, wake: Callable[[], None]) -> bool:
        """Return whether there is a place; if there is none, `wake` is called when there is."""
        if not self._free:
            self._waiting[wake] = None
        return bool(self._free)  # once more: one may have come back meanwhile

    @property
    def are_all(self) -> bool:
        """Whether nobody had a place, or was about to get one, a moment ago."""
        return len(self._free) >= self.count

    @property
    def are_none(self) -> bool:
        """Whether all places were taken a moment ago."""
        return not self._free

    @property
    def are_many(self) -> bool:
        """Whether a tenth of all places is free."""
        return len(self._free) * 10 >= self.count

    def resize(self, count: int) -> None:
        """Have so many places from now on."""
        for _ in range(self.count - count):
            self.take_anyway()
        for _ in range(count - self.count):
            self.give_back()
        self.count = count

    def _wake(self) -> None:
        while self._waiting:
            try:
                wake, _ = self._waiting.popitem()
            except KeyError:  # another thread was quicker
                return
            wake()
