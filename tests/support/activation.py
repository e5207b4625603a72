"""Starts a program as systemd starts one that has sockets (sd_listen_fds(3))."""

import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

# Becomes the program, in the same process, so that LISTEN_PID is its PID. What is given is moved
# out of the way first: the numbers may overlap those that it is to have.
_PASS_ON = """
import fcntl, os, sys
given, names, pid, *command = sys.argv[1:]
moved = [fcntl.fcntl(int(each), fcntl.F_DUPFD, 1000) for each in given.split()]
for number, descriptor in enumerate(moved, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
os.closerange(3 + len(moved), 1000)
os.environ |= {"LISTEN_FDS": str(len(moved)), "LISTEN_PID": pid or str(os.getpid())}
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
"""


def passing(
    sockets: Sequence[socket.socket | int], names: str = "", pid: str = ""
) -> dict[str, Any]:
    """Return how `Run` passes sockets on: with these names, "a:b", or to the process `pid`."""
    numbers = [each if isinstance(each, int) else each.fileno() for each in sockets]
    given = " ".join(map(str, numbers))
    return {
        "under": [sys.executable, "-IS", "-c", _PASS_ON, given, names, pid],
        "pass_fds": numbers,
    }


def opened(stack: ExitStack, port: int, *kinds: str) -> list[socket.socket]:
    """Return bound sockets, blocking ones, as systemd opens them; `kinds` are as in `HOSTS`."""
    return [stack.enter_context(_opened(kind, port)) for kind in kinds]


HOSTS = {"4": "127.0.0.1", "6": "::1", "dual": "::"}
"""The addresses of kinds such as "tcp4", "udp6" and "tcpdual"."""


def _opened(kind: str, port: int) -> socket.socket:
    host = HOSTS[kind[3:]]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    tcp = kind.startswith("tcp")
    sock = socket.socket(family, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # on UDP sockets, too
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != HOSTS["dual"])
    sock.bind((host, port))
    if tcp:
        sock.listen()
    return sock
