"""netsrvd.config.schema"""

import re
from typing import Any

import pytest

from netsrvd.config import schema
from netsrvd.config.schema import NAME, Problem
from netsrvd.settings import DEFAULT_OPTIONS, ListenerSettings, LogSettings, Settings
from netsrvd.startup import VALIDATORS


def faults(tree: object) -> dict[str, str]:
    """Return the text of each fault by its dotted key."""
    _, problems = schema.read_settings(tree, VALIDATORS)  # type: ignore[arg-type]
    assert len({problem.path for problem in problems}) == len(problems)
    return {".".join(problem.path): problem.text for problem in problems}


def settings(tree: dict[str, Any]) -> Settings:
    """Return the settings of a tree without faults."""
    found, problems = schema.read_settings(tree, VALIDATORS)
    assert not problems
    return found


def echo(**given: object) -> dict[str, Any]:
    """Return the tree that sets these keys of the listener `echo`."""
    return {"listener": {"echo": given}}


def test_without_any_key_everything_has_its_default() -> None:
    """Echo, TCP and UDP, port 51423, all addresses, local networks alone, and two
    socket options.
    """
    found = settings({})
    assert found == Settings()
    [listener] = found.listeners
    assert listener == ListenerSettings(
        name="echo",
        service="echo",
        protocols=("tcp", "udp"),
        hosts=(),
        port=51423,
        interface="",
        backlog=4096,
        options={"TCP_NODELAY": True, "TCP_NOTSENT_LOWAT": 128 << 10, "SO_OOBINLINE": True},
        allow=("local",),
        deny=(),
        max_connections=10_000,
        handler_threads=32,
        max_flows=4096,
        idle_seconds=600.0,
        write_seconds=30.0,
        flow_seconds=30.0,
    )
    assert (found.workers, found.drain_seconds) == (0, 10.0)
    assert found.log == LogSettings("auto", "info", 10_000, "drop")


def test_every_key_fills_its_field() -> None:
    """Each key of the file is found again in the settings, in the form that the program uses."""
    found = settings(
        {
            "workers": 3,
            "drain_timeout": "1min",
            "log": {"target": "syslog", "level": "debug", "queue": 100, "when_full": "wait"},
            "listener": {
                "echo": {
                    "protocols": "udp",
                    "host": ["::1", "127.0.0.1"],
                    "port": 7,
                    "interface": "lo",
                    "backlog": 1,
                    "allow": "any",
                    "deny": ["192.0.2.0/24"],
                    "max_connections": 2,
                    "handler_threads": 2,
                    "max_flows": 3,
                    "idle_timeout": 0,
                    "write_timeout": "250ms",
                    "max_connection_seconds": "2h",
                    "flow_timeout": 1,
                    "daytime_format": "smtp",
                    "quotes": "/etc/netsrvd/quotes",
                    "active_listeners": "echo",
                    "options": {"SO_RCVBUF": "1M", "TCP_NODELAY": False},
                }
            },
        }
    )
    assert found == Settings(
        workers=3,
        drain_seconds=60.0,
        log=LogSettings("syslog", "debug", 100, "wait"),
        listeners=(
            ListenerSettings(
                name="echo",
                protocols=("udp",),
                hosts=("::1", "127.0.0.1"),
                port=7,
                interface="lo",
                backlog=1,
                options=DEFAULT_OPTIONS | {"TCP_NODELAY": False, "SO_RCVBUF": 2**20},
                allow=("any",),
                deny=("192.0.2.0/24",),
                max_connections=2,
                handler_threads=2,
                max_flows=3,
                idle_seconds=0.0,
                write_seconds=0.25,
                max_connection_seconds=7200.0,
                flow_seconds=1.0,
                daytime_format="smtp",
                quotes="/etc/netsrvd/quotes",
                active_listeners=("echo",),
            ),
        ),
    )


def test_no_field_is_out_of_reach() -> None:
    """Every field of the settings has a rule, but for those that tables of their own fill."""
    rules = (*schema.GLOBAL_RULES, *schema.LOG_RULES, *schema.listener_rules(VALIDATORS))
    fields = {name for kind in (Settings, LogSettings, ListenerSettings) for name in kind._fields}
    assert fields - {rule.field for rule in rules} == {"log", "listeners", "name", "options"}


def test_more_listeners_stand_beside_echo() -> None:
    """A table of another name adds a listener with the same defaults; echo stays, and is first."""
    found = settings({"listener": {"lab": {"port": 7007}}})
    assert found.listeners == (ListenerSettings("echo"), ListenerSettings("lab", port=7007))


