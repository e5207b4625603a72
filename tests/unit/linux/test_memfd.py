"""netsrvd.linux.memfd"""

import os
import tempfile

import pytest

from netsrvd.linux import memfd


@pytest.mark.parametrize("size", [0, 1, memfd.READ_BYTES + 1])
def test_what_is_sealed_is_read_as_it_was(size: int) -> None:
    """Whatever its size, and wherever somebody has read or sought in it before."""
    data = os.urandom(size)
    descriptor = memfd.sealed("test", data)
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
        assert memfd.content(descriptor) == data
    finally:
        os.close(descriptor)


def test_nobody_can_change_it() -> None:
    """Neither its bytes nor its size, by whatever descriptor."""
    descriptor = memfd.sealed("test", b"data")
    try:
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 1)
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_what_is_not_sealed_is_not_read() -> None:
    """Neither a file of this kind that could still change nor a file of another kind."""
    descriptor = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    try:
        with pytest.raises(ValueError, match="not sealed"):
            memfd.content(descriptor)
    finally:
        os.close(descriptor)
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as file:
        for other in (file.fileno(), reader):
            with pytest.raises(ValueError, match="sealed"):
                memfd.content(other)
    os.close(reader)
    os.close(writer)
