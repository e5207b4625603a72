"""`netsrvd apply`: has systemd listen as the configuration says, and brings it into force."""

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from netsrvd import startup
from netsrvd.commands import check
from netsrvd.config import changes
from netsrvd.config.files import DEFAULT_FILE, Configuration
from netsrvd.config.schema import effective
from netsrvd.config.values import written
from netsrvd.errors import ConfigError, SystemdError, UsageError
from netsrvd.systemd import comparison, firewall, saved, systemctl
from netsrvd.systemd.execution import Execution, signals_undo
from netsrvd.systemd.host import look
from netsrvd.systemd.plan import Host, Plan, Target, plan

Row = tuple[str, Any, Any]
"""A setting, its old and its new value."""

LOCK = Path("/run/netsrvd-apply.lock")

NOTHING, RELOAD, RESTART, SOCKETS = "nothing", "reload", "restart", "start sockets"


class NotKeptError(SystemdError):
    """All is in force, but is not kept as a state to return to."""


class Work(NamedTuple):
    """What one call of the command found, and is to do."""

    configuration: Configuration
    main: Path
    files: saved.Files
    """The contents of its files when they were judged."""
    host: Host
    plan: Plan
    settings: tuple[Row, ...]
    """What differs from what was put into force by the last call."""
    actions: Mapping[str, str]
    """What each service needs."""
    obstacles: tuple[str, ...]
    """For each of them nothing is changed."""
    warnings: tuple[str, ...]
    firewall: tuple[str, ...]

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to do."""
        return self.plan.needs_units or any(each != NOTHING for each in self.actions.values())


def run(arguments: argparse.Namespace) -> int:
    """Show what will change, and do it unless this is a dry run.

    Raises ConfigError for a faulty configuration, and SystemdError with everything as it was where
    a step fails.
    """
    if os.geteuid() != 0 and not arguments.dry_run:
        raise UsageError("it changes units of systemd: run it as root, or with --dry-run")
    try:
        with _alone(arguments), signals_undo():
            return _roll_back(arguments) if arguments.rollback else _apply(arguments, look())
    except OSError as error:
        raise SystemdError(f"{error.filename or 'a file'}: {error.strerror}") from error


@contextmanager
def _alone(arguments: argparse.Namespace) -> Iterator[None]:
    """Keep other calls of this command from changing anything meanwhile."""
    if arguments.dry_run:
        yield
        return
    # A user who may open the file may lock it: root alone.
    with os.fdopen(os.open(LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "w") as file:
        LOCK.chmod(0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("another `netsrvd apply` is at work; wait for its end") from error
        yield


def _apply(arguments: argparse.Namespace, host: Host) -> int:
    work = _work(host)
    if not arguments.json:
        for line in _lines(work, dry_run=arguments.dry_run):
            print(line)
        sys.stdout.flush()
    if not arguments.dry_run:
        _do(work)
    if arguments.json:
        print(json.dumps(_as_json(work, applied=not arguments.dry_run), indent=2))
    elif arguments.dry_run:
        print("nothing was changed (--dry-run)")
    else:
        print("in force" if work.is_needed else "nothing to do: all is as the configuration says")
    return os.EX_OK


def _roll_back(arguments: argparse.Namespace) -> int:
    """Put the files of the last good state back, and apply them."""
    now, before = saved.read(), saved.read(saved.PREVIOUS)
    main = look().config or DEFAULT_FILE
    if now and saved.files(now.folder / now.main) == saved.files(main):
        now = before
    if not now and saved.is_hidden():
        raise UsageError("only root may read the earlier states, also with --dry-run")
    if not now:
        raise UsageError("there is no earlier state: `netsrvd apply` has saved none")
    host = look(now.units)
    if arguments.dry_run:
        configuration = startup.read_configuration(now.folder / now.main)
        work = _compared(configuration, main, saved.files(main), host)
        if arguments.json:
            print(json.dumps(_as_json(work, applied=False), indent=2))
        else:
            print(
                *_lines(work, dry_run=True),
                f"back to {now.time}; nothing was changed (--dry-run)",
                sep="\n",
            )
        return os.EX_OK
    saved.put_back(now, main)
    try:
        status = _apply(arguments, host)
    except NotKeptError:  # the files are those in force
        raise
    except BaseException:
        saved.put_back_undone(main)
        raise
    if not arguments.json:
        folder = saved.STATE / saved.UNDONE
        print(f"the files are those of {now.time}; those of before are in {folder}")
    return status


def _work(host: Host) -> Work:
    report = check.judge(host.config)
    if report.configuration is None or report.faults:
        raise ConfigError(report.faults)
    main = host.config or DEFAULT_FILE
    return _compared(report.configuration, main, saved.files(main), host)


def _compared(configuration: Configuration, main: Path, files: saved.Files, host: Host) -> Work:
    planned = plan(configuration.settings, configuration.named, host)
    known = saved.read()
    old = _read_saved(known)
    rows = tuple(_differences(old, configuration)) if old else ()
    is_same = known is not None and saved.files(known.folder / known.main) == files
    stamps = known.stamps if known and is_same else {}
    restart = _needs_restart(old, configuration)
    actions = {
        steps.target.service: RESTART
        if steps.target.is_running and (steps.stop or steps.start)
        else SOCKETS
        if steps.stop or steps.start
        else _action(steps.target, stamps, saved.changed_at(main), needs_restart=restart)
        for steps in planned.steps
    }
    return Work(
        configuration,
        main,
        files,
        host,
        planned,
        rows,
        actions,
        comparison.obstacles(configuration.settings, host, planned),
        tuple(comparison.warnings(host, planned)),
        tuple(firewall.hints(_ports(configuration))),
    )


def _action(
    target: Target, stamps: Mapping[str, str], changed_at: float, *, needs_restart: bool
) -> str:
    """Return what a service needs whose sockets stay: nothing if it has read the files of now."""
    is_same = stamps.get(target.service) == target.stamp or target.started_at > changed_at
    if not target.is_running or is_same:
        return NOTHING
    return RESTART if needs_restart else RELOAD


def _read_saved(known: saved.Saved | None) -> Configuration | None:
    """Return the configuration of the last call; None if this version has faults to find there."""
    try:
        return startup.read_configuration(known.folder / known.main) if known else None
    except ConfigError:
        return None


def _needs_restart(old: Configuration | None, new: Configuration) -> bool:
    """Return whether a reload would leave something of the new configuration out of force."""
    return bool(old and changes.plan(old.settings, new.settings, (), (), {}).needs_restart)


def _differences(old: Configuration, new: Configuration) -> Iterator[Row]:
    """Yield each setting that differs. A listener that is new or gone shows in its socket unit."""
    before = dict(effective(old.settings, startup.VALIDATORS))
    after = dict(effective(new.settings, startup.VALIDATORS))
    names = {each.name for each in old.settings.listeners}
    names ^= {each.name for each in new.settings.listeners}
    for path in dict.fromkeys((*before, *after)):
        is_new_or_gone = path[0] == "listener" and path[1] in names
        if before.get(path) != after.get(path) and not is_new_or_gone:
            yield ".".join(path), before.get(path), after.get(path)


def _ports(configuration: Configuration) -> set[tuple[str, int]]:
    """Return the ports that others than this host are to reach."""
    return {
        (protocol, listener.port)
        for listener in configuration.settings.listeners
        for protocol in listener.protocols
        if set(listener.allow) != {"loopback"}
    }


def _lines(work: Work, *, dry_run: bool) -> Iterator[str]:
    for change in work.plan.changes:
        yield change.text
    for key, old, new in work.settings:
        yield f"{key}: {_toml(old)} -> {_toml(new)}"
    for service, action in work.actions.items():
        if action == RESTART:
            yield f"{service}: is restarted; live connections go on"
        elif action == RELOAD:
            yield f"{service}: reads the configuration again"
    obstacles = work.obstacles if dry_run else ()  # otherwise they are an error
    yield from (f"warning: {line}" for line in (*obstacles, *work.warnings))
    yield from work.firewall


def _toml(value: object) -> str:
    return "(none)" if value is None else written(value)


def _as_json(work: Work, *, applied: bool) -> dict[str, Any]:
    return {
        "applied": applied,
        "changes": [each._asdict() for each in work.plan.changes],
        "settings": [{"key": key, "old": old, "new": new} for key, old, new in work.settings],
        "services": dict(work.actions),
        "listeners": [
            {"listener": name, "unit": unit, "addresses": addresses}
            for name, unit, addresses in work.plan.serving
        ],
        "warnings": [*work.obstacles, *work.warnings],
        "firewall": list(work.firewall),
    }


def _do(work: Work) -> None:
    if work.obstacles:
        raise SystemdError("\n".join((*work.obstacles, "nothing was changed")))
    if work.plan.needs_units:
        Execution(work.plan, work.host).run()
    for service, action in work.actions.items():
        done = any(
            each.target.service == service and (each.stop or each.start) for each in work.plan.steps
        )
        if action == RELOAD:
            _reload(service)
        elif action == RESTART and not done:
            systemctl.command("restart", service)
    try:
        _keep(work)
    except (SystemdError, OSError) as error:
        raise NotKeptError(f"in force, but not kept for a later --rollback: {error}") from error


def _keep(work: Work) -> None:
    if saved.files(work.main) != work.files:
        raise SystemdError("the files were changed meanwhile; run `netsrvd apply` again")
    stamps = {each.service: each.stamp for each in look().targets}
    moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    facts = saved.Saved(Path(), work.main.name, work.plan.kept, stamps, moment)
    saved.save(work.main, facts)


def _reload(service: str) -> None:
    since = time.time()
    try:
        try:
            systemctl.command("reload", service)
        except SystemdError:
            if _serves(service):
                raise
            systemctl.command("restart", service)  # its start had failed, systemd waits to retry
    except SystemdError as error:
        reasons = "\n".join(systemctl.reasons(service, since))
        raise SystemdError(
            f"the old configuration is still in force: {error}\n{reasons}"
        ) from error


def _serves(service: str) -> bool:
    """Return whether a service is up, and so can be told to reload."""
    [properties] = systemctl.show([service], ("ActiveState",))
    return properties["ActiveState"][0] in ("active", "reloading")