def test_a_listener_can_be_disabled() -> None:
    """`enabled = false` takes a listener away, and what it would have been is still checked."""
    tree = {"listener": {"echo": {"enabled": False}, "lab": {"port": 7007}}}
    assert settings(tree).listeners == (ListenerSettings("lab", port=7007),)
    assert faults({"listener": {"echo": {"enabled": False, "port": 0}, "lab": {}}}) == {
        "listener.echo.port": "expected a port from 1 to 65535"
    }


@pytest.mark.parametrize(
    ("tree", "key", "text"),
    [
        ({"worker": 1}, "worker", 'unknown key; did you mean "workers"?'),
        (
            {"xyzzy": 1},
            "xyzzy",
            "unknown key; known: drain_timeout, idle_exit, listener, log, max_connections, workers",
        ),
        (
            echo(active_listeners=["echo", "lab", "web"]),
            "listener.echo.active_listeners",
            "there is no listener lab, web",
        ),
        (echo(quotes="quotes"), "listener.echo.quotes", "expected an absolute path"),
        (echo(daytime_format="long"), "listener.echo.daytime_format", "expected one of"),
        ({"log": {"levle": "info"}}, "log.levle", 'unknown key; did you mean "level"?'),
        (echo(ports=7), "listener.echo.ports", 'unknown key; did you mean "port"?'),
        (echo(enable=False), "listener.echo.enable", 'unknown key; did you mean "enabled"?'),
        (
            echo(options={"SO_RECVBUF": 1}),
            "listener.echo.options.SO_RECVBUF",
            'unknown socket option; did you mean "SO_RCVBUF"?',
        ),
        ({"log": 7}, "log", "expected a table"),
        ({"listener": []}, "listener", "expected a table"),
        ({"listener": {"lab": 7}}, "listener.lab", "expected a table"),
        (echo(options=True), "listener.echo.options", "expected a table"),
        (
            echo(options={"SO_REUSEADDR": True}),
            "listener.echo.options.SO_REUSEADDR",
            "is set by the daemon itself: always on for TCP",
        ),
        (
            echo(options={"SO_RCVBUF": "1X"}),
            "listener.echo.options.SO_RCVBUF",
            'expected a size in bytes such as 65536 or "64K"',
        ),
        (echo(enabled="no"), "listener.echo.enabled", "expected true or false"),
        (echo(service="telnet"), "listener.echo.service", 'expected one of "echo"'),
        (echo(allow=["192.0.2.1/24"]), "listener.echo.allow", "expected a network without host"),
        (echo(allow=["lokal"]), "listener.echo.allow", "expected addresses, networks such as"),
        (echo(deny=7), "listener.echo.deny", "expected a list of addresses, networks and words"),
        (echo(enabled=False), "listener", "none is enabled, so nothing would be served"),
        ({"listener": {"": {}}}, "listener.", "expected a name of letters, digits and _ . -"),
    ],
)
def test_a_fault_says_where_it_is_and_what_was_expected(
    tree: dict[str, Any], key: str, text: str
) -> None:
    """What is unknown, out of range, of the wrong type or senseless is one problem at its key."""
    [(where, what)] = faults(tree).items()
    assert where == key
    assert what.startswith(text)


def test_all_faults_are_found_at_once() -> None:
    """Nobody has to start the daemon once for each fault."""
    assert faults(
        {
            "workers": -1,
            "drain_timeout": "soon",
            "log": {"level": "loud", "colour": True},
            "listener": {"echo": {"port": 0, "host": "here", "options": {"SO_RCVBUF": -1}}},
        }
    ).keys() == {
        "workers",
        "drain_timeout",
        "log.level",
        "log.colour",
        "listener.echo.port",
        "listener.echo.host",
        "listener.echo.options.SO_RCVBUF",
    }


CONFLICTS: list[tuple[dict[str, Any], dict[str, Any], set[str]]] = [
    ({}, {}, {"tcp 0.0.0.0", "tcp ::", "udp 0.0.0.0", "udp ::"}),
    ({"protocols": ["tcp"]}, {"protocols": ["udp"]}, set()),
    ({"port": 7}, {}, set()),
    ({}, {"host": "127.0.0.1"}, {"tcp 127.0.0.1", "udp 127.0.0.1"}),
    ({"host": "127.0.0.1"}, {"host": "127.0.0.2"}, set()),
    ({"host": "::1"}, {"host": "127.0.0.1"}, set()),
    ({"host": "::"}, {"host": ["127.0.0.1", "::1"]}, {"tcp ::1", "udp ::1"}),
    ({"interface": "eth0"}, {"interface": "eth1"}, set()),
    ({"interface": "eth0", "protocols": "udp"}, {"host": "::1"}, {"udp ::1"}),
    ({"interface": "eth0"}, {"interface": "eth0", "host": "::1"}, {"tcp ::1", "udp ::1"}),
]


