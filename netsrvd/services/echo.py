"""The Echo Protocol (RFC 862): what comes in goes out."""

from typing import Protocol


class Stream:
    """TCP: every byte goes back, in order, until the client closes."""

    __slots__ = ()
    finished = False

    def greeting(self) -> bytes:
        """Return nothing: the client speaks first."""
        return b""

    def respond(self, data: bytes) -> bytes:
        """Return what came."""
        return data

    def more(self) -> bytes:
        """Return nothing: each answer is complete."""
        return b""


class Batch(Protocol):
    """What this service needs of a batch of datagrams."""

    def reply_as_received(self, count: int) -> None:
        """Make each payload its own answer."""


class Datagrams:
    """UDP: every datagram goes back, the empty one too."""

    __slots__ = ()

    def answer(self, batch: Batch, count: int) -> None:
        """Make the answers to the `count` datagrams of a batch."""
        batch.reply_as_received(count)
