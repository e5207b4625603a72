"""What all unit tests share."""

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.namespaces import own_network  # noqa: F401 - for all modules

# A slow machine is no fault of the code; what a property test finds it finds again.
settings.register_profile(
    "unit", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = {*threading.enumerate()}
    yield
    assert not {*threading.enumerate()} - before


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A socket that does not block, and its peer."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far