@pytest.mark.parametrize(("first", "second", "wanted_twice"), CONFLICTS)
def test_two_listeners_on_one_address_conflict(
    first: dict[str, Any], second: dict[str, Any], wanted_twice: set[str]
) -> None:
    """What the kernel would not let both have is a fault: all addresses overlap each of them,
    an interface only itself and none, and the families, protocols and ports do not meet.
    """
    for one, two in ((first, second), (second, first)):
        _, found = schema.read_settings({"listener": {"echo": one, "lab": two}}, VALIDATORS)
        assert bool(found) == bool(wanted_twice)
    _, found = schema.read_settings({"listener": {"echo": first, "lab": second}}, VALIDATORS)
    where = ", ".join(sorted(wanted_twice))
    text = (
        f"port 51423 ({where}) is also wanted by listener echo; "
        "give one of them another port, host or interface"
    )
    assert found == [Problem(("listener", "lab", "port"), text)] * bool(wanted_twice)


def test_a_listener_can_conflict_with_itself() -> None:
    """A list of hosts that has all addresses and one of them as well wants that one twice."""
    found = faults(echo(host=["127.0.0.1", "0.0.0.0"], protocols="tcp"))
    assert found == {
        "listener.echo.port": "port 51423 (tcp 0.0.0.0) is also wanted by listener echo; "
        "give one of them another port, host or interface"
    }


def test_of_many_on_one_address_each_is_named_once() -> None:
    """Each listener that comes too late is told of the one that was there first."""
    tree = {"listener": {name: {"host": "::", "protocols": "udp"} for name in ("lab", "tin")}}
    _, found = schema.read_settings(tree, VALIDATORS)
    assert [(problem.path[1], problem.text.split("; ")[0]) for problem in found] == [
        ("lab", "port 51423 (udp ::) is also wanted by listener echo"),
        ("tin", "port 51423 (udp ::) is also wanted by listener echo"),
    ]


@pytest.mark.parametrize("name", ["echo", "a", "lab-2", "my.service_1", "7", "x" * 63])
def test_names_of_listeners(name: str) -> None:
    """A name is something that FileDescriptorName= and a log line can hold."""
    assert re.fullmatch(NAME, name)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a:b", "a\n", "ö", "x" * 64])
def test_what_is_no_name_of_a_listener(name: str) -> None:
    """Colons separate the names in LISTEN_FDNAMES; other signs would have to be escaped."""
    assert not re.fullmatch(NAME, name)


def test_effective_settings_are_in_the_order_of_the_rules() -> None:
    """Every key is listed once, with the value that stands for it in TOML."""
    rows = schema.effective(Settings(), VALIDATORS)
    assert rows[:2] == [(("workers",), 0), (("max_connections",), 0)]
    assert rows[2:4] == [(("drain_timeout",), "10s"), (("idle_exit",), 0)]
    assert rows[4] == (("log", "target"), "auto")
    assert rows[-3:] == [
        (("listener", "echo", "options", "TCP_NODELAY"), True),
        (("listener", "echo", "options", "TCP_NOTSENT_LOWAT"), 131072),
        (("listener", "echo", "options", "SO_OOBINLINE"), True),
    ]
    paths = [path for path, _ in rows]
    assert len({*paths}) == len(paths)


def test_a_disabled_echo_is_listed() -> None:
    """Where there is no listener `echo` the list says so, for it is there by default."""
    found = settings({"listener": {"echo": {"enabled": False}, "lab": {"port": 7}}})
    assert (("listener", "echo", "enabled"), False) in schema.effective(found, VALIDATORS)


# --- services with other defaults -------------------------------------------------------------


def test_metrics_are_for_loopback_by_tcp_without_records() -> None:
    """What a file says of these keys holds as for any other service."""
    [_, found] = settings({"listener": {"m": {"service": "metrics", "port": 1}}}).listeners
    assert found.protocols == ("tcp",)
    assert found.allow == ("loopback",)
    assert found.unlogged == ("any",)
    given = {"service": "metrics", "port": 1, "allow": "any", "unlogged": []}
    [_, found] = settings({"listener": {"m": given}}).listeners
    assert found.allow == ("any",)
    assert found.unlogged == ()


@pytest.mark.parametrize("protocols", ["udp", ["tcp", "udp"]])
def test_metrics_have_no_datagrams(protocols: object) -> None:
    """The fault is of the key `protocols`."""
    given = {"service": "metrics", "port": 1, "protocols": protocols}
    text = 'the service metrics is served by TCP alone; write protocols = "tcp"'
    assert faults({"listener": {"m": given}}) == {"listener.m.protocols": text}
