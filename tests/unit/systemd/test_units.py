"""Socket units as systemctl(1) shows them."""

import pytest

from netsrvd.sockets.matching import Facts
from netsrvd.systemd.systemctl import properties_of
from netsrvd.systemd.units import Unit, unit

SHOWN = """\
BindIPv6Only={only}
Backlog=4096
BindToDevice=
Listen=[::]:51423 (Stream)
Listen=10.0.0.1:7 (Datagram)
Listen=[fe80::1]:7%eth0 (Datagram)
Listen=/run/other (Stream)
FileDescriptorName=echo
Id=netsrvd.socket
LoadState=loaded
ActiveState=active
FragmentPath=/usr/lib/systemd/system/netsrvd.socket
DropInPaths=/etc/a.conf /etc/b.conf
UnitFileState=enabled
"""


def read(only: str = "both", *, is_v6_only: bool = False) -> Unit:
    return unit(properties_of(SHOWN.format(only=only)), is_v6_only=is_v6_only)


def test_all_sockets_are_read() -> None:
    """TCP and UDP by their addresses; what is none is told as it stands."""
    found = read()
    assert found.sockets == (
        Facts("echo", "tcp", "::", 51423, "", is_dual=True),
        Facts("echo", "udp", "10.0.0.1", 7),
        Facts("echo", "udp", "fe80::1%eth0", 7),
    )
    assert found.others == ("/run/other (Stream)",)
    assert found.drop_ins == ("/etc/a.conf", "/etc/b.conf")
    assert found.is_in_use
    assert found.addresses.startswith("tcp [::]:51423; udp 10.0.0.1:7; ")


@pytest.mark.parametrize(
    ("only", "is_v6_only", "is_dual"),
    [
        ("both", True, True),
        ("default", True, False),
        ("default", False, True),
        ("ipv6-only", False, False),
    ],
)
def test_dual_stack_is_as_systemd_has_it(only: str, *, is_v6_only: bool, is_dual: bool) -> None:
    """BindIPv6Only=default is net.ipv6.bindv6only."""
    assert read(only, is_v6_only=is_v6_only).sockets[0].is_dual is is_dual


def test_a_unit_that_is_not_there_is_not_in_use() -> None:
    """systemctl shows unknown units as well."""
    found = unit({"Id": ["x.socket"], "LoadState": ["not-found"]}, is_v6_only=False)
    assert not found.is_in_use
    assert found.addresses == "nothing"
