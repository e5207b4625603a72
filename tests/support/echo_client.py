"""A client that runs by itself inside a machine: `echo_client.py MODE [PORT]`.

`tcp` and `udp` send standard input and print what comes back. `hold` says one word, prints the
answer, and stays until the server ends the connection.
"""

import socket
import sys

HOST = "127.0.0.1"
PATIENCE_SECONDS = 60


def tcp(port: int, data: bytes) -> bytes:
    """Send `data`, shut down our side, and return all that comes back until the server closes."""
    with socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def udp(port: int, data: bytes) -> bytes:
    """Send one datagram and return the one that comes back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect((HOST, port))
        sock.send(data)
        return sock.recv(65536)


def hold(port: int) -> str:
    """Say one word, print the answer, and wait for the end; return how it came."""
    with socket.create_connection((HOST, port), timeout=PATIENCE_SECONDS) as sock:
        sock.sendall(b"held")
        print(sock.recv(4).decode(), flush=True)
        return "closed" if sock.recv(1) == b"" else "more"


if __name__ == "__main__":
    PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 51423
    if sys.argv[1] == "hold":
        print(hold(PORT))
    else:
        talk = {"tcp": tcp, "udp": udp}[sys.argv[1]]
        sys.stdout.buffer.write(talk(PORT, sys.stdin.buffer.read()))
