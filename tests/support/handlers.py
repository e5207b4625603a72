"""Handlers, as an administrator would name them: `python:tests.support.handlers:upper`."""

from typing import Any


def upper(connection: Any) -> None:
    """Answer in capital letters."""
    while data := connection.recv():
        connection.send(data.upper())


def fail(connection: Any) -> None:
    """Raise when the client has said something."""
    raise ValueError(connection.recv())
