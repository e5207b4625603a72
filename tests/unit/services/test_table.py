"""netsrvd.services: what holds for each row of the table"""

import os
import socket

import pytest

from netsrvd.linux.mmsg import IPV4, Batch
from netsrvd.services import SERVICES
from tests.support.peers import datagrams

SIZES = (0, 1, 18, 64, 512, 1472, 65_507)


@pytest.mark.parametrize("name", SERVICES)
def test_no_answer_is_longer_than_what_was_asked(name: str) -> None:
    """Whatever its size, a datagram's answer has as many bytes at the most, or as the row says."""
    service, batch = SERVICES[name], Batch(IPV4)
    with datagrams() as server, datagrams() as client:
        server.setsockopt(IPV4.level, IPV4.option, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for size in SIZES:
            client.sendto(os.urandom(size), server.getsockname())
            assert batch.receive(server.fileno()) == 1
            service.datagrams().answer(batch, 1)
            assert batch.send(server.fileno(), 0, 1) == 1
            assert len(client.recv(70_000)) <= max(size, service.reply_floor_bytes)
