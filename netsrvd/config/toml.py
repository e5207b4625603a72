"""Reads one TOML file, within limits that keep the cost in proportion to its length."""

import re
import tomllib
from pathlib import Path
from typing import Any

LARGEST_BYTES = 1 << 20
"""Of one file: 50,000 networks fit, /dev/zero does not."""

MOST_PARTS = 64
"""Of one dotted key; the longest that means something has four. tomllib walks through all of them
for each part, and for each key below: 64 KiB of little but one key take it half a minute.
"""

_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MOST_PARTS}}}")


def read(file: Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises OSError, ValueError for what is not TOML or beyond the limits, and RecursionError.
    """
    with file.open("rb") as stream:
        data = stream.read(LARGEST_BYTES + 1)
    if len(data) > LARGEST_BYTES:
        raise ValueError(f"it is longer than {LARGEST_BYTES} bytes")
    text = data.decode()
    if found := _LONG_KEY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"a key has more than {MOST_PARTS} parts (at line {line})")
    return tomllib.loads(text)
