"""Many clients at once, in a process of their own: `crowd.py PORT IDLE BUSY ROUNDS`.

All connect and have one byte echoed; then the busy ones send and check message after message, all
at the same time. It prints a line of JSON after each of the two steps; after the second it waits
for a line on standard input, has one byte of everybody echoed again, leaves, and prints a third.
"""

import json
import resource
import select
import socket
import sys
import time

MESSAGE = bytes(range(64))


def connected(port: int, count: int) -> list[socket.socket]:
    """Return `count` connections, each of which has had a byte echoed."""
    found = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(count)]
    ask_all(found)
    return found


def ask_all(clients: list[socket.socket]) -> None:
    """Have a byte of everybody echoed."""
    for client in clients:
        client.send(b"?")
    for client in clients:
        if client.recv(10) != b"?":
            raise SystemExit("a byte did not come back")


def busy(clients: list[socket.socket], rounds: int) -> list[float]:
    """Have `rounds` messages of each client echoed, all at once; return the seconds of each."""
    waiting = {client.fileno(): client for client in clients}
    left = dict.fromkeys(waiting, rounds)
    sent_at, took = {}, []
    epoll = select.epoll()
    for descriptor, client in waiting.items():
        epoll.register(descriptor, select.EPOLLIN)
        sent_at[descriptor] = time.monotonic()
        client.send(MESSAGE)
    while left:
        ready = epoll.poll(20)
        if not ready:
            raise SystemExit(f"nothing comes back any more, {len(left)} left")
        for descriptor, _ in ready:
            if waiting[descriptor].recv(1000) != MESSAGE:
                raise SystemExit("a message came back changed or in pieces")
            now = time.monotonic()
            took.append(now - sent_at[descriptor])
            left[descriptor] -= 1
            if left[descriptor]:
                sent_at[descriptor] = now
                waiting[descriptor].send(MESSAGE)
            else:
                del left[descriptor]
    epoll.close()
    return sorted(took)


def main(port: int, idle: int, active: int, rounds: int) -> None:
    """Take the steps."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    began = time.monotonic()
    quiet, loud = connected(port, idle), connected(port, active)
    tell(connected=len(quiet) + len(loud), seconds=time.monotonic() - began)
    began = time.monotonic()
    took = busy(loud, rounds)
    tell(messages=len(took), seconds=time.monotonic() - began, median=took[len(took) // 2])
    sys.stdin.readline()
    ask_all(quiet + loud)
    for client in quiet + loud:
        client.close()
    tell(left=len(quiet) + len(loud))


def tell(**figures: float) -> None:
    """Print figures."""
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
