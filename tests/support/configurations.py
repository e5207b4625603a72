"""Valid configurations of any kind, for property tests."""

from itertools import combinations
from types import MappingProxyType

from hypothesis import strategies as st

from netsrvd.access import access_list, source_ports
from netsrvd.config.schema import TCP_ALONE
from netsrvd.services import SERVICES
from netsrvd.settings import (
    DEFAULT_OPTIONS,
    EVERYWHERE,
    LARGEST_DATAGRAM,
    Endpoint,
    ListenerSettings,
    LogSettings,
    OptionValue,
    Settings,
)

YEAR = 365 * 86400.0

DURATIONS = st.floats(0, YEAR) | st.integers(0, 10**9).map(lambda ms: ms * 0.001)
ADDRESSES = (
    st.ip_addresses()
    .filter(lambda each: not each.is_multicast)
    .map(str)
    .filter(lambda each: not each.startswith("::ffff:"))
)
NETWORKS = st.one_of(
    ADDRESSES,
    st.sampled_from(sorted(access_list.NAMED_NETWORKS)),
    st.sampled_from(("192.0.2.0/24", "2001:db8::/32", "::/0")),
)
PORTS = st.sampled_from((*source_ports.TABLE, "7", "6000-6063", "0-65535"))
OPTIONS: dict[str, st.SearchStrategy[OptionValue]] = {
    "SO_KEEPALIVE": st.booleans(),
    "SO_RCVBUF": st.integers(0, 2**31 - 1),
    "SO_LINGER": st.sampled_from((False, 0)),
    "TCP_CONGESTION": st.sampled_from(("cubic", "reno")),
    "TCP_NODELAY": st.booleans(),
}


def _distinct(strategy: st.SearchStrategy[str], least: int = 0) -> st.SearchStrategy[tuple[str]]:
    return st.lists(strategy, min_size=least, max_size=3, unique=True).map(tuple)


def listeners(name: str) -> st.SearchStrategy[ListenerSettings]:
    """Return what makes the settings of one listener, each of them valid by itself."""
    options = st.fixed_dictionaries({}, optional=OPTIONS)
    return st.builds(
        ListenerSettings,
        name=st.just(name),
        service=st.sampled_from(SERVICES),
        protocols=st.sampled_from((("tcp", "udp"), ("udp", "tcp"), ("tcp",), ("udp",))),
        hosts=_distinct(ADDRESSES.filter(lambda host: host not in EVERYWHERE)),
        port=st.integers(1, 65535),
        interface=st.sampled_from(("", "eth0", "größe0", "\N{GRINNING FACE}")),
        backlog=st.integers(1, 65535),
        options=options.map(lambda given: MappingProxyType({**DEFAULT_OPTIONS, **given})),
        allow=_distinct(NETWORKS),
        deny=_distinct(NETWORKS),
        unlogged=_distinct(NETWORKS),
        unlimited=_distinct(NETWORKS),
        proxies=_distinct(NETWORKS),
        proxy_seconds=st.floats(0.1, 3600.0),
        max_connections=st.integers(1, 10**6),
        max_connections_per_source=st.integers(1, 10**6),
        connection_rate=st.integers(0, 10**6),
        connection_burst=st.integers(1, 10**6),
        refused_ports=_distinct(PORTS),
        datagram_rate=st.integers(0, 10**7),
        datagram_burst=st.integers(1, 10**7),
        byte_rate=st.integers(0, 1 << 40),
        byte_burst=st.integers(1 << 16, 1 << 40),
        reply_rate=st.integers(0, 1 << 40),
        reply_floor_bytes=st.integers(0, LARGEST_DATAGRAM),
        handler_threads=st.integers(1, 1000),
        max_flows=st.integers(1, 10**6),
        idle_seconds=DURATIONS,
        write_seconds=DURATIONS,
        max_connection_seconds=DURATIONS,
        flow_seconds=st.floats(0.001, 86400.0),
        refusal_seconds=st.floats(0.1, 86400.0),
        daytime_format=st.sampled_from(("iso", "weekday", "smtp")),
        quotes=st.sampled_from(("", "/etc/netsrvd/quotes", '/Sprüche "%"')),
        active_listeners=st.sampled_from(((), ("echo",))),
        stamp_key=st.sampled_from(("", "credential:stamp", "/etc/netsrvd/stamp.key")),
        stamp_stateful=st.booleans(),
        stamp_ssids=st.sampled_from(((), (1,), (1, 65535))),
        stamp_dscps=st.sampled_from(((), (0,), (0, 46))),
        stamp_clock=st.sampled_from(("local", "ntp", "ptp", "gps")),
        stamp_clock_error_seconds=DURATIONS,
        stamp_senders=_distinct(NETWORKS),
    ).map(_without_datagrams)


def _without_datagrams(listener: ListenerSettings) -> ListenerSettings:
    """Return a listener that is valid: some services have no datagrams."""
    return listener._replace(protocols=("tcp",)) if listener.service in TCP_ALONE else listener


def _without_conflicts(found: tuple[ListenerSettings, ...]) -> bool:
    ends = [end for each in found for end in each.endpoints()]
    return not any(overlap(one, two) for one, two in combinations(ends, 2))


def overlap(one: Endpoint, two: Endpoint) -> bool:
    """Return whether the kernel would not let both be bound at the same time."""
    if (one.protocol, one.port) != (two.protocol, two.port) or not one.port:
        return False
    if one.interface and two.interface and one.interface != two.interface:
        return False
    if (":" in one.host) != (":" in two.host):
        return False
    return one.host == two.host or not {one.host, two.host}.isdisjoint(EVERYWHERE)


NAMES = st.lists(
    st.sampled_from(("echo", "lab-2", "my.service_1", "7", "x" * 63)),
    min_size=1,
    max_size=3,
    unique=True,
).map(lambda names: sorted(names, key=lambda name: name != "echo"))

SETTINGS = st.builds(
    Settings,
    workers=st.just(0),
    max_connections=st.integers(0, 10**6),
    drain_seconds=st.floats(0, 86400.0),
    idle_exit_seconds=DURATIONS,
    log=st.builds(
        LogSettings,
        target=st.sampled_from(("auto", "journal", "syslog", "stderr")),
        level=st.sampled_from(("error", "warning", "notice", "info", "debug")),
        queue_records=st.integers(100, 10**6),
        when_full=st.sampled_from(("drop", "wait")),
    ),
    listeners=NAMES.flatmap(lambda names: st.tuples(*map(listeners, names))).filter(
        _without_conflicts
    ),
)
"""Settings with one to three listeners, `echo` among them or not."""
