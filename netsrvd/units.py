"""Sizes as people write them: 65536, "64K", "1M"."""

import re

_SIZE = re.compile(r"([0-9]{1,10}) ?([KMG]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(value: object) -> int | None:
    """Return a size in bytes, None for what is none."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found:
        return int(found[1]) * _UNITS[found[2]]
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def shown_size(count: int) -> int | str:
    """Return a size with the largest unit that leaves a whole number."""
    for unit, size_of in reversed(_UNITS.items()):
        if unit and count and not count % size_of:
            return f"{count // size_of}{unit}"
    return count
