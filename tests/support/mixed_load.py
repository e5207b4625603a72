"""All kinds of clients at once, in a process of their own: `mixed_load.py PORT SECONDS`.

Some connections are busy, some say a word now and then, some come, have one message echoed and
leave; datagrams of changing peers come besides. Each byte that comes back is compared. A line of
JSON with what was done is printed in the end; whatever goes wrong ends it with a traceback.
"""

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

BUSY, IDLE = 20, 200
CHURN_A_SECOND, DATAGRAMS_A_SECOND = 300, 500
PATIENCE_SECONDS = 60

Done = Counter[str]


def connected(port: int) -> socket.socket:
    """Return a connection."""
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def echoed(sock: socket.socket, data: bytes) -> None:
    """Have a message echoed, and compare."""
    sock.sendall(data)
    came = b""
    while len(came) < len(data):
        piece = sock.recv(len(data) - len(came))
        if not piece:
            raise SystemExit("a connection was closed")
        came += piece
    if came != data:
        raise SystemExit("a message came back changed")


def busy(port: int, until: float, done: Done) -> None:
    """Send on all of some connections, again and again, messages of up to 32 KiB."""
    clients = [connected(port) for _ in range(BUSY)]
    done["connections"] += BUSY
    while time.monotonic() < until:
        for number, client in enumerate(clients):
            echoed(client, os.urandom(1 << (number % 16)))
            done["messages"] += 1
    for client in clients:
        client.close()


def idle(port: int, until: float, done: Done) -> None:
    """Say a word every other second on many connections."""
    clients = [connected(port) for _ in range(IDLE)]
    done["connections"] += IDLE
    while time.monotonic() < until:
        for client in clients:
            echoed(client, b"still here")
            done["messages"] += 1
        time.sleep(2)
    for client in clients:
        client.close()


def churn(port: int, until: float, done: Done) -> None:
    """Connect, have a message echoed, and leave."""
    began = time.monotonic()
    while (now := time.monotonic()) < until:
        if done["visits"] > (now - began) * CHURN_A_SECOND:
            time.sleep(0.005)
            continue
        with connected(port) as client:
            echoed(client, b"hello and goodbye")
        done["visits"] += 1


def datagrams(port: int, until: float, done: Done) -> None:
    """Send datagrams, one at a time, from a port that changes every now and then."""
    began = time.monotonic()
    while time.monotonic() < until:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(PATIENCE_SECONDS)
            sock.connect(("127.0.0.1", port))
            for size in range(0, 1400, 28):
                data = os.urandom(size)
                sock.send(data)
                if sock.recv(2000) != data:
                    raise SystemExit("a datagram came back changed")
                done["datagrams"] += 1
        ahead = done["datagrams"] / DATAGRAMS_A_SECOND - (time.monotonic() - began)
        time.sleep(max(0.0, ahead))


def main(port: int, seconds: float) -> None:
    """Run all of them at once; an error of one ends the process with a failure."""
    until = time.monotonic() + seconds
    sums: list[Done] = []

    def run(kind: Callable[[int, float, Done], None]) -> None:
        done: Done = Counter()
        kind(port, until, done)
        sums.append(done)

    threads = [
        threading.Thread(target=run, args=(kind,)) for kind in (busy, idle, churn, datagrams)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(sums) < len(threads):
        raise SystemExit("one of the loads failed")
    print(json.dumps(sum(sums, Counter())))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
