"""netsrvd.settings"""

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


def test_settings_are_replaced_and_never_changed() -> None:
    """Every thread may look at settings at any time, because nobody can change them."""
    for frozen in (Settings(), Settings().log, ListenerSettings("a"), ONE):
        with pytest.raises(AttributeError):
            setattr(frozen, frozen._fields[0], None)
    with pytest.raises(TypeError):
        DEFAULT_OPTIONS["TCP_NODELAY"] = False  # type: ignore[index]
