"""`netsrvd run`: serves, in the foreground, under systemd or off the terminal."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from netsrvd import startup
from netsrvd.control.listening import Control, bind
from netsrvd.daemon import Daemon, Start
from netsrvd.errors import NetsrvdError, UsageError, shortage
from netsrvd.services.base import ServerView
from netsrvd.sockets import activation
from netsrvd.systemd.notify import Notifier

if TYPE_CHECKING:
    from argparse import Namespace

    from netsrvd.detach import User
    from netsrvd.handover import Restored

SERVES_AS_ROOT = (
    "netsrvd: warning: the daemon serves as root, which it needs at most to bind ports below 1024; "
    "--user NAME gives that up"
)


def run(arguments: "Namespace") -> int:
    """Prepare all that can fail, then serve; return the exit status.

    Whatever fails, fails here: with its reason on the caller's terminal and in the status that
    systemd shows, and nothing left open.
    """
    try:
        return _run(arguments)
    except NetsrvdError as error:
        systemd = Notifier()
        systemd.status(f"Not started: {'; '.join(str(error).splitlines())}")
        systemd.close()
        raise


def _run(arguments: "Namespace") -> int:
    if arguments.inetd:
        from netsrvd.commands import inetd  # noqa: PLC0415 - a daemon has no use for it

        return inetd.run(arguments)
    if arguments.listener:
        raise UsageError("--listener goes with --inetd; otherwise all listeners are served")
    if arguments.pid_file and not arguments.detach:
        raise UsageError("--pid-file goes with --detach; a service manager needs none")
    if arguments.user and not arguments.detach:
        raise UsageError("--user goes with --detach; a service manager has a setting of its own")
    owner = _owner(arguments.user) if arguments.user else None
    passed, kept = activation.passed()
    control = _control(arguments, passed)
    listening = [each for each in kept if each[1].startswith(activation.STORED_SOCKET)]
    stored = [each for each in kept if each not in listening]
    try:
        start = _prepare(arguments, passed, listening)
        restored = _restore(stored) if stored else None
        return _serve(start._replace(control=control), restored, arguments, owner)
    except (NetsrvdError, OSError, MemoryError) as error:
        if control:
            control.remove()
            passed.append(activation.ActivatedSocket(control.sock, activation.CONTROL))
        activation.drain_and_close(passed)
        found = error if isinstance(error, NetsrvdError) else shortage(error)
        if found is None:
            raise
        if _has_connections(stored):  # systemd keeps these as long as it tries again
            found.exit_status = os.EX_TEMPFAIL
        raise found from error


def _control(arguments: "Namespace", passed: list[activation.ActivatedSocket]) -> Control | None:
    """Return the control socket: the one that systemd passed, or else that of --control.

    Raises ActivationError or SocketError, with what systemd passed closed.
    """
    if sock := activation.take_control(passed):
        return Control(sock, is_passed=True)
    if not arguments.control:
        return None
    try:
        return bind(arguments.control)
    except NetsrvdError:
        activation.drain_and_close(passed)
        raise


def _owner(name: str) -> "User":
    from netsrvd.detach import user  # noqa: PLC0415 - a service manager has a setting of its own

    return user(name)


def _serve(
    start: Start,
    restored: "Restored | None",
    arguments: "Namespace",
    owner: "User | None",
) -> int:
    def serve(on_ready: Callable[[], None]) -> int:
        return Daemon(start, restored, on_ready).run()

    sockets = [one.sock for opened in start.sockets.values() for one in opened]
    sockets += restored.sockets if restored else []
    sockets += [start.control.sock] if start.control else []
    try:
        if arguments.detach:
            from netsrvd.detach import detached  # noqa: PLC0415 - not under a service manager

            status = detached(serve, sockets, arguments.pid_file, owner)
            if owner is None and os.geteuid() == 0:
                print(SERVES_AS_ROOT, file=sys.stderr)
            return status
        return serve(lambda: None)
    finally:  # with --detach in front of the terminal; the daemon has its own copies
        for sock in sockets:
            sock.close()


def _prepare(
    arguments: "Namespace",
    passed: list[activation.ActivatedSocket],
    listening: list[activation.Stored],
) -> Start:
    # A path must still be right when a reload reads it again in another working directory.
    path = arguments.config and arguments.config.absolute()
    configuration = startup.read_configuration(path)
    settings, server_view = configuration.settings, ServerView()
    services = startup.prepare_services(settings, server_view, configuration.sources)
    target = arguments.log or settings.log.target
    log, log_notes = startup.choose_log(target, detached=arguments.detach)
    sockets, notes = startup.open_sockets(configuration, passed, listening)
    count = sum(len(opened) for opened in sockets.values())
    try:
        max_connections, limit_notes = startup.connection_limit(settings, count)
    except NetsrvdError:
        startup.close_bound(sockets)
        raise
    return Start(
        configuration,
        sockets,
        services,
        max_connections,
        notes=log_notes + limit_notes + startup.ignored_settings(configuration) + notes,
        log=log,
        began_at=arguments.began_at,
    )


def _has_connections(stored: list[activation.Stored]) -> bool:
    from netsrvd.handover import STATE  # noqa: PLC0415 - most starts succeed

    return any(name != STATE for _, name in stored)


def _restore(stored: list[activation.Stored]) -> "Restored":
    from netsrvd import handover  # noqa: PLC0415 - most starts have nothing to restore

    return handover.restore(stored)
