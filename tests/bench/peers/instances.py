"""Starts several daemons on one port: `instances.py COUNT PORT COMMAND...`.

Each gets a TCP and a UDP socket of its own with SO_REUSEPORT, between which the kernel shares out
connections and peers, passed on as systemd does it for sockets with ReusePort=yes.
"""

import os
import socket
import sys

FIRST = 3  # SD_LISTEN_FDS_START


def opened(kind: socket.SocketKind, port: int) -> socket.socket:
    """Return a bound socket that others may share the port with."""
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(4096)
    return sock


def start(port: int, command: list[str]) -> None:
    """Become one instance."""
    sockets = [opened(socket.SOCK_STREAM, port), opened(socket.SOCK_DGRAM, port)]
    assert [sock.fileno() for sock in sockets] == [FIRST, FIRST + 1], "nothing else is open"
    for sock in sockets:
        sock.set_inheritable(True)
    os.environ |= {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
    os.execvp(command[0], command)


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        if not os.fork():
            start(int(sys.argv[2]), sys.argv[3:])
    os.wait()
