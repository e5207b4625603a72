"""netsrvd.services: what holds for each row of the table"""

import json

import pytest

from netsrvd.listeners.contracts import DatagramService, StreamService
from netsrvd.services import SERVICES, prepare
from netsrvd.services.base import Present
from netsrvd.settings import ListenerSettings
from tests.support.askers import ASKER

AT = 1_700_000_000.0


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_keeps_the_contract(name: str) -> None:
    """Each has all that the listeners call, and its memory can be written and read."""
    service = prepare(name, ListenerSettings("lab"), Present())
    stream: StreamService = service.stream(ASKER, AT)
    assert isinstance(stream.greeting(), bytes)
    assert isinstance(stream.respond(b"x"), bytes)
    assert isinstance(stream.more(), bytes)
    assert isinstance(stream.finished, bool)
    assert isinstance(stream.heedless, bool)
    successor = service.stream(ASKER, AT)
    successor.recall(json.loads(json.dumps(stream.memory())))
    assert successor.finished == stream.finished
    datagrams: DatagramService = service.datagrams
    assert isinstance(datagrams.as_received, bool)
    assert 0 <= datagrams.reply_floor_bytes <= 64
    assert isinstance(datagrams.answer(memoryview(b"x"), ASKER, AT), bytes | None)
    assert name.islower()
