"""A whole server in the test's process: from settings to its end."""

from collections.abc import Callable, Sequence

from netsrvd import assembly
from netsrvd.server import Server
from netsrvd.services.base import Present
from netsrvd.settings import Settings
from netsrvd.sockets.activation import Passed
from tests.support.planned import configuration


def nothing() -> None:
    """Wake no main thread."""


def build(
    settings: Settings,
    passed: Sequence[Passed] = (),
    *,
    log: str = "stderr",
    wake: Callable[[], None] = nothing,
) -> Server:
    """Return a server that has not started yet, with its sockets open."""
    sockets, _ = assembly.open_sockets(configuration(settings), list(passed))
    services = assembly.prepare_services(settings, Present())
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
