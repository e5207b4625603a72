"""Who may import whom: imports point down, never sideways, never up."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "netsrvd"

# From the top down. Parts of one row do not know each other, but for those of the last row.
ROWS = (
    {"__main__"},
    {"cli"},
    {"arguments"},
    {"commands"},
    {"probe"},
    {"daemon"},
    {"shutdown"},
    {"server"},
    {"overview"},
    {"metrics", "control"},
    {"snapshot"},
    {"startup", "detach", "handover", "udp"},
    {"handlers"},
    {"tcp"},
    {"proxy_pending", "timed"},
    {"connection", "flow", "proxy_datagrams"},
    {"systemd"},
    {"config", "sockets", "access", "services", "log", "proxy_protocol"},
    {
        "settings",
        "contracts",
        "events",
        "counters",
        "run_state",
        "samples",
        "errors",
        "escapes",
        "addresses",
        "units",
        "upgrade",
        "loop_thread",
        "errnos",
        "event_loop",
        "tracebacks",
        "preload",
        "linux",
        "packets",
        "",
    },
)

ROW = {part: number for number, parts in enumerate(ROWS) for part in parts}
LOWEST = len(ROWS) - 1

USERS = {
    "socket": {
        *("addresses", "detach", "handover"),
        "access.access_list",
        *(
            "commands.daemons",
            "commands.inetd",
            "commands.probe",
            "commands.sockopts",
        ),
        *("linux.reply", "linux.mmsg"),
        *("connection", "proxy_pending", "tcp", "timed", "udp"),
        *("handlers.connection", "handlers.datagrams"),
        *("log.drops", "proxy_protocol"),
        *("control.callers", "control.listening"),
        *("log.datagram_socket", "systemd.notify"),
        *("sockets.activation", "sockets.bind", "sockets.broadcast", "sockets.inetd"),
        *("sockets.interfaces", "sockets.kept"),
        *("sockets.option_table", "sockets.options"),
        *("probe.sockets", "probe.stamps", "probe.targets", "probe.tcp", "probe.udp"),
        "systemd.port_owners",
    },
    "threading": {"loop_thread", "event_loop"},
    "select": {
        *("event_loop", "handlers.connection", "handlers.pool", "proxy_pending", "tcp"),
        *("linux.call_queue", "log.datagram_socket", "systemd.notify"),
        *("log.writer", "log.stderr"),
        *("probe.engine", "probe.tcp", "probe.udp"),
        "commands.top",
    },
    "ctypes": {"linux.mmsg"},
    "signal": {
        *("cli", "commands.probe", "daemon", "detach", "shutdown"),
        *("commands.top", "probe.live", "systemd.execution"),
    },
    "daemon": {"detach"},
    "systemd": {"sockets.activation"},
    "resource": {"sockets.descriptors"},
    "subprocess": {"systemd.firewall", "systemd.systemctl"},
    "logging": set(),
    "socketserver": set(),
    "asyncio": set(),
}
"""The modules of ours that may import what touches the system; nobody else does."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


TREES = {module_name(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def part(name: str) -> str:
    return name.partition(".")[0]


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of every module or object that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole path"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Return the modules of ours that one of ours imports."""
    found = set()
    for each in imported(TREES[name]):
        if part(each) == "netsrvd":
            target = each.partition(".")[2]
            found.add(target if target in TREES else target.rpartition(".")[0])
    return found


@pytest.mark.parametrize("name", sorted(TREES))
def test_imports_point_down(name: str) -> None:
    """A module imports from its own part and from lower rows; in the last row from any of it."""
    mine = part(name)
    for target in own_imports(name):
        theirs = part(target)
        down = ROW[theirs] > ROW[mine] or ROW[theirs] == ROW[mine] == LOWEST
        assert down or theirs == mine, f"{name} imports {target}"


def test_every_part_has_its_row() -> None:
    """The rows name every part there is, and none that is not there."""
    assert {part(name) for name in TREES} == {*ROW}


def test_no_circles() -> None:
    """No module imports itself by way of others."""
    graph = {name: own_imports(name) - {name} for name in TREES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_services_know_nothing_of_ours() -> None:
    """A service takes bytes and gives bytes: it imports nothing of ours but its own part, and
    the packets of its protocol."""
    for name in TREES:
        if part(name) == "services":
            assert {part(target) for target in own_imports(name)} <= {"services", "packets"}


@pytest.mark.parametrize("library", USERS)
def test_the_system_is_touched_in_few_places(library: str) -> None:
    """Exactly the modules of the table import what touches the system."""
    users = {
        name for name, tree in TREES.items() if library in {part(each) for each in imported(tree)}
    }
    assert users == USERS[library]


def test_no_locks() -> None:
    """Threads share nothing that would need a lock; they queue calls."""
    assert not [path for path in PACKAGE.rglob("*.py") if "Lock(" in path.read_text()]
