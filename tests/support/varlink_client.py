"""Asks a control socket: raw messages, and checks of answers against the interface text."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import varlink
from varlink import scanner

from tests.support.patience import SECONDS

Message = dict[str, Any]


class Caller:
    """A connection that sends and receives messages as they are."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect("\0" + path[1:] if path.startswith("@") else path)
        self._rest = b""

    def send(self, method: str, **more: object) -> None:
        """Send a call."""
        self.sock.sendall(json.dumps({"method": method, **more}).encode() + b"\0")

    def receive(self) -> Message:
        """Return the next message; AssertionError if the other end has closed."""
        while b"\0" not in self._rest:
            data = self.sock.recv(65_536)
            assert data, "the daemon has closed the connection"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        found: Message = json.loads(message)
        return found

    def call(self, method: str, **parameters: object) -> Message:
        """Return the answer to a call."""
        self.send(method, parameters=parameters)
        return self.receive()

    def all_of(self, method: str, **parameters: object) -> Iterator[Message]:
        """Yield the parameters of all replies."""
        self.send(method, parameters=parameters, more=True)
        is_over = False
        while not is_over:
            message = self.receive()
            yield message["parameters"]
            is_over = not message.get("continues", False)


@contextmanager
def calling(path: str) -> Iterator[Caller]:
    """Give a connection to a control socket."""
    caller = Caller(path)
    with caller.sock:
        yield caller


class Types:
    """The types of an interface, as an independent parser reads its text."""

    def __init__(self, description: str) -> None:
        self._interface = varlink.Interface(description)
        self.methods = [
            name
            for name, each in self._interface.members.items()
            if isinstance(each, scanner._Method)
        ]
        self.errors = [
            name
            for name, each in self._interface.members.items()
            if isinstance(each, scanner._Error)
        ]

    def assert_reply(self, method: str, parameters: Message) -> None:
        """Check that a reply has the fields of its method, all of them and no others."""
        self._check(self._interface.members[method].out_type, parameters, method)

    def assert_error(self, name: str, parameters: Message) -> None:
        """Check the same of an error."""
        self._check(self._interface.members[name].type, parameters, name)

    def _check(self, kind: Any, value: Any, where: str) -> None:
        if isinstance(kind, scanner._CustomType):
            self._check(self._interface.members[kind.name].type, value, where)
        elif isinstance(kind, scanner._Maybe):
            if value is not None:
                self._check(kind.element_type, value, where)
        elif isinstance(kind, scanner._Array):
            assert isinstance(value, list), where
            for each in value:
                self._check(kind.element_type, each, f"{where}[]")
        elif isinstance(kind, scanner._Dict):
            assert isinstance(value, dict), where
            for name, each in value.items():
                self._check(kind.element_type, each, f"{where}.{name}")
        elif isinstance(kind, scanner._Struct):
            assert isinstance(value, dict), where
            optional = {
                name for name, each in kind.fields.items() if isinstance(each, scanner._Maybe)
            }
            assert {*kind.fields} - optional <= {*value} <= {*kind.fields}, where
            for name, each in value.items():
                self._check(kind.fields[name], each, f"{where}.{name}")
        else:
            expected = (int, float) if isinstance(kind, float) else type(kind)
            assert isinstance(value, expected), f"{where}: {value!r}"
            assert not isinstance(value, bool), where
