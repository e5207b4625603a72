"""Replies of the services `time` (RFC 868) and `daytime` (RFC 867): the seconds of a clock."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from netsrvd.probe.exchange import Answer

SECOND_NS = 1_000_000_000

FROM_1900_TO_1970 = 2_208_988_800
ERA_SECONDS = 1 << 32
"""After this the 32 bits of RFC 868 begin again, first in 2036."""

TIME_BYTES = 4

LONGEST_LINE = 512

_WEEKDAY = re.compile(r"[A-Z][a-z]+day, ([A-Z][a-z]+) ([0-9]{1,2}), ([0-9]{4}) ([0-9:]{8})-(\w+)")
_SMTP = re.compile(r"([0-9]{1,2}) ([A-Za-z]{3}) ([0-9]{2}|[0-9]{4}) ([0-9:]{8}) (\w+)")

UTC_NAMES = {"UTC", "GMT", "Z", "UCT"}
"""Names of time zones that mean the same everywhere; others are ambiguous."""


class Clock:
    """Empty requests, whose replies tell the time. `read` is one of the functions below."""

    first_sequence = 0
    has_sequence = False

    def __init__(self, read_seconds: Callable[[bytes, int], int | None]) -> None:
        self._read_seconds = read_seconds
        self._now = 0

    def request(self, _sequence: int, now_ns: int) -> bytes:
        """Return the payload of a probe."""
        self._now = now_ns // SECOND_NS
        return b""

    def quoted(self, _payload: bytes) -> int | None:
        """Return None: a probe has no number, but a socket of its own."""
        return None

    def read(self, payload: bytes) -> Answer | None:
        """Return what a reply says."""
        seconds = self._read_seconds(payload, self._now)
        if seconds is None:
            return Answer(None, damaged=True)
        return Answer(None, clock=(seconds * SECOND_NS, (seconds + 1) * SECOND_NS))


def time_seconds(payload: bytes, near: int) -> int | None:
    """Return the seconds since 1970 that a reply of `time` means; None if it is no such reply.

    Of the times that the 32 bits may mean it is the one nearest to `near`, in the same unit.
    """
    if len(payload) != TIME_BYTES:
        return None
    seconds = int.from_bytes(payload, "big") - FROM_1900_TO_1970
    return seconds + round((near - seconds) / ERA_SECONDS) * ERA_SECONDS


def daytime_seconds(payload: bytes, _near: int = 0) -> int | None:
    """Return the seconds since 1970 that a reply of `daytime` means.

    None for a line without a time zone, with the name of one that is ambiguous, or of another form
    than RFC 3339 and the two of RFC 867.
    """
    text = payload[:LONGEST_LINE].decode("ascii", "replace").strip()
    with suppress(ValueError):
        found = datetime.fromisoformat(text)
        return int(found.timestamp()) if found.tzinfo else None
    if named := _WEEKDAY.fullmatch(text):
        month, day, year, clock, zone = named.groups()
    elif named := _SMTP.fullmatch(text):
        day, month, year, clock, zone = named.groups()
    else:
        return None
    if zone.upper() not in UTC_NAMES:
        return None
    year = f"20{year}" if len(year) == 2 else year  # noqa: PLR2004 - the form of the RFC
    for form in ("%d %B %Y %H:%M:%S", "%d %b %Y %H:%M:%S"):
        with suppress(ValueError):
            moment = datetime.strptime(f"{day} {month} {year} {clock}", form)  # noqa: DTZ007
            return int(moment.replace(tzinfo=UTC).timestamp())
    return None
