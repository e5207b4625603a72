"""Imports, while the daemon runs, the modules that a start does not need.

An upgrade of the package replaces the files of a daemon that runs. A module that is imported after
that comes from another version than those that use it. So all of them are imported soon after
READY, when no client waits for the start any more.
"""

import sys
from importlib import import_module
from itertools import chain

from netsrvd.errors import shortage
from netsrvd.tracebacks import described, traceback_of

MODULES = (
    # a stop that is the beginning of a restart, and its records
    "netsrvd.events.handover",
    "netsrvd.handover",
    "netsrvd.linux.memfd",
    "netsrvd.sockets.kept",
    # rates that status and the page show
    "netsrvd.samples",
    # a reload that a caller of the control socket asks for
    "netsrvd.control.callers",
    "netsrvd.control.calls",
    # a look at other programs with the same port
    "netsrvd.systemd.port_owners",
    # clients that do not read
    "netsrvd.linux.send_queue",
    # a reload that adds a handler
    "netsrvd.events.handlers",
    "netsrvd.linux.reply",
    "netsrvd.handlers.connection",
    "netsrvd.handlers.connections",
    "netsrvd.handlers.datagrams",
    "netsrvd.handlers.pool",
    "netsrvd.services.handler",
    "site",
    # a reload that adds a service
    "netsrvd.services.active",
    "netsrvd.services.chargen",
    "netsrvd.services.close",
    "netsrvd.services.daytime",
    "netsrvd.services.discard",
    "netsrvd.services.echo",
    "netsrvd.services.qotd",
    "netsrvd.services.time",
    "netsrvd.services.whoami",
    # a configuration that says something, with lists or faults
    "netsrvd.config.key_lines",
    "difflib",
    "ipaddress",
    "json",
    "tomllib",
    # tracebacks: these modules are imported by traceback only when a line needs them
    "ast",
    "linecache",
    "traceback",
    "unicodedata",
)
"""What may be needed until the end, besides what a start imports; it takes 16 ms and 2.3 MB
(`python3 -X importtime`).
"""


FOR_SERVICES = {
    "netsrvd.services.metrics": ("netsrvd.metrics", "netsrvd.overview", "netsrvd.snapshot"),
}
"""What a service may need later; imported if the service is. Those of `startup.LARGE` are not in
`MODULES`: after an upgrade a reload that adds one of them fails, and says that a restart is due.
"""


def preload() -> list[tuple[str, str]]:
    """Import what is missing; return the name of each module that cannot be imported, and why.

    Raises OSError or MemoryError for a lack of descriptors or memory; it is to be called again.
    """
    problems = []
    of_services = (names for service, names in FOR_SERVICES.items() if service in sys.modules)
    for name in (*MODULES, *chain.from_iterable(of_services)):
        if name not in sys.modules:
            try:
                import_module(name)
            except Exception as error:
                if shortage(error):
                    raise
                problems.append((name, described(error)))
    _make_a_traceback()
    return problems


def _make_a_traceback() -> None:
    """Make the traceback module import what it needs for lines of code and their marks."""
    nothing = 0
    try:
        1 / nothing
    except ZeroDivisionError as error:
        traceback_of(error)
