"""netsrvd.control.methods"""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from netsrvd.control import methods
from netsrvd.control.callers import CallError, Written
from netsrvd.control.methods import ITEMS_PER_STEP, REPLIES_PER_STEP, _highest


def connections(*hosts: str) -> list[Any]:
    """Return a connection of each host."""
    return [SimpleNamespace(peer=(host, 1)) for host in hosts]


def listed(found: list[Any], address: str | None) -> list[Any]:
    """Return what each step of a list yields, each connection shown as its host."""
    is_meant = methods._filter(address)
    return list(methods._listed("host", found, is_meant, lambda one, now: one.peer[0]))


def test_a_step_has_a_limit_of_replies_and_of_looks() -> None:
    """Also where few or none of many connections are meant."""
    steps = listed(connections(*["192.0.2.1"] * 1000), None)
    assert max(map(len, steps)) == REPLIES_PER_STEP
    assert sum(map(len, steps)) == 1000
    none = listed(connections(*["192.0.2.1"] * 4 * ITEMS_PER_STEP), "198.51.100.0/24")
    assert len(none) >= 4
    assert not any(none)


def test_a_network_chooses_its_peers() -> None:
    """Of IPv4 and of IPv6; link-local addresses have a scope."""
    found = connections("192.0.2.1", "198.51.100.1", "fe80::1%eth0")
    assert listed(found, "192.0.2.0/24") == [[{"host": "192.0.2.1"}]]
    assert listed(found, "fe80::/10") == [[{"host": "fe80::1%eth0"}]]


@pytest.mark.parametrize("address", ["", "nonsense", 7, "192.0.2.1/24", "::ffff:192.0.2.1"])
def test_what_is_no_network_is_an_error(address: Any) -> None:
    """It names the parameter."""
    with pytest.raises(CallError) as error:
        methods._filter(address)
    assert error.value.message["parameters"] == {"parameter": "address"}


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "3", 1001, None])
def test_a_count_has_its_limits(count: Any) -> None:
    """It is a whole number up to a thousand."""
    with pytest.raises(CallError):
        methods._checked_count(count)


def test_the_highest_of_many_are_found_in_steps() -> None:
    """No step looks at more than some and those that it keeps; the result is that of a sort."""
    entries = [number * 7919 % 10_007 for number in range(4 * ITEMS_PER_STEP + 1)]
    looks, result = [0], list[int]()

    def key(entry: int) -> int:
        looks[-1] += 1
        return entry

    def found() -> Iterator[None]:
        result.extend((yield from _highest(entries, 20, key)))

    looks.extend(0 for _ in found())
    assert result == sorted(entries, reverse=True)[:20]
    assert looks == [ITEMS_PER_STEP, *[ITEMS_PER_STEP + 20] * 3, 21, 0]


def test_a_long_reply_is_written_in_steps() -> None:
    """No step makes or writes more than some of its entries, of 1,000 sources as of 10,000
    listeners; the reply has all of them.
    """
    made = [0]

    def entries() -> Iterator[dict[str, Any]]:
        for number in range(1000):
            made[-1] += 1
            yield {"number": number}

    for step in methods._written({"pid": 1}, "sources", entries()):
        made.append(0)
        if step is not None:
            assert isinstance(step, Written)
            found = json.loads(step.text)
    assert max(made) == REPLIES_PER_STEP
    assert found == {"pid": 1, "sources": [{"number": number} for number in range(1000)]}
    [empty] = methods._written({}, "sources", ())
    assert isinstance(empty, Written)
    assert empty.text == '{"sources":[]}'
