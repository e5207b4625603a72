"""A service manager that notes what it is told, and keeps descriptors."""

from tests.support.fdstore import Store


class FakeNotifier(Store):
    """Notes each notification in `steps`; its store takes as many descriptors as there is room."""

    watchdog_seconds = 0.0

    def __init__(self, store_room: int = 0) -> None:
        super().__init__()
        self.store_room = store_room

    def ready(self, status: str) -> None:
        """Note READY=1."""
        self._step(f"ready {status}")

    def reloading(self) -> None:
        """Note RELOADING=1."""
        self._step("reloading")

    def stopping(self, status: str, seconds: float) -> None:
        """Note STOPPING=1, and how long that may take."""
        self._step(f"stopping {seconds:.0f} {status}")

    def status(self, status: str) -> None:
        """Note the status line."""
        self._step(f"status {status}")

    def feed_watchdog(self) -> None:
        """Note WATCHDOG=1."""
        self._step("feed_watchdog")

    def close(self) -> None:
        """Note the end of notifications."""
        self._step("close")

    def empty(self) -> None:
        """Close all descriptors that are kept."""
        super().close()
