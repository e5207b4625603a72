"""netsrvd.probe.udp: of which probe an error of ICMP is."""

import select
import socket
from random import Random

import pytest

from netsrvd.commands.probe import _exchange
from netsrvd.probe.engine import Engine
from netsrvd.probe.settings import Protocol, Settings
from netsrvd.probe.targets import Target
from netsrvd.probe.text import Text
from netsrvd.probe.trips import State, Stream
from netsrvd.probe.udp import UDPProber
from tests.support.run import PATIENCE


@pytest.mark.parametrize(
    "settings",
    [
        Settings(Protocol.UDP),
        Settings(Protocol.ECHOPLUS),
        Settings(Protocol.STAMP),
        Settings(Protocol.STAMP, size_bytes=1200, dscp=46),
        Settings(Protocol.STAMP, size_bytes=112, key=b"key"),
    ],
    ids=lambda settings: f"{settings.protocol}-{settings.size_bytes}",
)
def test_an_error_is_that_of_the_probe_that_it_quotes(settings: Settings) -> None:
    """A port that is closed fails the probe after that, and not the one that still waits."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        address = peer.getsockname()
        exchange = _exchange(settings)
        stream = Stream(Target("127.0.0.1", address), 10, exchange.first_sequence)
        engine = Engine(settings, Text(settings, quiet=True), Random(1))
        prober = UDPProber(stream, exchange, settings, engine, 0)
        prober.send()
        peer.recv(2000)
    prober.send()
    assert prober._shared
    descriptor = prober._shared.sock.fileno()
    waiting = select.poll()
    waiting.register(descriptor, 0)
    while stream.trips[1].state is State.PENDING and stream.trips[0].state is State.PENDING:
        [(_, events)] = waiting.poll(PATIENCE * 1000)
        prober.on_ready(descriptor, events)
    prober.close()
    engine.close()
    assert [trip.state for trip in stream.trips] == [State.PENDING, State.FAILED]
    assert stream.trips[1].error == "port unreachable, says 127.0.0.1"
