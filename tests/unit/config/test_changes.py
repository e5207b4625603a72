"""netsrvd.config.changes"""

import pytest

from netsrvd.config import changes, schema
from netsrvd.errors import ConfigError
from netsrvd.settings import Endpoint, ListenerSettings, LogSettings, Settings
from netsrvd.startup import VALIDATORS
from tests.support.effort import in_proportion
from tests.support.planned import planned

ONE = ListenerSettings("one", protocols=("tcp",), hosts=("127.0.0.1",), port=1001)
TWO = ListenerSettings("two", protocols=("udp",), hosts=("::1", "127.0.0.1"), port=1002)
BOTH = Settings(listeners=(ONE, TWO))

ONE_TCP = Endpoint("one", "tcp", "127.0.0.1", 1001)
TWO_UDP_6 = Endpoint("two", "udp", "::1", 1002)
TWO_UDP_4 = Endpoint("two", "udp", "127.0.0.1", 1002)


def changed(one: ListenerSettings) -> Settings:
    """Return the settings with another listener `one`."""
    return BOTH._replace(listeners=(one, TWO))


def test_endpoints_are_what_is_to_be_served() -> None:
    """Each address, protocol and port of each listener is an endpoint, with its settings."""
    assert changes.endpoints(BOTH, ()) == {ONE_TCP: ONE, TWO_UDP_6: TWO, TWO_UDP_4: TWO}


def test_what_systemd_passed_is_not_bound() -> None:
    """Where a socket of systemd's serves a listener's protocol, none of its addresses is bound."""
    passed = {("two", "udp"), ("gone", "tcp")}
    assert changes.endpoints(BOTH, passed) == {ONE_TCP: ONE}


def test_nothing_changed() -> None:
    """The same settings again open and close nothing, and every socket is kept."""
    assert planned(BOTH, BOTH) == changes.Plan(
        open={},
        retry={},
        keep={ONE_TCP: ONE, TWO_UDP_6: TWO, TWO_UDP_4: TWO},
        close=(),
        changed=(),
        needs_restart=(),
    )


def test_a_new_port_is_opened_and_the_old_one_closed() -> None:
    """A listener that moves gets a new socket; the others keep theirs."""
    moved = ONE._replace(port=2001)
    plan = planned(BOTH, changed(moved))
    assert plan.open == {ONE_TCP._replace(port=2001): moved}
    assert plan.close == (ONE_TCP,)
    assert {*plan.keep} == {TWO_UDP_6, TWO_UDP_4}
    assert plan.changed == ("listener.one.port",)


def test_one_address_more_leaves_the_others_alone() -> None:
    """Of a list of addresses only those that came or went are touched."""
    plan = planned(BOTH, changed(ONE._replace(hosts=("127.0.0.1", "127.0.0.2"))))
    assert {*plan.open} == {ONE_TCP._replace(host="127.0.0.2")}
    assert ONE_TCP in plan.keep
    assert plan.close == ()


def test_limits_change_under_the_same_socket() -> None:
    """What is not about the socket comes into force with new settings for the socket kept."""
    stricter = ONE._replace(allow=("loopback",), idle_seconds=1.0)
    plan = planned(BOTH, changed(stricter))
    assert plan.keep[ONE_TCP] == stricter
    assert (plan.open, plan.close, plan.needs_restart) == ({}, (), ())
    assert plan.changed == ("listener.one.allow", "listener.one.idle_timeout")


def test_listeners_come_and_go() -> None:
    """A listener that is new is opened, one that is gone is closed, and both are told."""
    new = TWO._replace(name="new", port=1003)
    plan = planned(BOTH, Settings(listeners=(TWO, new)))
    assert {end.port for end in plan.open} == {1003}
    assert plan.close == (ONE_TCP,)
    assert plan.changed == ("listener one is gone", "listener new is new")


def test_a_renamed_listener_cannot_take_its_own_port() -> None:
    """Another name at the same address would close the queue of waiting clients: a restart."""
    with pytest.raises(ConfigError, match=r"listener new: port 1001 \(tcp \S+\) overlaps"):
        planned(BOTH, changed(ONE._replace(name="new")))


@pytest.mark.parametrize(
    "wider",
    [ONE._replace(hosts=()), ONE._replace(hosts=("0.0.0.0",)), ONE._replace(interface="lo")],
)
def test_what_overlaps_an_open_socket_takes_a_restart(wider: ListenerSettings) -> None:
    """To go from one address to all of them, the first socket would have to be closed before."""
    with pytest.raises(ConfigError, match=r"which is still served; restart netsrvd instead$"):
        planned(BOTH, changed(wider))


def test_the_effort_is_in_proportion() -> None:
    """Four times as many listeners, all of them in the way, take about four times as long."""

    def compare(count: int) -> None:
        old, new = (
            tuple(ONE._replace(name=f"{word}{n}", port=n) for n in range(1, count))
            for word in ("old", "new")
        )
        with pytest.raises(ConfigError):
            planned(Settings(listeners=old), Settings(listeners=new))

    assert in_proportion(compare, 20)


@pytest.mark.parametrize(
    ("new", "names"),
    [
        (BOTH._replace(log=LogSettings(target="syslog")), ("log.target",)),
        (BOTH._replace(log=LogSettings(queue_records=100)), ("log.queue",)),
        (BOTH._replace(log=LogSettings(when_full="wait")), ("log.when_full",)),
        (changed(ONE._replace(backlog=1)), ("listener.one.backlog",)),
        (changed(ONE._replace(options={"SO_KEEPALIVE": True})), ("listener.one.options",)),
    ],
)
def test_what_only_a_restart_changes_is_named(new: Settings, names: tuple[str, ...]) -> None:
    """Workers, the log but for its level, backlog and options stay as they are, and it is told."""
    plan = planned(BOTH, new)
    assert plan.needs_restart == names
    assert plan.changed == names


@pytest.mark.parametrize(
    ("new", "names"),
    [
        (BOTH._replace(drain_seconds=1.0), ("drain_timeout",)),
        (BOTH._replace(log=LogSettings(level="debug")), ("log.level",)),
    ],
)
def test_what_changes_at_once_needs_no_restart(new: Settings, names: tuple[str, ...]) -> None:
    """The drain time-out and the level of the log come into force at once."""
    plan = planned(BOTH, new)
    assert (plan.changed, plan.needs_restart) == (names, ())


def test_what_could_not_be_bound_is_tried_again() -> None:
    """An endpoint of the old settings that has no socket is no new one."""
    wanted = changes.endpoints(BOTH, ())
    plan = changes.plan(BOTH, BOTH, {ONE_TCP, TWO_UDP_4}, wanted, wanted)
    assert (plan.open, plan.retry, plan.close) == ({}, {TWO_UDP_6: TWO}, ())


def test_the_options_of_a_new_listener_need_no_restart() -> None:
    """Its sockets are opened now, so they are given their options now."""
    new = TWO._replace(name="new", port=1003, options={"SO_KEEPALIVE": True})
    assert planned(BOTH, Settings(listeners=(ONE, TWO, new))).needs_restart == ()


def test_changes_are_told_by_the_keys_of_the_files() -> None:
    """What the record of a reload names is what the administrator wrote, for every setting."""
    rules = (*schema.GLOBAL_RULES, *schema.LOG_RULES, *schema.listener_rules(VALIDATORS))
    assert {rule.field: rule.key for rule in rules if rule.key != rule.field} == changes.KEYS
