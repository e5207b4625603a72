"""How many descriptors there are, and how many connections that leaves room for."""

import resource
from typing import NamedTuple

from netsrvd.errors import SocketError
from netsrvd.settings import Settings

KEPT = 48
"""Standard streams, log, systemd, event loops, the descriptor to refuse with, the files of a reload
and of a traceback, the control socket and its callers; a third of it is spare.
"""

KEPT_PER_SOCKET = 2
"""The socket, and the one that a reload opens beside it."""

KEPT_PER_HANDLER = 2
"""The eventfd of its thread, and a socket that is kept until the handler returns."""


class DescriptorBudget(NamedTuple):
    """How many connections are configured, and how many are taken."""

    configured: int
    connections: int
    descriptors: int


def raise_limit() -> None:
    """Use all descriptors that the hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def budget(settings: Settings, sockets: int, handlers: int) -> DescriptorBudget:
    """Return how many connections may be live at once, given the numbers of `sockets` and of
    `handlers`' threads.

    Each takes a descriptor, and the limit on those (RLIMIT_NOFILE) is never reached. Raises
    SocketError where not even one is left.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = KEPT + KEPT_PER_SOCKET * sockets + KEPT_PER_HANDLER * handlers
    of_listeners = sum(each.max_connections for each in settings.listeners)
    configured = min(settings.max_connections or of_listeners, of_listeners)
    if hard == resource.RLIM_INFINITY:
        return DescriptorBudget(configured, configured, hard)
    if hard <= kept:
        raise SocketError(
            f"the limit on descriptors is {hard}, but without any connection {kept} are needed; "
            "raise LimitNOFILE= or `ulimit -Hn`"
        )
    return DescriptorBudget(configured, min(configured, hard - kept), hard)
