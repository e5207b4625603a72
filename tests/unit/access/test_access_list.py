"""netsrvd.access.access_list"""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.access.access_list import AccessList, checked_entry
from netsrvd.addresses import host_and_port
from tests.fuzz import access
from tests.support.effort import in_proportion

LOCAL = [
    *("127.0.0.1", "127.255.255.255", "::1", "169.254.1.1", "fe80::1%eth0"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fc00::1", "fdff::1"),
]
REMOTE = ["126.255.255.255", "192.0.2.1", "172.32.0.0", "172.15.255.255", "11.0.0.0"]
REMOTE += ["2001:db8::1", "::2", "::", "fe00::1", "fec0::1", "fbff::1", "8.8.8.8"]


def lets_in(policy: AccessList, *hosts: str) -> bool:
    """Return whether all these hosts come in; all or none of them must."""
    [verdict] = {not policy.denied_by(host) for host in hosts}
    return verdict


@pytest.mark.parametrize(
    ("allow", "inside", "outside"),
    [
        ((), [], LOCAL + REMOTE),
        (("local",), LOCAL, REMOTE),
        (("loopback",), LOCAL[:3], LOCAL[3:] + REMOTE),
        (("any",), LOCAL + REMOTE, []),
        (("192.0.2.0/24",), ["192.0.2.0", "192.0.2.255"], ["192.0.3.0", "::1", "::c000:201"]),
        (("2001:db8::/32",), ["2001:db8::1"], ["2001:db9::1", "32.1.13.184"]),
        (("192.0.2.7", "::1"), ["192.0.2.7", "::1"], ["192.0.2.6", "::2"]),
    ],
)
def test_words_and_networks(allow: tuple[str, ...], inside: list[str], outside: list[str]) -> None:
    """An entry lets in the addresses that it contains, of its own family; others stay out."""
    policy = AccessList(allow, ())
    assert not inside or lets_in(policy, *inside)
    assert not outside or not lets_in(policy, *outside)


@pytest.mark.parametrize(
    ("allow", "deny", "host", "refusal"),
    [
        (["any"], ["192.0.2.0/24"], "192.0.2.1", 'deny has "192.0.2.0/24"'),
        (["any", "192.0.2.1"], ["192.0.2.0/24"], "192.0.2.1", None),
        (["192.0.2.0/24"], ["192.0.2.1"], "192.0.2.1", 'deny has "192.0.2.1"'),
        (["192.0.2.0/24"], ["192.0.2.0/24"], "192.0.2.1", 'deny has "192.0.2.0/24"'),
        (["local"], ["loopback"], "127.0.0.1", 'deny has "loopback"'),
        (["local"], ["any"], "127.0.0.1", None),
        (["any"], ["any"], "192.0.2.1", 'deny has "any"'),
        (["local"], [], "192.0.2.1", "no entry of allow contains it"),
        ([], [], "::1", "no entry of allow contains it"),
    ],
)
def test_the_most_specific_entry_decides(
    allow: list[str], deny: list[str], host: str, refusal: str | None
) -> None:
    """Of all entries that contain an address the longest network decides; in a tie, deny wins."""
    assert AccessList(allow, deny).denied_by(host) == (refusal or "")


def test_a_mapped_peer_is_judged_as_ipv4() -> None:
    """An IPv4 client of an IPv6 socket is known by its IPv4 address, to allow and to deny."""
    policy = AccessList(["192.0.2.0/24", "::/0"], ["192.0.2.7"])
    for host, welcome in (("192.0.2.1", True), ("192.0.2.7", False), ("192.0.3.1", False)):
        mapped, _ = host_and_port((f"::ffff:{host}", 7, 0, 0))
        assert lets_in(policy, mapped) is welcome


@given(
    st.lists(st.ip_addresses(v=4), max_size=4),
    st.lists(st.ip_addresses(v=4), max_size=4),
    st.lists(st.integers(0, 32), min_size=8, max_size=8),
    st.ip_addresses(v=4),
)
def test_the_gate_is_what_its_words_say(
    allowed: list[ipaddress.IPv4Address],
    denied: list[ipaddress.IPv4Address],
    lengths: list[int],
    host: ipaddress.IPv4Address,
) -> None:
    """Whatever the entries are, the verdict is that of the rule, written out at length."""
    networks = [
        ipaddress.ip_network((int(base) >> 32 - length << 32 - length, length))
        for base, length in zip(allowed + denied, lengths, strict=False)
    ]
    allow, deny = networks[: len(allowed)], networks[len(allowed) :]
    best = max((each.prefixlen for each in allow if host in each), default=-1)
    worst = max((each.prefixlen for each in deny if host in each), default=-1)
    policy = AccessList(map(str, allow), map(str, deny))
    assert (policy.denied_by(str(host)) == "") == (best > worst)


def test_the_effort_is_in_proportion() -> None:
    """Four times as many entries take four times as long to be put in order, and to be looked at
    for an address that nobody asked about before.
    """

    def judge(count: int) -> None:
        entries = [f"2001:db8::{number:x}" for number in range(count)]
        policy = AccessList([each for each in entries if checked_entry(each)])
        assert policy.denied_by("192.0.2.1")

    assert in_proportion(judge)


@pytest.mark.parametrize(
    "entry", ["any", "192.0.2.1", "192.0.2.0/24", "192.0.2.0/255.255.255.0", "::/0", "::1"]
)
def test_what_an_entry_may_be(entry: str) -> None:
    """Words, addresses and networks are taken as they are written."""
    assert checked_entry(entry) == entry


@given(
    st.text()
    | st.text("0123456789abcdef:./%", max_size=20)
    | st.ip_addresses().map(str)
    | st.builds("{}/{}".format, st.ip_addresses(), st.integers(-1, 130))
)
def test_any_text_is_an_entry_or_refused(text: str) -> None:
    """Whatever stands in `allow`, it is refused in one line or means the network that it says."""
    access.check(text.encode(errors="surrogatepass"))


WRONG = 'addresses, networks such as "192.0.2.0/24", or the words "loopback", "local", "any"'


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        *((each, WRONG) for each in ("", "lokal", "192.0.2", "::1/129", "fe80::1%eth0", 7, None)),
        ("192.0.2.7/24", 'a network without host bits, such as "192.0.2.0/24"'),
        ("2001:db8::1/32", 'a network without host bits, such as "2001:db8::/32"'),
        ("::ffff:192.0.2.7", 'IPv4 in its own form, such as "192.0.2.7/32"'),
        ("::ffff:192.0.2.0/120", 'IPv4 in its own form, such as "192.0.2.0/24"'),
    ],
)
def test_what_an_entry_may_not_be(entry: object, expected: str) -> None:
    """An entry that would never match, or not mean what it seems to, is refused with its remedy."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is looked at below
        checked_entry(entry)
    assert str(caught.value) == expected
