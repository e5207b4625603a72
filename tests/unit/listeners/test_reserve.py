"""netsrvd.listeners.reserve"""

import os
import resource
from collections.abc import Iterator

import pytest

from netsrvd.listeners.reserve import Reserve


@pytest.fixture
def reserve() -> Iterator[Reserve]:
    made = Reserve()
    yield made
    made.close()


@pytest.fixture
def no_more() -> Iterator[None]:
    """Leave this process no descriptor that it does not have already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open(os.devnull, os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_it_frees_one_descriptor_once(reserve: Reserve) -> None:
    """What was taken is freed, and then there is none until it is taken again."""
    assert not reserve.release()
    reserve.take()
    held = reserve._descriptor
    assert os.fstat(held)
    assert reserve.release()
    assert not reserve.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(held)
    reserve.take()
    assert reserve.release()


def test_where_there_is_none_there_is_no_reserve(reserve: Reserve, no_more: None) -> None:
    """Without a descriptor to be had it does without, and tries again later."""
    reserve.take()
    assert not reserve.release()
