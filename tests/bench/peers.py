"""The table of servers that are compared."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.boxes import BUILD, ROOT

HERE = Path(__file__).with_name("peers")
BIN = BUILD / "bin"
PYTHON = sys.executable

REFERENCE = "C"
OWN = "netsrvd"
NO_RECORDS, LIMITS = "netsrvd, notice", "netsrvd, limits"
ONE_LOOP, UVLOOP, GO = "one loop", "uvloop", "go"
OWN_PORT, LIMITS_PORT, NO_RECORDS_PORT = 51423, 51424, 51425
TREE_PYTHON = ROOT / ".venv/bin/python"
PROGRAM = os.environ.get("NETSRVD", str(ROOT / ".venv/bin/netsrvd"))
RUN = ("run", "--log", "journal", "--config", "{configuration}")


@dataclass(frozen=True)
class Peer:
    """A server, how to start it, and how to ask for its version (and so whether it is there)."""

    name: str
    command: tuple[str, ...]
    """`{port}` stands for its port."""
    version: tuple[str, ...]
    about: str
    protocols: tuple[str, ...] = ("tcp", "udp")
    crowd: int = 8000
    """Idle connections that it is tried with; fewer where each is a process."""
    port: int = 0
    configuration: str = ""
    """`{configuration}` stands for a file with it."""
    general: bool = True
    """Measured in all scenarios that name no peers; otherwise only where a scenario names it."""


def netsrvd(
    name: str = OWN,
    configuration: str = "",
    about: str = "as users run it: default configuration, log to the journal",
    port: int = OWN_PORT,
    program: tuple[str, ...] = (PROGRAM,),
) -> Peer:
    """Return netsrvd with a configuration of its own; an empty one is the default.

    Under systemd it would choose the journal by itself.
    """
    return Peer(
        name,
        (*program, *RUN),
        (PROGRAM, "--version"),
        about,
        port=port,
        configuration=configuration,
        general=name == OWN,
    )


def instances(count: int) -> Peer:
    """Return several netsrvd that share one port, as systemd's ReusePort= makes it."""
    one = netsrvd()
    launcher = (PYTHON, str(HERE / "instances.py"), str(count), str(OWN_PORT))
    return Peer(f"{count} instances", (*launcher, *one.command), one.version, "", port=OWN_PORT)


def accepting(accepts: int) -> Peer:
    """Return the tree's netsrvd with another number of accepts in a turn of the tcp loop."""
    patched = (str(TREE_PYTHON), str(HERE / "burst.py"), str(accepts))
    return netsrvd(f"{accepts} accepts", program=patched)


def _library(name: str, about: str, *, package: str = "") -> Peer:
    ask = "import sys; print('Python', sys.version.split()[0])"
    if package:
        ask = f"import importlib.metadata as m; print(m.version('{package}'))"
    script = (PYTHON, str(HERE / "echo.py"), name, "{port}")
    return Peer(name, script, (PYTHON, "-c", ask), about)


def _xinetd(name: str, log: str, about: str) -> Peer:
    script = (str(HERE / "xinetd"), "{port}", log)
    return Peer(name, script, ("xinetd", "-version"), about, crowd=1000)


C_BOTH = f'"{BIN}/epoll_echo" "$0" & exec "{BIN}/mmsg_echo" "$0"'

XINETD_LOGS = _xinetd("xinetd, logs", "syslog", "internal echo, each connection logged twice")

OTHER_NETWORKS = [f"198.18.{number}.0/24" for number in range(32)]  # RFC 2544

LIMITED = netsrvd(
    LIMITS,
    f"""
[listener.echo]
port = {LIMITS_PORT}
allow = {["loopback", *OTHER_NETWORKS[::2]]}
deny = {OTHER_NETWORKS[1::2]}
unlimited = []
connection_rate = 1000000
connection_burst = 1000000
max_connections_per_source = 10000
datagram_rate = 10000000
datagram_burst = 10000000
byte_rate = "1000G"
byte_burst = "1000G"
reply_rate = "1000G"
""",
    "netsrvd with all limits of a source and 32 networks to allow or deny, none of them reached",
    LIMITS_PORT,
)

SILENT = netsrvd(
    NO_RECORDS,
    f"""
log.level = "notice"
listener.echo.port = {NO_RECORDS_PORT}
""",
    'netsrvd with `level = "notice"`, so without records of connections',
    NO_RECORDS_PORT,
)

PEERS = (
    Peer(
        REFERENCE,
        ("sh", "-c", C_BOTH, "{port}"),
        ("cc", "--version"),
        "the reference: a process with one epoll loop, one with recvmmsg",
    ),
    netsrvd(),
    SILENT,
    LIMITED,
    _library(UVLOOP, "protocols on libuv", package="uvloop"),
    Peer(
        ONE_LOOP,
        (PYTHON, str(HERE / "loop.py"), "{port}"),
        (PYTHON, "--version"),
        "Python, epoll and recvmmsg in one loop without any policy",
        general=False,
    ),
    _library("asyncio", "protocols"),
    _library("gevent", "a greenlet a connection", package="gevent"),
    _library("twisted", "protocols", package="twisted"),
    _library("socketserver", "a thread a connection and a datagram"),
    Peer(GO, (f"{BIN}/go_echo", "{port}"), ("go", "version"), "a goroutine a connection"),
    Peer("rust", (f"{BIN}/rust_echo", "{port}"), ("rustc", "--version"), "a thread a connection"),
    Peer("node", ("node", str(HERE / "echo.js"), "{port}"), ("node", "--version"), "streams"),
    _xinetd("xinetd", "none", "internal echo without log and libwrap: its best case"),
    XINETD_LOGS,
    Peer(
        "socat",
        (str(HERE / "socat"), "{port}"),
        ("socat", "-V"),
        "a process a connection and a datagram",
        crowd=1000,
    ),
    Peer(
        "ncat",
        ("ncat", "-lkm", "20000", "-e", "/bin/cat", "127.0.0.1", "{port}"),
        ("ncat", "--version"),
        "/bin/cat for each connection",
        protocols=("tcp",),
        crowd=1000,
    ),
)
