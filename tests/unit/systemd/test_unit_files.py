"""The texts of socket units."""

import pytest

from netsrvd.settings import ListenerSettings
from netsrvd.systemd.unit_files import MARK, escaped, is_bindable, unit_files


def texts(listener: ListenerSettings, *, has_devices: bool = True) -> dict[str, str]:
    made = unit_files(listener, listener.endpoints(), has_devices=has_devices)
    return {each.name: each.text for each in made}


def test_all_addresses_are_one_dual_stack_socket() -> None:
    """A port alone, which is IPv4 where the kernel has no IPv6."""
    [(name, text)] = texts(ListenerSettings("a", port=7)).items()
    assert name == "netsrvd-a.socket"
    assert text.startswith(MARK)
    assert "\nListenStream=7\nListenDatagram=7\nBindIPv6Only=both\n" in text
    assert "FreeBind" not in text
    assert "\nWantedBy=sockets.target\n" in text


def test_single_addresses_may_come_later() -> None:
    """FreeBind=, and IPv6 alone on an IPv6 address."""
    [text] = texts(ListenerSettings("a", hosts=("192.0.2.1", "::"), port=7)).values()
    assert "\nListenStream=192.0.2.1:7\nListenStream=[::]:7\n" in text
    assert "\nBindIPv6Only=ipv6-only\n" in text
    assert "\nFreeBind=yes\n" in text


def test_a_link_local_address_has_a_unit_with_its_interface() -> None:
    """And is started by that interface."""
    made = texts(ListenerSettings("a", hosts=("192.0.2.1", "fe80::1%br-0"), port=7))
    assert [*made] == ["netsrvd-a.socket", "netsrvd-a:br\\x2d0.socket"]
    text = made["netsrvd-a:br\\x2d0.socket"]
    assert "\nListenStream=[fe80::1]:7\n" in text
    assert "\nBindToDevice=br-0\n" in text
    assert "\nWantedBy=sys-subsystem-net-devices-br\\x2d0.device\n" in text


@pytest.mark.parametrize(("interface", "has_devices"), [("lo", True), ("eth0", False)])
def test_without_a_device_unit_the_boot_starts_it(interface: str, *, has_devices: bool) -> None:
    """The loopback has none, nor has a container."""
    [text] = texts(ListenerSettings("a", interface=interface), has_devices=has_devices).values()
    assert f"\nBindToDevice={interface}\n" in text
    assert "\nWantedBy=sockets.target\n" in text


def test_buffers_are_there_from_the_beginning() -> None:
    """Before the daemon sets them."""
    options = {"SO_RCVBUF": 1 << 20, "SO_SNDBUF": 1 << 19}
    [text] = texts(ListenerSettings("a", options=options)).values()
    assert "\nReceiveBuffer=1048576\nSendBuffer=524288\n" in text


def test_names_are_escaped() -> None:
    """As by systemd-escape(1), which `tests/repo/test_units.py` asks."""
    assert escaped("br-lan_0.1:2") == "br\\x2dlan_0.1:2"


@pytest.mark.parametrize("name", ["eth0", "br-lan", "wg0.1", "a\\b", "0x", "7a"])
def test_names_that_systemd_takes(name: str) -> None:
    """As systemd-analyze verify does."""
    assert is_bindable(name)


@pytest.mark.parametrize("name", ["12", "0x1", "all", "default", "é0", "a%b", "eth\\", ""])
def test_names_that_systemd_would_ignore(name: str) -> None:
    """The socket would be open on every interface."""
    assert not is_bindable(name)


@pytest.mark.parametrize(
    ("service", "is_timed"), [("stamp", True), ("echoplus", True), ("echo", False)]
)
def test_services_that_measure_have_times_from_the_beginning(
    service: str, *, is_timed: bool
) -> None:
    """The kernel takes the time of a datagram that starts the daemon; others pay nothing for it."""
    [text] = texts(ListenerSettings("a", service, ("udp",))).values()
    assert ("\nTimestamping=ns\n" in text) == is_timed
