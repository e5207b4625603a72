"""Asks a reflector, with nothing but Python's library: `stamp_client.py HOST PORT HEX...`.

It sends each packet, and prints a line of JSON for each reply: its bytes, the TTL with which it
came, and the times between which it was under way.
"""

import json
import socket
import sys
import time

IP_RECVTTL = 12


def main(host: str, port: str, *requests: str) -> None:
    """Ask with each packet in its turn."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        for request in requests:
            sent_ns = time.time_ns()
            sock.sendto(bytes.fromhex(request), (host, int(port)))
            data, [(_, _, ttl)], _, _ = sock.recvmsg(65536, 100)
            here_ns = time.time_ns()
            found = {"data": data.hex(), "ttl": int.from_bytes(ttl, sys.byteorder)}
            print(json.dumps({**found, "sent_ns": sent_ns, "here_ns": here_ns}))


main(*sys.argv[1:])
