"""Short connections without a pause: `storm.py PORT CONNECTIONS SECONDS [MESSAGE]`.

Connects and closes again and again, from many addresses of the loopback network, until it has done
so CONNECTIONS times or SECONDS are over. With a MESSAGE each connection sends it first. It prints
the number of its connections.
"""

import socket
import sys
from contextlib import suppress
from time import monotonic

CONNECT_SECONDS = 1.0


def main(port: int, connections: int, seconds: float, message: str = "") -> None:
    """Connect and close, and print how often."""
    deadline, made = monotonic() + seconds, 0
    while made < connections and monotonic() < deadline:
        # Each source address has 28,000 ports of its own, which stay in TIME_WAIT.
        source = f"127.0.{1 + made // 8000 % 250}.{1 + made % 250}"
        with socket.socket() as sock, suppress(OSError):
            sock.settimeout(CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", port))
            if message:
                sock.sendall(message.encode())
            made += 1
    print(made, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
