"""netsrvd.access.connections"""

import ipaddress
from typing import Any

import pytest

from netsrvd.access import connections
from netsrvd.access.connections import ConnectionPolicy
from netsrvd.settings import ListenerSettings


def policy(**settings: Any) -> ConnectionPolicy:
    return ConnectionPolicy(listener(**settings))


def listener(**settings: Any) -> ListenerSettings:
    return ListenerSettings("lab", **{"allow": ("any",), "unlimited": (), **settings})


def refusal(found: ConnectionPolicy, host: str, now: float = 1.0) -> tuple[str, str] | None:
    """Return why a connection is refused; one that is not has ended again."""
    source, refused = found.admit(found.look_up(host), now)
    if source is not None:
        found.release(source)
    return refused


def test_strangers_stay_out() -> None:
    """AccessList comes first, with its rule."""
    assert refusal(policy(allow=("local",)), "192.0.2.1") == (
        "access",
        "no entry of allow contains it",
    )


def test_proxies_are_known_and_may_come_themselves() -> None:
    """An entry of `proxies` lets its addresses in as one of `allow` would, until a reload; whoever
    is denied can come under no other name either.
    """
    found = policy(allow=("192.0.2.0/24",), deny=("10.0.0.9",), proxies=("10.0.0.0/24",))
    assert found.is_proxy("10.0.0.1")
    assert refusal(found, "10.0.0.1") is None
    assert refusal(found, "10.0.0.9") == ("access", 'deny has "10.0.0.9"')
    assert not found.is_proxy("10.0.0.9")
    assert not found.is_proxy("192.0.2.1")
    found.update(listener(allow=("192.0.2.0/24",)))
    assert not found.is_proxy("10.0.0.1")
    assert refusal(found, "10.0.0.1") == ("access", "no entry of allow contains it")


@pytest.mark.parametrize(
    ("hosts", "others"),
    [
        (["192.0.2.1"] * 3, ["192.0.2.2"]),
        (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1:2:3"], ["2001:db8:0:1::1"]),
        (["fe80::1%eth0", "fe80::2%eth0", "fe80::3%eth0"], ["fe80::1%eth1"]),
    ],
    ids=["IPv4", "IPv6", "link-local"],
)
def test_a_source_may_have_so_many(hosts: list[str], others: list[str]) -> None:
    """An IPv4 address, or all addresses of an IPv6 /64 together, have as many connections as the
    limit says and not one more; others are let in; who leaves makes room.
    """
    found, inside = policy(max_connections_per_source=2), []
    for host in hosts[:2]:
        assert refusal(found, host) is None
        inside.append(found.acquire(found.look_up(host)))
    assert refusal(found, hosts[2]) == ("source", "max_connections_per_source = 2 are live")
    assert all(refusal(found, host) is None for host in others)
    found.release(inside[0])
    assert refusal(found, hosts[2]) is None


def test_a_source_may_come_so_fast() -> None:
    """After the burst only the rate is left; who is refused for that does not lose by it; another
    source has its own allowance.
    """
    found = policy(connection_rate=10, connection_burst=3)
    verdicts = [refusal(found, "192.0.2.1") for _ in range(5)]
    assert verdicts == [None] * 3 + [("rate", "connection_rate = 10 a second is exceeded")] * 2
    assert refusal(found, "192.0.2.2") is None
    assert refusal(found, "192.0.2.1", 1.125) is None
    assert refusal(found, "192.0.2.1", 1.125)


def test_no_limit_holds_for_the_unlimited() -> None:
    """Whom `unlimited` names may have and do anything, but must be let in like everybody."""
    found = policy(unlimited=("192.0.2.0/24",), deny=("192.0.2.9",), max_connections_per_source=1)
    for _ in range(5000):
        assert refusal(found, "192.0.2.1") is None
        found.acquire(found.look_up("192.0.2.1"))
    assert refusal(found, "192.0.2.9") == ("access", 'deny has "192.0.2.9"')


def test_an_unlimited_address_leaves_its_neighbours_limited() -> None:
    """One address of a /64 without limits does not count for the others in it."""
    found = policy(unlimited=("2001:db8::1",), max_connections_per_source=1)
    for _ in range(3):
        assert refusal(found, "2001:db8::1") is None
        found.acquire(found.look_up("2001:db8::1"))
    assert refusal(found, "2001:db8::2") is None
    found.acquire(found.look_up("2001:db8::2"))
    assert refusal(found, "2001:db8::3")


def test_new_settings_count_who_is_inside() -> None:
    """A reload judges by the new limits, and those who came before it count, whatever they were."""
    found = policy()
    inside = [found.acquire(found.look_up("192.0.2.1")) for _ in range(3)]
    found.update(listener(max_connections_per_source=3))
    assert refusal(found, "192.0.2.1")
    found.update(listener(unlimited=("any",)))
    assert refusal(found, "192.0.2.1") is None
    found.update(listener(max_connections_per_source=3))
    for name in inside:
        found.release(name)
        assert refusal(found, "192.0.2.1") is None


def test_a_reload_that_changes_nothing_gives_no_new_allowance() -> None:
    """The limits go on as they are; other settings begin them anew."""
    found = policy(connection_rate=1, connection_burst=1)
    assert refusal(found, "192.0.2.1") is None
    assert not found.update(listener(connection_rate=1, connection_burst=1))
    assert refusal(found, "192.0.2.1") == ("rate", "connection_rate = 1 a second is exceeded")
    assert found.update(listener(connection_rate=1, connection_burst=2))
    assert refusal(found, "192.0.2.1") is None


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    """Clients cannot make the memory grow, and are judged the same afterwards."""
    found = policy(deny=("192.0.2.1",))
    for number in range(3 * connections.KNOWN_KEPT):
        assert refusal(found, str(ipaddress.IPv4Address(number))) is None
        assert len(found._known) <= connections.KNOWN_KEPT
    assert refusal(found, "192.0.2.1")


def test_the_unlogged_are_known() -> None:
    """By the rules of `allow`: the entries are addresses, networks and words."""
    found = policy(unlogged=("192.0.2.0/24", "loopback"))
    assert [found.look_up(host).is_unlogged for host in ("192.0.2.7", "::1", "192.0.3.1")] == [
        *(True, True, False)
    ]
