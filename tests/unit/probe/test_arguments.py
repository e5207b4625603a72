"""netsrvd.probe.arguments and netsrvd.probe.targets: what words of the command line mean."""

import argparse
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.errors import HostError, UsageError
from netsrvd.probe import arguments, targets


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.2", 0.2), ("200ms", 0.2), ("5m", 300), ("1h", 3600), ("50us", 5e-5), ("3s", 3)],
)
def test_times(text: str, expected: float) -> None:
    """A time is a number of seconds, or has one of the units."""
    assert arguments.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "0", "-1", "1d", "1e3", "ms", "0ms", "٣", "1 s", "nan"])
def test_what_is_no_time(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time"):
        arguments.seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("EF", 46), ("af41", 34), ("CS1", 8), ("LE", 1), ("0", 0), ("63", 63)]
)
def test_code_points(text: str, expected: int) -> None:
    """A code point is a number, or has a name of IANA's registry."""
    assert arguments.dscp(text) == expected


@pytest.mark.parametrize("text", ["64", "-1", "AF55", "", "0x10"])
def test_what_is_no_code_point(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number from 0 to 63"):
        arguments.dscp(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", 7)),
        ("192.0.2.1:80", ("192.0.2.1", 80)),
        ("host.example:1", ("host.example", 1)),
        ("2001:db8::1", ("2001:db8::1", 7)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80)),
        ("[2001:db8::1]", ("2001:db8::1", 7)),
        ("fe80::1%eth0", ("fe80::1%eth0", 7)),
    ],
)
def test_targets(text: str, expected: tuple[str, int]) -> None:
    """A target is a name or an address, with a port or without."""
    assert targets.split(text, 7) == expected


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:0", "host:65536", "[::1", "host:x"])
def test_what_is_no_target(text: str) -> None:
    """Anything else is refused, with the forms that there are."""
    with pytest.raises(UsageError, match="is no target; expected HOST"):
        targets.split(text, 7)


@given(st.text(max_size=30))
def test_any_text_is_a_target_or_refused(text: str) -> None:
    """No text makes another error."""
    try:
        _, port = targets.split(text, 7)
    except UsageError:
        return
    assert 0 < port < 65536


def test_addresses_are_resolved() -> None:
    """An address is itself, of one family alone if that is asked for."""
    [found] = targets.resolve("[::1]:80", 7)
    assert (found.host, found.port, str(found)) == ("::1", 80, "[::1]:80")
    with pytest.raises(HostError, match="::1: "):
        targets.resolve("::1", 7, socket.AF_INET)
    with pytest.raises(HostError):
        targets.resolve("a" * 64 + ".example", 7)
