"""netsrvd.timed, with a real socket"""

import socket

import pytest

from netsrvd.linux.mmsg import LAYOUTS, Arrival, Batch
from netsrvd.timed import CONTROL_BYTES, TimedDatagrams

IP_RECVTTL = 12


class Service:
    """A service that keeps the TTL of each datagram, and answers none."""

    reply_floor_bytes = 0

    def __init__(self) -> None:
        self.ttls: list[int | None] = []

    def reply(self, _payload: object, _client: object, arrival: Arrival, _now: float) -> None:
        self.ttls.append(arrival.ttl)


class Flow:
    """What is counted of a flow."""

    unanswered = bytes_unanswered = 0


@pytest.mark.parametrize("count", [1, 5])
def test_what_came_before_is_no_part_of_what_comes(count: int) -> None:
    """A datagram with fewer control messages says nothing that an earlier one in its place said."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        layout = LAYOUTS[socket.AF_INET]
        server.setsockopt(layout.level, layout.option, 1)
        batch = Batch(layout, 100, CONTROL_BYTES)
        timed, service = TimedDatagrams(server, batch), Service()
        keys = set()
        for wanted in (True, False, True):
            server.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, wanted)
            for _ in range(count):
                client.sendto(b"x", server.getsockname())
            assert batch.receive(server.fileno()) == count
            keys.update(timed.read(count))
            timed.answer(service, 0, [Flow()] * count, [], 0.0)
        assert len(keys) == 1
        assert service.ttls == [64] * count + [None] * count + [64] * count
