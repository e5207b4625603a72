"""netsrvd.services.base"""

import pytest

from netsrvd.services import base


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.7", "192.0.2.7:40000"),
        ("2001:db8::7", "[2001:db8::7]:40000"),
        ("fe80::1%eth0", "[fe80::1]:40000"),
    ],
)
def test_an_address_is_shown_as_elsewhere(host: str, text: str) -> None:
    """As in the log, but without the zone, which names an interface of this host."""
    assert base.shown(host, 40_000) == text


def test_nobody_is_present_before_anybody_looks() -> None:
    """`netsrvd check` prepares services, too, where no connection can be."""
    assert not base.ServerView().live()
