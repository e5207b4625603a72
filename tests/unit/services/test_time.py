"""netsrvd.services.time, against RFC 868"""

import pytest

from netsrvd.services import time
from tests.support.service_client import CLIENT, answered, prepared, said


@pytest.mark.parametrize(
    ("seconds_since_1900", "at"),
    [
        (2_208_988_800, 0),  # "the time is 2,208,988,800 at 00:00 1 Jan 1970 GMT"
        (2_398_291_200, 189_302_400),  # "corresponds to 00:00 1 Jan 1976 GMT"
        (2_524_521_600, 315_532_800),  # "corresponds to 00:00 1 Jan 1980 GMT"
        (2_629_584_000, 420_595_200),  # "corresponds to 00:00 1 May 1983 GMT"
    ],
)
def test_the_times_that_the_rfc_prints(
    seconds_since_1900: int, at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each example of the RFC, as it would have been said then."""
    monkeypatch.setattr(time, "RELEASED", 0)
    assert said(prepared("time"), at=at) == seconds_since_1900.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("at", "sent"),
    [
        (1_800_000_000.0, "eef45080"),
        (1_800_000_000.999, "eef45080"),
        (2_085_978_495.0, "ffffffff"),  # 2036-02-07 06:28:15
        (2_085_978_496.0, "00000000"),
        (2_147_483_648.0, "03aa7e80"),  # where 31 bits since 1970 end
    ],
)
def test_it_is_right_through_2036(at: float, sent: str) -> None:
    """32 bits, big-endian, whole seconds; they begin anew in February 2036."""
    service = prepared("time")
    assert said(service, at=at).hex() == sent
    assert (
        answered(service, b"", at=at) == answered(service, b"what?", at=at) == said(service, at=at)
    )


@pytest.mark.parametrize("at", [0.0, 1_700_000_000.0, time.RELEASED - 0.001])
def test_nothing_is_said_while_the_clock_is_not_set(at: float) -> None:
    """A clock before this program's release: a connection ends without a byte, UDP is silent."""
    service = prepared("time")
    stream = service.stream(CLIENT, at)
    assert stream.greeting() == b""
    assert stream.finished
    assert answered(service, b"", at=at) is None


def test_the_clock_is_set_from_the_release_on() -> None:
    """The very second of the release is a time that a set clock can show."""
    assert len(said(prepared("time"), at=time.RELEASED)) == 4
