"""Configurations and plans, made from settings without any file."""

from collections.abc import Collection
from pathlib import Path

from netsrvd.config import changes
from netsrvd.config.files import Configuration, Sources
from netsrvd.settings import Settings

FILE = Path("netsrvd.toml")


def configuration(settings: Settings, **named: Collection[str]) -> Configuration:
    """Return a configuration whose file names these keys for each listener."""
    sources = Sources()
    for name, keys in named.items():
        sources.origins |= {("listener", name, key): FILE for key in keys}
    return Configuration(settings, (), sources)


def planned(old: Settings, new: Settings, passed: changes.ActivatedSocket = ()) -> changes.Plan:
    """Return the plan of a daemon that has bound all that it was to bind.

    `passed` are the listeners and protocols that sockets of systemd's serve, before and after.
    """
    before, wanted = changes.endpoints(old, passed), changes.endpoints(new, passed)
    return changes.plan(old, new, before, before, wanted)
