"""A sender of STAMP by scapy, run by the distribution's Python: `scapy_sender.py HOST PORT PCAP`.

It sends one request, reads the reply, prints what both say as JSON, and leaves both in a file for
other dissectors. It imports nothing of ours.
"""

import json
import socket
import sys

from scapy.contrib.stamp import (
    ErrorEstimate,
    STAMPSessionReflectorTestUnauthenticated,
    STAMPSessionSenderTestUnauthenticated,
)
from scapy.layers.inet import IP, UDP
from scapy.packet import bind_layers
from scapy.utils import wrpcap

FROM_1900_TO_1970 = 2_208_988_800


def main(host: str, port: str, pcap: str) -> None:
    """Ask once."""
    bind_layers(UDP, STAMPSessionReflectorTestUnauthenticated, sport=int(port))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        sock.connect((host, int(port)))
        source, source_port = sock.getsockname()
        request = STAMPSessionSenderTestUnauthenticated(
            seq=4711,
            ts=FROM_1900_TO_1970 + 1_700_000_000.25,
            err_estimate=ErrorEstimate(S=1, scale=10, multiplier=1),
            ssid=99,
        )
        sock.send(bytes(request))
        data = sock.recv(65536)
    there = IP(src=source, dst=host) / UDP(sport=source_port, dport=int(port)) / request
    back = IP(src=host, dst=source) / UDP(sport=int(port), dport=source_port) / data
    reply = IP(bytes(back))[STAMPSessionReflectorTestUnauthenticated]
    wrpcap(pcap, [there, back])
    found = {
        "seq": reply.seq,
        "sent": float(reply.ts) - FROM_1900_TO_1970,
        "received": float(reply.ts_rx) - FROM_1900_TO_1970,
        "is_synchronised": reply.err_estimate.S,
        "multiplier": reply.err_estimate.multiplier,
        "ssid": reply.ssid,
        "sender_seq": reply.seq_sender,
        "sender_time": float(reply.ts_sender) - FROM_1900_TO_1970,
        "sender_scale": reply.err_estimate_sender.scale,
        "sender_ttl": reply.ttl_sender,
        "length": len(data),
    }
    print(json.dumps(found))


main(*sys.argv[1:])
