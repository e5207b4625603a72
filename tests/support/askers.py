"""Clients that are not there: all that a service sees of one."""

from typing import NamedTuple


class Asker(NamedTuple):
    """A client by its addresses."""

    peer: tuple[str, int] = ("192.0.2.1", 40_000)
    local: tuple[str, int] = ("192.0.2.9", 7)


ASKER = Asker()
