"""netsrvd.services.whoami"""

import pytest

from netsrvd.addresses import shown
from tests.support.service_client import FakeClient, answered, prepared, said

LONGEST = "2001:1db8:ffff:ffff:ffff:ffff:ffff:ffff"


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", LONGEST])
def test_a_client_is_told_its_address_and_port(host: str) -> None:
    """One line, as the log writes it, by TCP and UDP."""
    service, client = prepared("whoami"), FakeClient((host, 65_535))
    line = f"{shown(host, 65_535)}\n".encode()
    assert said(service, client) == answered(service, b"", client) == line
    assert len(line) <= service.datagrams.reply_floor_bytes


def test_the_zone_of_a_link_local_address_stays_here() -> None:
    """It is the name of an interface of this host and means nothing to the client (RFC 4007)."""
    client = FakeClient(("fe80::7%eth0", 40_000))
    assert said(prepared("whoami"), client) == b"[fe80::7]:40000\n"
