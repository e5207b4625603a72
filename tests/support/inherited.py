"""Sockets as systemd makes them for a socket unit."""

import socket


def as_systemd(kind: int, host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a socket as systemd makes it: blocking, dual-stack if it is for all addresses, with
    SO_REUSEADDR also on UDP, and without a word about where a datagram was sent to.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    return by_descriptor(sock)


def by_descriptor(sock: socket.socket) -> socket.socket:
    """Return the same socket as `activation.passed` finds it: Python asks the kernel what it is."""
    return socket.socket(fileno=sock.detach())
