"""Takes RATE records a second in the journal's place: `slow_log.py SOCKET RATE`."""

import socket
import sys
import time

STEP_SECONDS = 0.005


def read(path: str, rate: int) -> None:
    """Read for ever; what comes faster waits in the socket, then at the sender."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(path)
    began, taken = time.monotonic(), 0
    while True:
        may_take = (time.monotonic() - began) * rate
        while taken < may_take:
            sock.recv(65536)  # an idle log is not owed anything later
            taken = max(taken + 1, int((time.monotonic() - began - STEP_SECONDS) * rate))
        time.sleep(STEP_SECONDS)


if __name__ == "__main__":
    read(sys.argv[1], int(sys.argv[2]))
