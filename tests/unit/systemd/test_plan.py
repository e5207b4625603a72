"""What `netsrvd apply` would do, for configurations and hosts of all sorts."""

from collections.abc import Collection, Mapping

import pytest

from netsrvd.errors import SystemdError
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.sockets.matching import Facts
from netsrvd.systemd.plan import Host, Plan, Target, plan
from netsrvd.systemd.unit_files import drop_in, unit_files
from netsrvd.systemd.units import Unit
from tests.support.effort import in_proportion

ECHO = ListenerSettings("echo")
BOTH = ("tcp", "udp")


def unit(
    name: str = "netsrvd.socket",
    listener: str = "echo",
    port: int = 51423,
    *,
    hosts: Collection[str] = ("::",),
    protocols: Collection[str] = BOTH,
    device: str = "",
    used: bool = True,
    **others: object,
) -> Unit:
    """Return a socket unit that is active and enabled, or neither."""
    sockets = tuple(
        Facts(listener, protocol, host, port, device, is_dual=host == "::")
        for protocol in protocols
        for host in hosts
    )
    state, file_state = ("active", "enabled") if used else ("inactive", "disabled")
    found = Unit(name, "loaded", state, file_state, sockets=sockets, backlog=4096)
    return found._replace(**others)


def host(*units: Unit, is_running: bool = True, **others: object) -> Host:
    """Return a host with one service that has these units."""
    target = Target("netsrvd.service", is_running=is_running, units=units)
    return Host((target,), {})._replace(**others)


def planned(
    listeners: Collection[ListenerSettings],
    named: Mapping[str, Collection[str]],
    found: Host,
) -> Plan:
    return plan(Settings(listeners=tuple(listeners)), named, found)


def actions(made: Plan) -> list[tuple[str, str]]:
    return [(each.unit, each.action) for each in made.changes]


def applied(made: Plan, before: Host) -> Host:
    """Return the host after all steps of a plan."""
    written = {**before.written, **made.write}
    for name in made.remove:
        del written[name]
    targets = []
    for steps in made.steps:
        units = {each.name: each for each in steps.target.units}
        for name in (*steps.stop, *steps.disable):
            if name in units:
                units[name] = units[name]._replace(state="inactive", file_state="disabled")
        for name in steps.sockets:
            known = units.get(name, Unit(name, "loaded"))
            units[name] = known._replace(state="active", file_state="enabled")
        targets.append(steps.target._replace(units=tuple(units.values())))
    return before._replace(targets=tuple(targets), written=written, drop_in=made.drop_in)


def test_the_shipped_unit_serves_the_defaults() -> None:
    """Nothing is written and nothing changes."""
    made = planned([ECHO], {}, host(unit()))
    assert not made.needs_units
    assert made.drop_in == ""
    assert made.serving == (("echo", "netsrvd.socket", "tcp, udp [::]:51423"),)


@pytest.mark.parametrize(
    ("listener", "named"),
    [
        (ECHO._replace(hosts=("192.0.2.1",)), {"host"}),
        (ECHO._replace(port=7), {"port"}),
        (ECHO._replace(interface="eth0"), {"interface"}),
        (ECHO._replace(protocols=("tcp",)), {"protocols"}),
        (ECHO._replace(backlog=9), {"backlog"}),
    ],
    ids=["host", "port", "interface", "protocols", "backlog"],
)
def test_a_unit_that_the_files_contradict_is_replaced(
    listener: ListenerSettings, named: set[str]
) -> None:
    """It is stopped and disabled with a reason, and a written one takes its place; once."""
    before = host(unit())
    made = planned([listener], {"echo": named}, before)
    assert actions(made) == [("netsrvd.socket", "disabled"), ("netsrvd-echo.socket", "new")]
    assert made.changes[0].reason
    [steps] = made.steps
    assert steps.stop == ("netsrvd.socket",)
    assert steps.start == ("netsrvd-echo.socket",)
    assert made.drop_in == drop_in("netsrvd.service", ["netsrvd-echo.socket"])
    after = applied(made, before)
    assert not planned([listener], {"echo": named}, after).needs_units
    back = planned([ECHO], {}, after)
    assert actions(back) == [
        ("netsrvd-echo.socket", "removed"),
        ("netsrvd.socket", "started"),
        ("netsrvd.socket", "enabled"),
    ]
    assert back.remove == ("netsrvd-echo.socket",)
    assert not planned([ECHO], {}, applied(back, after)).needs_units


