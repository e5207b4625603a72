"""The services by name: which module has each. A module is imported when its service is used."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from netsrvd.services.base import Present, Service, Wishes

SERVICES: Mapping[str, str] = MappingProxyType(
    {
        "echo": "echo",
        "discard": "discard",
        "chargen": "chargen",
        "daytime": "daytime",
        "time": "time",
        "qotd": "qotd",
        "active": "active",
        "whoami": "whoami",
        "close": "close",
    }
)


def prepare(name: str, wishes: Wishes, present: Present) -> Service:
    """Return a service as a listener wishes it; the files that it needs are read now.

    Raises OSError or ValueError where these cannot be used.
    """
    module = import_module(f"{__name__}.{SERVICES[name]}")
    service: Service = module.prepare(wishes, present)
    return service
