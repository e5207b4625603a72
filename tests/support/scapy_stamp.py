"""A STAMP reflector (RFC 8762, stateful, unauthenticated) that scapy takes apart and puts together.

`scapy_stamp.py ADDRESS PORT AHEAD` says "ready" and answers until it is ended; its clock is AHEAD
seconds ahead. Only packets are scapy's: the socket is an ordinary one.
"""

import socket
import sys
from time import time

from scapy.contrib.stamp import (
    ErrorEstimate,
    STAMPSessionReflectorTestUnauthenticated,
    STAMPSessionSenderTestUnauthenticated,
)

NTP_EPOCH = 2_208_988_800
IP_RECVTTL = 12


def serve(address: str, port: int, ahead_seconds: float) -> None:
    """Answer each STAMP packet, with sequence numbers of this reflector's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        sock.setsockopt(socket.SOL_IP, IP_RECVTTL, 1)
        print("ready", flush=True)
        since_1900 = NTP_EPOCH + ahead_seconds
        counts: dict[tuple[str, int], int] = {}
        while True:
            data, control, _, sender = sock.recvmsg(2000, 100)
            received = since_1900 + time()
            [ttl] = [value[0] for _, kind, value in control if kind == socket.IP_TTL]
            asked = STAMPSessionSenderTestUnauthenticated(data)
            number = counts[sender] = counts.get(sender, -1) + 1
            answer = STAMPSessionReflectorTestUnauthenticated(
                seq=number,
                ts=since_1900 + time(),
                err_estimate=ErrorEstimate(S=0, Z=0, scale=0, multiplier=1),
                ssid=asked.ssid,
                ts_rx=received,
                seq_sender=asked.seq,
                err_estimate_sender=asked.err_estimate,
                ttl_sender=ttl,
            )
            answer.fields["ts_sender"] = asked.fields["ts"]  # as it came: 64 bits are no float
            sock.sendto(bytes(answer), sender)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