@pytest.mark.parametrize(
    "by_hand",
    [
        unit(port=7),
        unit(hosts=["192.0.2.1"]),
        unit(device="eth0"),
        unit("other.socket"),
        unit(hosts=["0.0.0.0", "::"]),
    ],
    ids=["port", "host", "interface", "name", "both families"],
)
def test_what_no_file_names_is_the_choice_of_a_unit(by_hand: Unit) -> None:
    """A unit by hand is left as it is where the files say nothing."""
    shipped = unit(used=False)
    made = planned([ECHO], {}, host(*{each.name: each for each in (shipped, by_hand)}.values()))
    assert made.changes == ()
    assert made.kept == (by_hand.name,)


def test_a_protocol_that_no_unit_has_gets_one() -> None:
    """A unit by hand for TCP alone is kept, and UDP is added as the settings say."""
    made = planned([ECHO], {}, host(unit(protocols=["tcp"], port=7)))
    assert actions(made) == [("netsrvd-echo.socket", "new")]
    assert "ListenDatagram=51423\n" in made.write["netsrvd-echo.socket"]
    assert "ListenStream" not in made.write["netsrvd-echo.socket"]
    assert "Sockets=netsrvd.socket\nSockets=netsrvd-echo.socket\n" in made.drop_in


def test_an_address_that_no_unit_has_gets_one() -> None:
    """Of two hosts that the files name, the one that is missing."""
    listener = ECHO._replace(hosts=("192.0.2.1", "192.0.2.2"))
    made = planned([listener], {"echo": {"host"}}, host(unit(hosts=["192.0.2.1"])))
    assert actions(made) == [("netsrvd-echo.socket", "new")]
    assert "ListenStream=192.0.2.2:51423\n" in made.write["netsrvd-echo.socket"]
    assert "192.0.2.1" not in made.write["netsrvd-echo.socket"]


def test_a_unit_for_several_listeners_is_kept_or_replaced_as_a_whole() -> None:
    """By the ports, as well-known-ports.conf had them; one that differs replaces the unit."""
    names = {"echo": 51423, "nine": 9}
    listeners = [ListenerSettings(name, port=port) for name, port in names.items()]
    sockets = tuple(
        Facts("by-port", protocol, "::", port, is_dual=True)
        for port in names.values()
        for protocol in BOTH
    )
    before = host(unit(sockets=sockets))
    named = {"nine": {"port"}}
    assert planned(listeners, named, before).changes == ()
    listeners[1] = listeners[1]._replace(port=10)
    made = planned(listeners, named, before)
    assert dict(actions(made)) == {
        "netsrvd.socket": "disabled",
        "netsrvd-echo.socket": "new",
        "netsrvd-nine.socket": "new",
    }


def test_a_unit_that_no_listener_is_for_is_taken_out() -> None:
    """Its sockets would be passed to the service all the same."""
    stray = unit("stray.socket", "stray", 9)
    made = planned([ECHO], {}, host(unit(), stray))
    assert actions(made) == [("stray.socket", "disabled")]


def test_a_changed_option_makes_a_new_socket() -> None:
    """Also one that the daemon sets and cannot take back."""
    listener = ECHO._replace(options={"TCP_WINDOW_CLAMP": 4096}, port=7)
    before = host()
    first = planned([listener], {"echo": {"port"}}, before)
    made = planned([listener._replace(options={})], {"echo": {"port"}}, applied(first, before))
    assert actions(made) == [("netsrvd-echo.socket", "changed")]
    assert made.steps[0].stop == made.steps[0].start == ("netsrvd-echo.socket",)


def test_a_unit_that_failed_is_started_again() -> None:
    """Its file is as it should be."""
    listener = ECHO._replace(port=7)
    [file] = unit_files(listener, listener.endpoints())
    failed = unit(file.name, port=7, state="failed")
    before = host(failed, written={file.name: file.text})
    made = planned([listener], {"echo": {"port"}}, before)
    assert actions(made) == [("netsrvd-echo.socket", "started")]


