"""netsrvd.sockets.descriptors"""

import resource

import pytest

from netsrvd.errors import SocketError
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.sockets.descriptors import DescriptorBudget, budget

TWO = (ListenerSettings("one", max_connections=100), ListenerSettings("two", max_connections=50))


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard limit of 100 descriptors."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, 100))


@pytest.mark.parametrize(("asked", "configured"), [(0, 150), (10, 10), (200, 150)])
def test_there_are_as_many_as_are_configured(
    monkeypatch: pytest.MonkeyPatch, asked: int, configured: int
) -> None:
    """What the listeners may have together, or what all may have, whichever is less."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 524_288))
    settings = Settings(max_connections=asked, listeners=TWO)
    assert budget(settings, 4, 0) == DescriptorBudget(configured, configured, 524_288)


def test_descriptors_are_the_limit_of_all(limit: None) -> None:
    """What the daemon needs for itself, more for each of its parts, is not for clients."""
    settings = Settings(listeners=TWO)
    few, more = budget(settings, 2, 0), budget(settings, 4, 0)
    assert (few.configured, few.descriptors) == (150, 100)
    assert 0 < more.connections < few.connections < 100 - 2
    assert budget(settings, 4, 3).connections == more.connections - 6


def test_without_any_left_nothing_can_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how many are needed, and how to have them."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 20))
    with pytest.raises(SocketError, match=r"is 20, but .* 56 are needed; raise LimitNOFILE="):
        budget(Settings(), 4, 0)


def test_no_limit_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """RLIM_INFINITY is smaller than any number in Python."""
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))
    assert budget(Settings(), 4, 0).connections == 10_000
