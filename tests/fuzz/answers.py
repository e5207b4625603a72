"""Answers to probes, and what the kernel quotes of them: any bytes are an answer, or none."""

import socket

from netsrvd.probe import stamps
from netsrvd.probe.clocks import Clock, daytime_seconds, time_seconds
from netsrvd.probe.echo import Echo
from netsrvd.probe.echoplus import EchoPlus
from netsrvd.probe.exchange import Exchange
from netsrvd.probe.stamp import Stamp

NOW_NS = 1_700_000_000_000_000_000
MOST_NS = 10_000 * 366 * 86400 * 10**9
"""No time is behind the year 9999, or before the year 1 by as much."""


def check(data: bytes) -> None:
    """Read the input as an answer of every protocol, and as an entry of the error queue."""
    exchanges: list[Exchange] = [
        Echo(64, b"\0" * 8),
        EchoPlus(64, 0),
        Stamp(0, None, 0, 46),
        Stamp(0, b"key", 0, 46),
        Clock(time_seconds),
        Clock(daytime_seconds),
    ]
    for exchange in exchanges:
        exchange.request(exchange.first_sequence, NOW_NS)
        answer = exchange.read(data)
        if answer is None:
            continue
        assert (answer.sequence is not None) == exchange.has_sequence
        times = (answer.received_ns, answer.sent_ns, *(answer.clock or ()))
        assert all(abs(each) < MOST_NS for each in times if each is not None)
    for family, level, kind in (
        (socket.AF_INET, socket.IPPROTO_IP, stamps.IP_RECVERR),
        (socket.AF_INET6, socket.IPPROTO_IPV6, stamps.IPV6_RECVERR),
    ):
        found = stamps.error(family, data[:7], [(level, kind, data)])
        assert found is None or isinstance(found, stamps.Sent) or found.text.isprintable()
