"""A whole server in the test's process: from settings to its end."""

from collections.abc import Callable, Sequence

from netsrvd import startup
from netsrvd.server import Server
from netsrvd.services.base import ConnectionList
from netsrvd.settings import Settings
from netsrvd.sockets.activation import ActivatedSocket
from tests.support.planned import configuration


def nothing() -> None:
    """Wake no main thread."""


def build(
    settings: Settings,
    passed: Sequence[ActivatedSocket] = (),
    *,
    log: str = "stderr",
    wake: Callable[[], None] = nothing,
) -> Server:
    """Return a server that has not started yet, with its sockets open."""
    sockets, _ = startup.open_sockets(configuration(settings), list(passed))
    services = startup.prepare_services(settings, ConnectionList())
    return Server(settings, sockets, services, 10_000, log, wake)


def addresses(server: Server, protocol: str = "") -> list[tuple[str, int]]:
    """Return the addresses that a server serves, those of one protocol or all."""
    opened = [*server.passed, *server.bound.values()]
    return [each.address() for each in opened if each.protocol == (protocol or each.protocol)]


def stop(server: Server) -> int:
    """Stop a server without a drain; return how many connections were closed."""
    server.stop_listening(0.0)
    closed = server.close_connections()
    server.stop_log()
    return closed
