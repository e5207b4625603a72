"""netsrvd.config.overlaps"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.config.overlaps import PortConflicts
from netsrvd.settings import Endpoint
from tests.support.configurations import overlap
from tests.support.effort import steps

ONE = Endpoint("one", "tcp", "192.0.2.1", 7, "")

ENDPOINTS = st.builds(
    Endpoint,
    listener=st.sampled_from(("one", "two")),
    protocol=st.sampled_from(("tcp", "udp")),
    host=st.sampled_from(("0.0.0.0", "::", "192.0.2.1", "192.0.2.2", "::1")),
    port=st.sampled_from((0, 7, 8)),
    interface=st.sampled_from(("", "eth0", "eth1")),
)


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
    other = ONE._replace(**change)  # type: ignore[arg-type]
    assert PortConflicts([ONE]).find_conflict(other) == (ONE if overlaps else None)
    assert PortConflicts([other]).find_conflict(ONE) == (other if overlaps else None)


@pytest.mark.parametrize(("interface", "overlaps"), [("eth0", True), ("eth1", False), ("", True)])
def test_interfaces_keep_endpoints_apart(interface: str, overlaps: bool) -> None:  # noqa: FBT001
    """Two interfaces do not meet; one and all of them do."""
    other = ONE._replace(interface=interface)
    assert bool(PortConflicts([ONE._replace(interface="eth0")]).find_conflict(other)) is overlaps


def test_what_systemd_passed_overlaps_nothing() -> None:
    """An endpoint that stands for passed sockets has no address of its own."""
    adopted = Endpoint("one", "tcp")
    assert PortConflicts([adopted, ONE]).find_conflict(adopted) is None
    assert PortConflicts([adopted]).find_conflict(ONE._replace(host="0.0.0.0")) is None


@given(st.lists(ENDPOINTS, max_size=6), ENDPOINTS)
def test_many_are_compared_as_each_would_be(taken: list[Endpoint], new: Endpoint) -> None:
    """One is found exactly if there is one, and what is found is one of them."""
    found = PortConflicts(taken).find_conflict(new)
    find_conflict = [each for each in taken if overlap(each, new)]
    assert found in find_conflict if find_conflict else found is None


def test_the_effort_is_in_proportion() -> None:
    """Among four times as many endpoints each is found with no more steps than before."""

    def compare(count: int) -> int:
        many = [ONE._replace(port=7 + number) for number in range(count)]
        return steps(lambda: [PortConflicts(many).find_conflict(ONE)])

    assert compare(400) < 5 * compare(100)
