"""netsrvd.access.datagrams"""

from typing import Any

import pytest

from netsrvd.access.datagrams import DatagramPolicy
from netsrvd.settings import ListenerSettings

PEER = ("192.0.2.1", 40_000)
HERE = ("192.0.2.9", "192.0.2.9")
BROADCAST = "192.0.2.255"


def listener(**settings: Any) -> ListenerSettings:
    return ListenerSettings("lab", **{"allow": ("any",), "unlimited": (), **settings})


def policy(own_ports: tuple[int, ...] = (51423,), **settings: Any) -> DatagramPolicy:
    return DatagramPolicy(listener(**settings), own_ports, lambda host: host == BROADCAST)


@pytest.mark.parametrize(
    ("asked", "local", "reason"),
    [
        ("192.0.2.9", "192.0.2.9", ""),
        ("192.0.2.9", "0.0.0.0", ""),
        ("2001:db8::9", "2001:db8::9", ""),
        ("192.0.2.255", "192.0.2.9", "destination"),
        ("255.255.255.255", "192.0.2.9", "destination"),
        ("255.255.255.255", "0.0.0.0", "destination"),
        ("224.0.0.1", "192.0.2.9", "destination"),
        ("224.0.0.1", "224.0.0.1", "destination"),
        ("ff02::1", "ff02::1", "destination"),
    ],
)
def test_broadcast_and_multicast_are_never_answered(asked: str, local: str, reason: str) -> None:
    """One forged request must not draw an answer from every host of a network."""
    refusal = policy().refusal(PEER, asked, local)
    assert (refusal[0] if refusal else "") == reason


@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (("192.0.2.1", 40_000), ""),
        (("2001:db8::1", 40_000), ""),
        (("0.0.0.0", 40_000), "sender"),
        (("::", 40_000), "sender"),
        (("224.0.0.1", 40_000), "sender"),
        (("240.0.0.1", 40_000), "sender"),
        (("255.255.255.255", 40_000), "sender"),
        (("ff02::1%eth0", 40_000), "sender"),
        ((BROADCAST, 40_000), "sender"),
        (("192.0.2.1", 1023), "port"),
        (("192.0.2.1", 862), "port"),
        (("192.0.2.1", 51423), "port"),
        (("192.0.2.1", 1024), ""),
        (("192.0.2.66", 40_000), "access"),
    ],
)
def test_senders_that_an_answer_would_harm_are_refused(peer: tuple[str, int], reason: str) -> None:
    """An answer goes to one host, and not to a service that would answer it."""
    refusal = policy(deny=("192.0.2.66",)).refusal(peer, *HERE)
    assert (refusal[0] if refusal else "") == reason


def test_a_source_has_one_allowance_for_all_its_flows() -> None:
    """Many ports of an address, or many addresses of a /64, share what one of them may send."""
    found = policy(datagram_rate=10, datagram_burst=2)
    one, two = found.acquire("2001:db8::1"), found.acquire("2001:db8::2")
    assert one is two
    assert [one.exceeds(9, 1.0) for _ in range(3)] == ["", "", "rate"]
    assert found.acquire("2001:db8:0:1::1").exceeds(9, 1.0) == ""
    assert found.rule("rate") == "datagram_rate = 10 a second is exceeded"


@pytest.mark.parametrize(
    ("settings", "reason", "rule"),
    [
        ({"byte_rate": 1000, "byte_burst": 65_536}, "bytes", "byte_rate = 1000 a second is"),
        ({"reply_rate": 1000}, "budget", "reply_rate = 1000 bytes a second are used up"),
    ],
)
def test_bytes_have_limits_too(settings: dict[str, int], reason: str, rule: str) -> None:
    """The largest datagram passes once; then the bytes, of a source or of all, are used up."""
    found = policy(**settings)
    source = found.acquire("192.0.2.1")
    assert source.exceeds(65_507, 1.0) == ""
    assert source.exceeds(65_507, 1.0) == reason
    assert found.rule(reason).startswith(rule)


def test_the_unlimited_are_outside_of_all_limits() -> None:
    """They take nothing from the budget that others need."""
    found = policy(unlimited=("loopback",), reply_rate=65_536, datagram_rate=1, datagram_burst=1)
    free, other = found.acquire("127.0.0.1"), found.acquire("192.0.2.1")
    assert not any(free.exceeds(65_507, 1.0) for _ in range(100))
    assert other.exceeds(1000, 1.0) == ""


def test_a_source_that_has_left_is_still_known() -> None:
    """Its allowance does not begin anew with its next flow."""
    found = policy(datagram_rate=1, datagram_burst=1)
    source = found.acquire("192.0.2.1")
    assert source.exceeds(1, 1.0) == ""
    found.release(source.name)
    assert found.acquire("192.0.2.1").exceeds(1, 1.0) == "rate"


def test_new_settings_judge_anew() -> None:
    """A reload changes access, ports and limits."""
    found = policy(datagram_rate=1, datagram_burst=1)
    source = found.acquire("192.0.2.1")
    found.update(listener(deny=("192.0.2.1",), refused_ports=("own",), datagram_burst=3), (7,))
    assert found.refusal(PEER, *HERE) == ("access", 'deny has "192.0.2.1"')
    assert found.refusal(("192.0.2.2", 53), *HERE) is None
    refusal = found.refusal(("192.0.2.2", 7), *HERE)
    assert refusal is not None
    assert refusal[0] == "port"
    assert [source.exceeds(1, 1.0) for _ in range(4)] == ["", "", "", "rate"]


def test_who_is_denied_is_no_proxy() -> None:
    """Or it could come under any other name."""
    found = policy(proxies=("10.0.0.0/24",), deny=("10.0.0.9",))
    assert [found.is_proxy(host) for host in ("10.0.0.1", "10.0.0.9", "10.0.1.1")] == [
        *(True, False, False),
    ]


@pytest.mark.parametrize(
    ("service", "peer", "is_answered"),
    [
        ("stamp", ("192.0.2.7", 862), True),
        ("stamp", ("192.0.2.7", 861), False),
        ("stamp", ("192.0.2.8", 862), False),
        ("echo", ("192.0.2.7", 862), False),
    ],
)
def test_port_862_is_opened_for_listed_senders(
    service: str,
    peer: tuple[str, int],
    is_answered: bool,  # noqa: FBT001
) -> None:
    """By a reflector alone, and for that port alone, also if it is the listener's own."""
    made = DatagramPolicy(
        listener(service=service, stamp_senders=("192.0.2.7",)), (862,), lambda _: False
    )
    refusal = made.refusal(peer, *HERE)
    assert (refusal is None) == is_answered
    assert is_answered or (refusal and refusal[0] == "port")


def test_a_reload_that_changes_nothing_gives_no_new_allowance() -> None:
    """Neither settings nor the daemon's own ports; either of them begins the limits anew."""
    found = policy(datagram_rate=1, datagram_burst=1)
    source = found.acquire(PEER[0])
    assert [source.exceeds(9, 1.0) for _ in range(2)] == ["", "rate"]
    assert not found.update(listener(datagram_rate=1, datagram_burst=1), (51423,))
    assert source.exceeds(9, 1.0) == "rate"
    assert found.update(listener(datagram_rate=1, datagram_burst=1), (51423, 7))
    assert source.exceeds(9, 1.0) == ""
