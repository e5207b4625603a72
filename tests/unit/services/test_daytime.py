"""netsrvd.services.daytime, against RFC 867"""

import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest

from netsrvd.config import schema
from netsrvd.services import daytime
from tests.support.service_client import answered, prepared, said


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Let this host have another time zone."""
    yield lambda name: monkeypatch.setenv("TZ", name)
    monkeypatch.undo()
    time.tzset()


FEBRUARY_22 = 383_276_263.0
FEBRUARY_2 = 381_513_541.0
"""The two times that the RFC prints, in seconds since 1970."""


@pytest.mark.parametrize(
    ("shape", "at", "line"),
    [
        ("weekday", FEBRUARY_22, b"Monday, February 22, 1982 17:37:43-PST\r\n"),
        ("smtp", FEBRUARY_2, b"02 FEB 82 07:59:01 PST\r\n"),
        ("iso", FEBRUARY_22, b"1982-02-22T17:37:43-08:00\r\n"),
    ],
)
def test_the_lines_that_the_rfc_prints(
    shape: str, at: float, line: bytes, zone: Callable[[str], None]
) -> None:
    """Both forms as they are printed there (but that day was no Tuesday), and that of RFC 3339."""
    zone("America/Los_Angeles")
    service = prepared("daytime", daytime_format=shape)
    assert said(service, at=at) == answered(service, b"", at=at) == line


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("UTC", "+00:00"),
        ("Asia/Kolkata", "+05:30"),
        ("Asia/Kathmandu", "+05:45"),
        ("America/St_Johns", "-03:30"),
        ("Pacific/Kiritimati", "+14:00"),
    ],
)
def test_the_offset_is_that_of_the_zone(
    name: str, offset: str, zone: Callable[[str], None]
) -> None:
    """The default form can be read back, and is the very second that was asked about."""
    zone(name)
    line = said(prepared("daytime"), at=1_800_000_000.9).decode()
    assert line.endswith(offset + "\r\n")
    assert datetime.fromisoformat(line.strip()).timestamp() == 1_800_000_000


def test_summer_time_has_its_own_name(zone: Callable[[str], None]) -> None:
    """The zone is that of the moment, in all forms."""
    zone("Europe/Berlin")
    for at, name, offset in (
        (1_800_000_000.0, "CET", "+01:00"),
        (1_815_000_000.0, "CEST", "+02:00"),
    ):
        assert said(prepared("daytime", daytime_format="weekday"), at=at).endswith(
            f"-{name}\r\n".encode()
        )
        assert said(prepared("daytime", daytime_format="smtp"), at=at).endswith(
            f" {name}\r\n".encode()
        )
        assert said(prepared("daytime"), at=at).endswith(f"{offset}\r\n".encode())


@pytest.mark.parametrize("shape", daytime.FORMATS)
def test_the_longest_line_fits_an_empty_datagram(shape: str, zone: Callable[[str], None]) -> None:
    """A Wednesday in September, in the zone with the longest name that there is."""
    zone("<+1345>-13:45")
    wednesday = 2_074_413_600.0  # 2035-09-26
    service = prepared("daytime", daytime_format=shape)
    line = said(service, at=wednesday)
    assert len(line) <= service.datagrams.reply_floor_bytes
    assert line.isascii()
    assert line.endswith(b"\r\n")
    assert line.count(b"\n") == 1


def test_a_reload_reads_the_time_zone_again(zone: Callable[[str], None]) -> None:
    """Preparing the service is enough; nothing has to be restarted."""
    zone("UTC")
    assert said(prepared("daytime")) == b"1970-01-01T00:00:00+00:00\r\n"
    zone("Asia/Tokyo")
    assert said(prepared("daytime")) == b"1970-01-01T09:00:00+09:00\r\n"


def test_the_configuration_knows_the_forms() -> None:
    """The words of the setting are the forms that there are."""
    [rule] = [rule for rule in schema.SERVICE_RULES if rule.key == "daytime_format"]
    for shape in daytime.FORMATS:
        assert rule.kind.read(shape) == shape
    with pytest.raises(
        ValueError, match="one of " + ", ".join(f'"{each}"' for each in daytime.FORMATS)
    ):
        rule.kind.read("other")
