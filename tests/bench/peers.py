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
OWN_PORT = 51423
PROGRAM = os.environ.get("NETSRVD", str(ROOT / ".venv/bin/netsrvd"))


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


def netsrvd(
    name: str = OWN,
    configuration: str = "",
    about: str = "as users run it: default configuration, log to the journal",
    port: int = OWN_PORT,
) -> Peer:
    """Return netsrvd with a configuration of its own; an empty one is the default.

    Under systemd it would choose the journal by itself.
    """
    return Peer(
        name,
        (PROGRAM, "run", "--log", "journal", "--config", "{configuration}"),
        (PROGRAM, "--version"),
        about,
        port=port,
        configuration=configuration,
    )


def instances(count: int) -> Peer:
    """Return several netsrvd that share one port, as systemd's ReusePort= makes it."""
    one = netsrvd()
    launcher = (PYTHON, str(HERE / "instances.py"), str(count), str(OWN_PORT))
    return Peer(f"{count} instances", (*launcher, *one.command), one.version, "", port=OWN_PORT)


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

LIMITED = netsrvd(
    "limited",
    f"""
[listener.echo]
port = {OWN_PORT + 1}
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
    "netsrvd without addresses that are exempt from the limits of a source, which nobody reaches",
    OWN_PORT + 1,
)

PEERS = (
    Peer(
        REFERENCE,
        ("sh", "-c", C_BOTH, "{port}"),
        ("cc", "--version"),
        "the reference: a process with one epoll loop, one with recvmmsg",
    ),
    netsrvd(),
    LIMITED,
    _library("uvloop", "protocols on libuv", package="uvloop"),
    Peer(
        "one loop",
        (PYTHON, str(HERE / "loop.py"), "{port}"),
        (PYTHON, "--version"),
        "Python, epoll and recvmmsg in one loop without any policy",
    ),
    _library("asyncio", "protocols"),
    _library("gevent", "a greenlet a connection", package="gevent"),
    _library("twisted", "protocols", package="twisted"),
    _library("socketserver", "a thread a connection and a datagram"),
    Peer("go", (f"{BIN}/go_echo", "{port}"), ("go", "version"), "a goroutine a connection"),
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