def test_a_socket_that_the_daemon_has_bound_to_an_interface_is_made_anew() -> None:
    """The unit is right, and only a new socket is without the interface."""
    made = planned([ECHO], {}, host(unit(bound_to="eth0")))
    assert actions(made) == [("netsrvd.socket", "renewed")]
    assert made.steps[0].stop == made.steps[0].start == ("netsrvd.socket",)


def test_a_file_by_others_in_the_way_is_named() -> None:
    """It is not overwritten."""
    listener = ECHO._replace(port=7)
    before = host(unit(), foreign_files=["netsrvd-echo.socket"])
    with pytest.raises(SystemdError, match=r"netsrvd-echo\.socket .*was not written by"):
        planned([listener], {"echo": {"port"}}, before)


def test_a_drop_in_that_contradicts_a_written_unit_is_named() -> None:
    """It can only be taken away by whoever wrote it."""
    listener = ECHO._replace(port=7)
    [file] = unit_files(listener, listener.endpoints())
    changed = unit(file.name, port=9, drop_ins=("/etc/by-hand.conf",))
    with pytest.raises(SystemdError, match=r"/etc/by-hand\.conf contradicts"):
        planned([listener], {"echo": {"port"}}, host(changed, written={file.name: file.text}))


def test_a_remembered_unit_serves_again() -> None:
    """A rollback brings back a unit by hand that was stopped and disabled."""
    by_hand = unit("old.socket", port=7, used=False)
    before = host(unit(used=False), by_hand, remembered=["old.socket"])
    made = planned([ECHO._replace(port=7)], {"echo": {"port"}}, before)
    assert actions(made) == [("old.socket", "started"), ("old.socket", "enabled")]


def test_a_masked_unit_is_not_used() -> None:
    """The listener gets a written one."""
    masked = unit(used=False, load_state="masked", file_state="masked")
    assert actions(planned([ECHO], {}, host(masked))) == [("netsrvd-echo.socket", "new")]


def test_instances_have_units_of_their_own() -> None:
    """One file a listener, one unit for each instance; the shipped template is replaced as well."""
    targets = tuple(
        Target(
            f"netsrvd@{number}.service",
            number,
            is_running=True,
            units=(unit(f"netsrvd@{number}.socket"),),
        )
        for number in ("1", "2")
    )
    before = Host(targets, {})
    assert not planned([ECHO], {}, before).needs_units
    listener = ECHO._replace(port=7)
    made = planned([listener], {"echo": {"port"}}, before)
    assert [*made.write] == ["netsrvd-echo@.socket"]
    assert "ReusePort=yes\n" in made.write["netsrvd-echo@.socket"]
    assert "Service=netsrvd@%i.service\n" in made.write["netsrvd-echo@.socket"]
    assert "Sockets=netsrvd-echo@%i.socket\n" in made.drop_in
    assert [each.stop for each in made.steps] == [("netsrvd@1.socket",), ("netsrvd@2.socket",)]
    assert [each.start for each in made.steps] == [
        ("netsrvd-echo@1.socket",),
        ("netsrvd-echo@2.socket",),
    ]
    assert not planned([listener], {"echo": {"port"}}, applied(made, before)).needs_units


@pytest.mark.parametrize("has_units", [False, True])
def test_four_times_the_listeners_take_four_times_the_work(has_units: bool) -> None:  # noqa: FBT001
    """With the shipped unit alone, and with a unit by the administrator for each listener."""

    def compared(count: int) -> None:
        ports = range(1000, 1000 + count)
        listeners = [ECHO, *(ListenerSettings(f"l{port}", port=port) for port in ports)]
        units = [unit(f"by-hand{port}.socket", f"l{port}", port) for port in ports]
        named = {f"l{port}": {"port"} for port in ports}
        before = host(unit(), *(units if has_units else ()))
        made = planned(listeners, named, before)
        assert len(made.write) == (0 if has_units else count)
        assert not planned(listeners, named, applied(made, before)).needs_units

    assert in_proportion(compared, 20)
