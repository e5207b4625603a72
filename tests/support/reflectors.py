"""Reflectors of others and our own, each in a network namespace, for `netsrvd probe` to ask."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.balancers import end, server
from tests.support.namespaces import Namespace
from tests.support.patience import SECONDS, eventually, wait_readable
from tests.support.private import private_files
from tests.support.run import COMMAND, ENVIRONMENT, toml

ECHO_PORT = 7
"""Of inetd's echo service in services(5)."""
OWN_PORT = 51423
STAMP_PORT = 862

XINETD = """
defaults
{
}
service echo
{
    type = INTERNAL
    id = echo-dgram
    socket_type = dgram
    protocol = udp
    wait = yes
    user = root
}
service echo
{
    type = INTERNAL
    id = echo-stream
    socket_type = stream
    protocol = tcp
    wait = no
    user = root
}
"""

INETD = """
echo dgram udp wait root internal
echo stream tcp nowait root internal
"""


@contextmanager
def xinetd(space: Namespace, folder: Path) -> Iterator[int]:
    """Run xinetd with its own echo services on every address; give their port."""
    config = folder / "xinetd.conf"
    config.write_text(XINETD)
    argv = ["-dontfork", "-f", config, "-pidfile", folder / "xinetd.pid"]
    with _running(space, folder, [server("xinetd"), *argv], ECHO_PORT) as port:
        yield port


@contextmanager
def inetd(space: Namespace, folder: Path) -> Iterator[int]:
    """Run the inetd of GNU inetutils with its own echo services on every address."""
    config = folder / "inetd.conf"
    config.write_text(INETD)
    argv = ["--debug", f"--pidfile={folder / 'inetd.pid'}", config]
    with _running(space, folder, [server("inetutils-inetd"), *argv], ECHO_PORT) as port:
        yield port


@contextmanager
def netsrvd(
    space: Namespace, folder: Path, service: str = "echo", port: int = OWN_PORT, **keys: object
) -> Iterator[int]:
    """Run this daemon with its listener `echo` on every address; `keys` are more settings.

    Its limits do not apply unless `keys` name an `unlimited` of their own.
    """
    port = STAMP_PORT if service == "stamp" else port
    protocols = {"protocols": ["udp"]} if service == "stamp" else {}
    listener = {"service": service, "port": port, "allow": ["any"], "unlimited": ["any"]}
    config = folder / "netsrvd.toml"
    tables: Mapping[str, object] = {"listener": {"echo": listener | protocols | keys}}
    config.write_text(toml(tables))
    argv = [COMMAND, "run", "--config", config, "--log", "stderr"]
    with _running(space, folder, argv, port) as given:
        yield given


@contextmanager
def scapy_stamp(space: Namespace, address: str, ahead_seconds: float = 0) -> Iterator[int]:
    """Run a STAMP reflector whose packets scapy takes apart and puts together."""
    script = Path(__file__).with_name("scapy_stamp.py")
    with ExitStack() as stack:
        with space.entered():
            process = stack.enter_context(
                subprocess.Popen(
                    ["/usr/bin/python3", script, address, str(STAMP_PORT), str(ahead_seconds)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                )
            )
        stack.callback(process.terminate)
        assert process.stdout
        wait_readable(process.stdout.fileno(), "scapy", 3 * SECONDS)
        assert process.stdout.readline() == b"ready\n"
        yield STAMP_PORT


@contextmanager
def _running(
    space: Namespace, folder: Path, argv: Sequence[str | Path], port: int
) -> Iterator[int]:
    """Run a server that stays in the foreground until the block ends; give its port when its UDP
    socket is there.
    """
    assert not _is_bound(space, port), f"port {port} is in use"
    said = folder / "said"
    with ExitStack() as stack:
        output = stack.enter_context(said.open("wb"))
        with space.entered():
            process = subprocess.Popen(
                [*private_files(folder), *argv],
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        stack.callback(end, process)

        def is_bound() -> bool:
            assert process.poll() is None, f"{argv} ended: {said.read_text()}"
            return _is_bound(space, port)

        eventually(is_bound, f"{argv[0]} listens")
        yield port


def _is_bound(space: Namespace, port: int) -> bool:
    """Return whether a UDP socket has this port; none is made that could be in the way."""
    with space.entered():
        lines = [
            line.split()[1]
            for name in ("udp", "udp6")
            for line in Path("/proc/thread-self/net", name).read_text().splitlines()[1:]
        ]
    return f"{port:04X}" in {address.rpartition(":")[2] for address in lines}
