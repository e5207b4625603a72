"""Reads one TOML file, within limits that keep the cost in proportion to its length."""

import os
import re
import stat
from errno import EINVAL, EISDIR
from pathlib import Path
from typing import Any

LARGEST_BYTES = 1 << 20
"""Of one file: 50,000 networks fit, /dev/zero does not."""

MOST_PARTS = 64
"""Of one dotted key; the longest that means something has four. tomllib walks through all of them
for each part, and for each key below: 64 KiB of little but one key take it half a minute.
"""

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

MARK = b"\xef\xbb\xbf"
"""The byte order mark that some editors put before UTF-8."""

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""The marks with which a file in UTF-16 begins."""

_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MOST_PARTS}}}"


def read(file: Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises OSError, ValueError for what is not TOML or beyond the limits, and RecursionError.
    """
    return parse(text_of(file))


def text_of(file: Path) -> str:
    """Return the text of a regular file, without a byte order mark.

    A FIFO, device or socket is not opened: the open could wait for ever, or make the device do
    something. Raises OSError, and ValueError for a file that is too long or not UTF-8.
    """
    _refuse_special(file, file.stat())
    # Files of /proc may wait for something to read; with O_NONBLOCK that is an error.
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _refuse_special(file, os.fstat(descriptor))  # it may have been replaced since
        data = b""
        while len(data) <= LARGEST_BYTES and (
            part := os.read(descriptor, LARGEST_BYTES + 1 - len(data))
        ):
            data += part
    finally:
        os.close(descriptor)
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"it is longer than {LARGEST_BYTES} bytes")
    return _decoded(data)


def parse(text: str) -> dict[str, Any]:
    """Return what a text means. Raises ValueError and RecursionError, see `read`."""
    if all(map(_is_comment, text.split("\n"))):
        return {}
    import tomllib  # noqa: PLC0415 - a new installation has comments alone

    if found := re.search(_LONG_KEY, text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"a key has more than {MOST_PARTS} parts (at line {line})")
    return tomllib.loads(text)


def _is_comment(line: str) -> bool:
    """Return whether a line says nothing; not of one with characters that TOML may refuse."""
    return line.isprintable() and line.lstrip(" ")[:1] in ("", "#")


def _refuse_special(file: Path, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(EISDIR, os.strerror(EISDIR), str(file))
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise OSError(EINVAL, f"it is {kind}; only regular files are read", str(file))


def _decoded(data: bytes) -> str:
    if data.startswith(UTF_16):
        raise ValueError("it is UTF-16; save it as UTF-8 (at line 1)")
    try:
        return data.removeprefix(MARK).decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = data[error.start]
        raise ValueError(f"byte 0x{wrong:02x} is not UTF-8 (at line {line})") from error
