"""Clients that never pause, inside a machine: `steady_load.py PORT`.

Some connections have a message echoed every few milliseconds and take the time of each round trip;
so does one UDP socket; others come, have one message echoed, and go. For each line `SECONDS` on
standard input it prints, that much later, a line of JSON with what was done since the line before;
after the last one it leaves.
"""

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

HOST = "127.0.0.1"
STEADY, VISITORS = 5, 20
PAUSE_SECONDS = 0.01
VISIT_SECONDS = 0.2
PATIENCE_SECONDS = 20

ended = threading.Event()
done: Counter[str] = Counter()
trips: list[float] = []
faults: list[str] = []


def guarded(work: Callable[[int], None], port: int) -> None:
    """Note what goes wrong."""
    try:
        work(port)
    except (OSError, ValueError) as error:
        faults.append(f"{work.__name__}: {error!r}")


def echoed(sock: socket.socket, data: bytes) -> None:
    """Have a message echoed, and take the time."""
    began = time.monotonic()
    sock.send(data)
    if sock.recv(1000) != data:
        raise ValueError("not what was sent")
    trips.append(time.monotonic() - began)


def steady(port: int) -> None:
    """Stay, and talk."""
    with socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS) as sock:
        done["connections"] += 1
        while not ended.wait(PAUSE_SECONDS):
            echoed(sock, b"%d" % len(trips))


def datagrams(port: int) -> None:
    """Talk by UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect((HOST, port))
        while not ended.wait(PAUSE_SECONDS):
            echoed(sock, b"%d" % len(trips))


def visits(port: int) -> None:
    """Come and go."""
    while not ended.wait(VISIT_SECONDS):
        with socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS) as sock:
            done["connections"] += 1
            echoed(sock, b"hello and goodbye")
            sock.shutdown(socket.SHUT_WR)
            if sock.recv(1):
                raise ValueError("more than was due")


def main(port: int) -> None:
    """Talk until standard input ends."""
    works = [steady] * STEADY + [datagrams] + [visits] * VISITORS
    threads = [threading.Thread(target=guarded, args=(work, port)) for work in works]
    for thread in threads:
        thread.start()
    for line in sys.stdin:
        time.sleep(float(line))
        taken, trips[:] = sorted(trips), []
        p99 = taken[len(taken) * 99 // 100]
        print(json.dumps({"trips": len(taken), "p99": p99, "worst": taken[-1]}), flush=True)
    ended.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"connections": done["connections"], "faults": faults}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
