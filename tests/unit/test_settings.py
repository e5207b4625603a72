"""netsrvd.settings"""

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from netsrvd.settings import DEFAULT_OPTIONS, Endpoint, ListenerSettings, Settings

ONE = Endpoint("one", "tcp", "192.0.2.1", 7, "")


def test_all_addresses_are_one_socket_a_family() -> None:
    """A listener without hosts has an endpoint for each protocol and family."""
    found = ListenerSettings("echo").endpoints()
    assert [(end.protocol, end.host) for end in found] == [
        ("tcp", "0.0.0.0"),
        ("tcp", "::"),
        ("udp", "0.0.0.0"),
        ("udp", "::"),
    ]
    assert {(end.listener, end.port, end.interface) for end in found} == {("echo", 51423, "")}


def test_each_host_is_a_socket_a_protocol() -> None:
    """A listener with hosts has exactly those."""
    listener = ListenerSettings("a", protocols=("udp",), hosts=("::1",), port=9, interface="lo")
    assert listener.endpoints() == [Endpoint("a", "udp", "::1", 9, "lo")]


@pytest.mark.parametrize(
    ("change", "overlaps"),
    [
        ({}, True),
        ({"listener": "two"}, True),
        ({"host": "0.0.0.0"}, True),
        ({"host": "192.0.2.2"}, False),
        ({"host": "::"}, False),
        ({"port": 8}, False),
        ({"protocol": "udp"}, False),
        ({"interface": "eth0"}, True),
    ],
)
def test_endpoints_overlap(change: dict[str, str], overlaps: bool) -> None:  # noqa: FBT001
    """Two endpoints overlap, in either order, where the kernel would not let both be bound."""
    other = replace(ONE, **change)  # type: ignore[arg-type]
    assert ONE.overlaps(other) is overlaps
    assert other.overlaps(ONE) is overlaps


@pytest.mark.parametrize(("interface", "overlaps"), [("eth0", True), ("eth1", False), ("", True)])
def test_interfaces_keep_endpoints_apart(interface: str, overlaps: bool) -> None:  # noqa: FBT001
    """Two interfaces do not meet; one and all of them do."""
    other = replace(ONE, interface=interface)
    assert replace(ONE, interface="eth0").overlaps(other) is overlaps


def test_what_systemd_passed_overlaps_nothing() -> None:
    """An endpoint that stands for passed sockets has no address of its own."""
    adopted = Endpoint("one", "tcp")
    assert not adopted.overlaps(adopted)
    assert not adopted.overlaps(replace(ONE, host="0.0.0.0"))


def test_settings_are_replaced_and_never_changed() -> None:
    """Every thread may look at settings at any time, because nobody can change them."""
    for frozen in (Settings(), Settings().log, ListenerSettings("a"), ONE):
        with pytest.raises(FrozenInstanceError):
            setattr(frozen, fields(frozen)[0].name, None)
    with pytest.raises(TypeError):
        DEFAULT_OPTIONS["TCP_NODELAY"] = False  # type: ignore[index]
