"""Clients on another host that come and go without a pause, each from an address of its own."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.namespaces import Namespace
from tests.support.patience import SECONDS
from tests.support.peers import Address, connect, echoed

MESSAGE = bytes(range(256))


class Visitors:
    """Threads of the test's, one a source address: connect, have a message echoed, leave, again."""

    def __init__(self, home: Namespace, sources: list[str], address: tuple[str, int]) -> None:
        self.served: list[Address] = []
        """The own addresses of the connections that went well, in order."""
        self.failed: dict[Address, str] = {}
        """What was wrong with the others; a connect that failed has port 0."""
        self._home = home
        self._sources = sources
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come, args=(each,)) for each in sources]

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Have them come and go meanwhile."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(2 * SECONDS)

    def more(self, count: int) -> Callable[[], bool]:
        """Return a function: has each source been served `count` more times since this call?"""
        before = len(self.served)

        def enough() -> bool:
            since = Counter(source for source, _ in self.served[before:])
            return all(since[source] >= count for source in self._sources)

        return enough

    def _come(self, source: str) -> None:
        with self._home.entered():
            while not self._over.is_set():
                self._visit(source)

    def _visit(self, source: str) -> None:
        own: Address = source, 0
        try:
            with connect(self._address, source=source) as sock:
                own = sock.getsockname()
                assert echoed(sock, MESSAGE)
        except (OSError, AssertionError) as error:
            self.failed[own] = repr(error)
        else:
            self.served.append(own)
