"""Handlers in the daemon: the examples of docs/handlers.md, as they stand there."""

import re
import signal
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import Start
from tests.support.clients import ended
from tests.support.patience import SECONDS
from tests.support.peers import connect, datagrams, exchange
from tests.support.run import Run, free_port

DOCS = Path(__file__).parents[2] / "docs/handlers.md"
EXAMPLES = dict(re.findall(r"(?ms)^`\S+/(\S+)`\n\n```\w+\n(.*?)^```$", DOCS.read_text()))
"""The files of the text, by their names."""

Example = Callable[..., Run]


@pytest.fixture
def example(start: Start, port: int, tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Start the daemon with an example, on the port of the test."""
    folder = tmp_path_factory.mktemp("handlers")
    for name, text in EXAMPLES.items():
        (folder / name).write_text(text)

    def started(name: str, ready: bool = True, **more: Any) -> Run:  # noqa: FBT001, FBT002
        configuration = tomllib.loads(EXAMPLES[f"{name}.toml"])
        configuration["listener"][name] |= {"port": port, "host": "127.0.0.1"} | more
        configuration["listener"]["echo"] = {"host": "127.0.0.1", "port": free_port(port + 1)}
        return start(configuration, environment={"PYTHONPATH": str(folder)}, ready=ready)

    return started


def asked(port: int, payload: bytes) -> bytes:
    with datagrams() as asker:
        asker.sendto(payload, ("127.0.0.1", port))
        return asker.recv(100)


def test_the_text_has_three_examples() -> None:
    """Each is a module and a configuration; the first one has ten lines."""
    names = ("greeter", "mirror", "divider")
    assert {*EXAMPLES} == {f"{name}.{end}" for name in names for end in ("py", "toml")}
    assert len(EXAMPLES["greeter.py"].splitlines()) == 10


def test_the_first_example(example: Example, port: int) -> None:
    """It asks for a name and greets; whoever leaves before, or talks too long, hears nothing."""
    run = example("greeter")
    with connect(("127.0.0.1", port)) as client:
        assert exchange(client, [b"Ada ", b"Lovelace\r\n"]) == (
            b"What is your name?\r\nHello Ada Lovelace from 127.0.0.1\r\n"
        )
    run.wait_line("greeter: 127.0.0.1:")
    run.wait_line(" closed: finished")
    with connect(("127.0.0.1", port)) as client:
        assert exchange(client, [b"Ada"]) == b"What is your name?\r\n"
    run.wait_line(" closed: client")
    run.rest()


def test_the_example_of_datagrams(example: Example, port: int) -> None:
    """It answers one question, and nothing else."""
    run = example("mirror", flow_timeout=0.1)
    assert asked(port, b"who am I?") == b"127.0.0.1"
    with datagrams() as asker:
        asker.sendto(b"who are you?", ("127.0.0.1", port))
        run.wait_line("silent, 0.000 s, 1 in, 0 out")
    run.rest()


def test_the_error_server(example: Example, port: int) -> None:
    """What goes wrong for one client ends its connection, with a traceback in the log; the others
    and those who come later are served.
    """
    run = example("divider")
    with connect(("127.0.0.1", port)) as stays:
        for said in (b"0\r\n", b"zero\r\n"):
            stays.sendall(b"4\r\n")
            assert stays.recv(100) == b"25.00\r\n"
            with connect(("127.0.0.1", port)) as client:
                client.sendall(said)
                assert ended(client)
    run.wait_line("divider: service python:divider:serve failed for 127.0.0.1:")
    run.wait_line('connection.send(b"%.2f\\r\\n" % (100 / int(line)))')
    run.wait_line("ZeroDivisionError: division by zero")
    run.wait_line("ValueError: invalid literal")
    run.wait_line("closed: error", 2)
    run.wait_line("closed: client")
    run.rest()


def test_a_stop_ends_a_handler_that_waits(example: Example, port: int) -> None:
    """The drain waits for it; then its connection ends, and the daemon does."""
    run = example("divider")
    with connect(("127.0.0.1", port)) as client:
        client.sendall(b"4")
        assert client.recv(100) == b"25.00\r\n"
        run.send(signal.SIGTERM)
        run.wait_line("draining 1 connections")  # or both signals might be one
        client.sendall(b"5")
        assert client.recv(100) == b"20.00\r\n"
        run.send(signal.SIGTERM)
        assert ended(client)
    run.wait_end()
    assert run.lines_with("closed: drain")


def test_a_handler_that_cannot_be_had_stops_the_start(example: Example) -> None:
    """The error names the listener, the module and where it was looked for."""
    run = example("greeter", ready=False, service="python:gone:serve")
    run.wait_failure(78)
    [line] = run.lines
    assert "listener.greeter.service" in line
    assert ": service python:gone:serve: importing gone failed:" in line
    assert line.endswith("/usr/local/lib/netsrvd")


def test_a_reload_that_names_none_keeps_the_old_one(example: Example, port: int) -> None:
    """All or nothing, as with every fault; a new one that is there is imported and serves."""
    run = example("divider")
    text = run.config.read_text()
    run.reload(text.replace("divider:serve", "divider:nothing"))
    run.wait_line(f"reload failed, the old configuration stays: {run.config}:3: listener.divider.")
    run.reload(text.replace("divider:serve", "greeter:serve"))
    with connect(("127.0.0.1", port)) as client:
        assert client.recv(100) == b"What is your name?\r\n"
        client.sendall(b"4\n")
        client.shutdown(socket.SHUT_WR)
        client.settimeout(SECONDS)
        assert client.recv(100) == b"Hello 4 from 127.0.0.1\r\n"
    run.wait_line("closed: finished")
    run.rest()


HOSTILE = """
import os

class Evil(Exception):
    def __init__(self, well=0):
        self.well = well
    def __repr__(self):
        self.well -= 1
        if self.well < 0:
            raise SystemExit("no repr")
        return "Evil()"
    __str__ = __repr__

def serve(conversation):
    word = conversation.recv()
    if word == b"descriptor":
        os.close(conversation._task.connection.sock.fileno())
        conversation.recv()
    elif word == b"silent":
        os.close(conversation._task.connection.sock.fileno())
    elif word.startswith(b"evil"):
        raise Evil(int(word[4:]))
    conversation.send(word)

def answer(datagram):
    if datagram.payload.startswith(b"evil"):
        raise Evil(int(datagram.payload[4:]))
    return datagram.payload
"""


@pytest.fixture
def hostile(start: Start, port: int, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with handlers that do what they can to end it."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "hostile.py").write_text(HOSTILE)
    served = {
        protocol: {
            "service": f"python:hostile:{name}",
            "protocols": [protocol],
            "host": "127.0.0.1",
            "port": port,
            "unlimited": "loopback",
            "idle_timeout": 2,
        }
        for protocol, name in (("tcp", "serve"), ("udp", "answer"))
    }
    served["echo"] = {"enabled": False}
    run = start({"listener": served}, environment={"PYTHONPATH": str(folder)})
    run.allow("Exception ignored", "OSError: ")
    return run


@pytest.mark.parametrize("word", [b"evil0", b"evil1", b"evil2", b"descriptor", b"silent"])
def test_a_handler_can_end_its_own_connection_only(hostile: Run, port: int, word: bytes) -> None:
    """An exception whose repr fails at once or later, or a socket that was closed by its number:
    that connection has its record, the next one is served.
    """
    with connect(("127.0.0.1", port)) as client:
        client.sendall(word)
        assert ended(client)
    hostile.wait_line("closed: ")
    with connect(("127.0.0.1", port)) as client:
        assert exchange(client, [b"well"]) == b"well"
    hostile.wait_line("closed: ", 2)
    hostile.rest()


@pytest.mark.parametrize("word", [b"evil0", b"evil1", b"evil2"])
def test_a_handler_can_fail_its_own_datagram_only(hostile: Run, port: int, word: bytes) -> None:
    """An exception whose repr fails at once or later: the next datagram is answered."""
    with datagrams() as asker:
        asker.sendto(word, ("127.0.0.1", port))
        asker.sendto(b"well", ("127.0.0.1", port))
        assert asker.recv(100) == b"well"
    hostile.wait_line("Evil")
    hostile.rest()
