"""The Daytime Protocol (RFC 867): the date and time of this host, in one line for people."""

from collections.abc import Callable, Mapping
from time import localtime, strftime, struct_time, tzset
from types import MappingProxyType

from netsrvd.services import base

LONGEST_LINE = 64
"""The longest one, on a Wednesday in September, has 42 characters and the name of the time zone."""


def _iso(now: struct_time) -> str:
    """Return the form of RFC 3339, such as 1982-02-22T17:37:43-08:00."""
    text = strftime("%Y-%m-%dT%H:%M:%S%z", now)
    return f"{text[:-2]}:{text[-2:]}"


def _weekday(now: struct_time) -> str:
    """Return the first form of the RFC, such as Tuesday, February 22, 1982 17:37:43-PST."""
    return strftime(f"%A, %B {now.tm_mday}, %Y %H:%M:%S-%Z", now)


def _smtp(now: struct_time) -> str:
    """Return the second form of the RFC, such as 02 FEB 82 07:59:01 PST."""
    return strftime("%d %b %y", now).upper() + strftime(" %H:%M:%S %Z", now)


# strftime(3) is English here: this program never takes over the locale of dates (LC_TIME).
FORMATS: Mapping[str, Callable[[struct_time], str]] = MappingProxyType(
    {"iso": _iso, "weekday": _weekday, "smtp": _smtp}
)


def prepare(settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service. The time zone of the host is read now: tzset(3)."""
    tzset()
    shape = FORMATS[settings.daytime_format]

    def make_text(_client: base.Client, at: float) -> bytes:
        return f"{shape(localtime(at))}\r\n".encode()

    return base.send_once(make_text, LONGEST_LINE)
