"""netsrvd.sockets.matching"""

from typing import Any

import pytest

from netsrvd.settings import ListenerSettings
from netsrvd.sockets.matching import Facts, Listeners, Match, uncovered
from tests.support.effort import in_proportion

ALL = ("host", "port", "protocols", "interface")


def listener(name: str = "echo", **changes: Any) -> ListenerSettings:
    return ListenerSettings(name, **{"port": 7, **changes})


def facts(host: str = "::", port: int = 7, name: str = "echo", **changes: Any) -> Facts:
    """Return a TCP socket, by default the dual-stack one of `ListenStream=7`."""
    return Facts(name=name, protocol="tcp", host=host, port=port, **changes)


DUAL = facts(is_dual=True)


@pytest.mark.parametrize(
    ("sock", "wanted", "addresses"),
    [
        (DUAL, listener(), None),
        (DUAL, listener(hosts=("192.0.2.1",)), {"192.0.2.1"}),
        (DUAL, listener(hosts=("::1", "192.0.2.1")), {"192.0.2.1", "::1"}),
        (DUAL, listener(hosts=("0.0.0.0", "::")), None),
        (DUAL, listener(hosts=("::",)), {"::"}),
        (facts("::"), listener(hosts=("::",)), None),
        (facts("::"), listener(hosts=("192.0.2.1", "::1")), {"::1"}),
        (facts("0.0.0.0"), listener(hosts=("192.0.2.1", "::1")), {"192.0.2.1"}),
        (facts("0.0.0.0"), listener(hosts=("0.0.0.0",)), None),
        (facts("192.0.2.1"), listener(hosts=("192.0.2.1", "::1")), None),
        (facts("192.0.2.1"), listener(hosts=("0.0.0.0",)), None),
        (facts("fe80::1%eth0"), listener(hosts=("fe80::1%eth0",)), None),
        (facts(interface="eth0"), listener(interface="eth0"), None),
        (facts(), listener(interface="eth0"), None),
    ],
)
def test_what_the_files_name_is_served(
    sock: Facts, wanted: ListenerSettings, addresses: set[str] | None
) -> None:
    """A socket serves those of its addresses that the files name."""
    found = Listeners([wanted], {"echo": ALL}).match(sock)
    assert (found.listener, found.addresses) == (wanted, addresses)
    assert bool(found.problem) == (addresses is not None)


@pytest.mark.parametrize(
    ("sock", "wanted", "said"),
    [
        (DUAL, listener(port=9), "port = 9"),
        (DUAL, listener(protocols=("udp",)), 'protocols = ["udp"]'),
        (facts("192.0.2.2"), listener(hosts=("192.0.2.1",)), 'host = ["192.0.2.1"]'),
        (facts("0.0.0.0"), listener(hosts=("::1",)), 'host = ["::1"]'),
        (facts(), listener(hosts=("192.0.2.1",)), 'host = ["192.0.2.1"]'),
        (facts(interface="eth1"), listener(interface="eth0"), 'interface = "eth0"'),
        (facts(interface="eth1"), listener(), 'interface = ""'),
    ],
)
def test_what_the_files_contradict_is_not_served(
    sock: Facts, wanted: ListenerSettings, said: str
) -> None:
    """The socket stays with its listener and serves nothing; the problem has the file's words."""
    found = Listeners([wanted], {"echo": ALL}).match(sock)
    assert (found.listener, found.serves) == (wanted, False)
    assert found.problem.startswith(sock.where)
    assert found.problem.endswith(f"is not served, as the files say {said}")


@pytest.mark.parametrize(
    ("sock", "wanted"),
    [
        (DUAL, listener(port=9)),
        (facts("192.0.2.2"), listener(port=9)),
        (DUAL, listener(hosts=("192.0.2.1",))),
    ],
)
def test_what_the_files_do_not_name_is_the_choice_of_the_unit(
    sock: Facts, wanted: ListenerSettings
) -> None:
    """Without a key in any file the socket is served as it is, and there is nothing to say."""
    assert Listeners([wanted], {"echo": ("allow",)}).match(sock) == Match(wanted, None)


def test_a_protocol_that_the_listener_has_not_is_never_served() -> None:
    """A listener serves no other protocols than its own, named or not."""
    assert not Listeners([listener(protocols=("udp",))], {}).match(DUAL).serves


def test_an_interface_that_the_files_do_not_name_is_served_and_told() -> None:
    """It may be the unit's choice, or left from a configuration that named it."""
    found = Listeners([listener()], {}).match(facts(interface="eth0"))
    assert found.serves
    assert "is bound to interface eth0, which the files do not name" in found.problem


TWO = [listener("echo", port=7), listener("lab", port=9)]


@pytest.mark.parametrize(
    ("sock", "named", "name"),
    [
        (facts(port=7, name="lab"), {}, "lab"),
        (facts(port=7, name="lab"), {"lab": ("port",)}, "echo"),
        (facts(port=7, name="lab"), {"echo": ("port",)}, "echo"),
        (facts(port=9, name="lab"), {"echo": ("port",)}, "lab"),
        (facts(port=9, name="by-port"), {}, "lab"),
        (facts(port=9, name=""), {"echo": ("port",)}, "lab"),
    ],
)
def test_a_socket_finds_its_listener(sock: Facts, named: dict[str, Any], name: str) -> None:
    """The name counts, unless the files name the port for another listener."""
    found = Listeners(TWO, named).match(sock)
    assert (found.listener.name, found.addresses) == (name, None)


def test_a_socket_without_a_listener_serves_nothing() -> None:
    """It is matched to a listener of its own name, which is not configured."""
    found = Listeners(TWO, {}).match(facts(port=11, name="ehco"))
    assert (found.listener.name, found.serves) == ("ehco", False)
    assert found.problem == (
        "tcp [::]:11 (ehco) is not served, as no listener is for it; configured are: echo, lab"
    )


def test_an_address_without_a_socket_is_told() -> None:
    """Of the addresses that the files name, those that no passed socket has are not served."""
    wanted = listener(protocols=("tcp",), hosts=("192.0.2.1", "192.0.2.2"))
    named = {"echo": ("host",)}
    sock = facts("192.0.2.1")
    [found] = uncovered([wanted], named, [(sock, Listeners([wanted], named).match(sock))])
    problem = "tcp 192.0.2.2:7 is not served: systemd has no socket for it"
    assert found == (wanted, "tcp", problem)
    assert uncovered([wanted], named, [(DUAL, Listeners([wanted], named).match(DUAL))]) == []
    assert uncovered([wanted], named, []) == []
    assert uncovered([wanted], {}, [(sock, Listeners([wanted], {}).match(sock))]) == []


def test_four_times_the_sockets_take_four_times_the_work() -> None:
    """Each socket is compared with the listeners of its name and port alone, and so is what has no
    socket.
    """

    def matched(count: int) -> None:
        ports = range(1000, 1000 + count)
        wanted = [listener(f"l{port}", port=port, hosts=("192.0.2.1",)) for port in ports]
        named = {each.name: ("host", "port") for each in wanted}
        known = Listeners(wanted, named)
        sockets = [facts("192.0.2.1", port, name=f"l{port}") for port in ports]
        found = [(sock, known.match(sock)) for sock in sockets]
        assert [one.listener.name for _, one in found] == [sock.name for sock in sockets]
        assert uncovered(wanted, named, found) == []

    assert in_proportion(matched, 20)
