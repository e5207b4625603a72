"""Numbers as people write and read them: sizes such as 65536, "64K", "1M", and spans of time."""

import re

_SIZE = r"([0-9]{1,10}) ?([KMG]?)"
_NUMBER = r"[+-]?[0-9]{1,30}"
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(value: object) -> int | None:
    """Return a size in bytes, None for what is none."""
    found = re.fullmatch(_SIZE, value) if isinstance(value, str) else None
    if found:
        return int(found[1]) * _UNITS[found[2]]
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def shown_size(count: int) -> int | str:
    """Return a size with the largest unit that leaves a whole number."""
    for unit, size_of in reversed(_UNITS.items()):
        if unit and count and not count % size_of:
            return f"{count // size_of}{unit}"
    return count


def if_quoted(value: object) -> str:
    """Return what to add to a complaint about a number or a flag that stands in quotes."""
    if not isinstance(value, str):
        return ""
    if value in ("true", "false"):
        return ", without quotes"
    return ": a number, without quotes" if re.fullmatch(_NUMBER, value) else ""


def span(seconds: float) -> str:
    """Return a span of time in its two largest units, such as `1 d 2 h`."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit_name, size_of in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size_of)
        if count or (unit_name == "s" and not parts):
            parts.append(f"{count} {unit_name}")
    return " ".join(parts[:2])
