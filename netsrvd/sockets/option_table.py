"""The rows of the table of socket options."""

import socket
from typing import Literal, NamedTuple

Kind = Literal[
    "flag", "number", "size", "linger", "timeval", "text", "address", "structure", "action"
]
"""How a value is written and read. A `structure` is only measured, an `action` is never read."""


class Level(NamedTuple):
    """Where an option lives, and the sockets that know it."""

    name: str
    number: int
    protocols: tuple[str, ...]
    families: tuple[int, ...]


_BOTH = (socket.AF_INET, socket.AF_INET6)

LEVELS = {
    "SO": Level("SOL_SOCKET", socket.SOL_SOCKET, ("tcp", "udp"), _BOTH),
    # On an IPv6 socket these hold for its IPv4-mapped traffic, if it is a dual-stack one.
    "IP": Level("IPPROTO_IP", socket.IPPROTO_IP, ("tcp", "udp"), _BOTH),
    "IPV6": Level("IPPROTO_IPV6", socket.IPPROTO_IPV6, ("tcp", "udp"), (socket.AF_INET6,)),
    "TCP": Level("IPPROTO_TCP", socket.IPPROTO_TCP, ("tcp",), _BOTH),
    "UDP": Level("IPPROTO_UDP", socket.IPPROTO_UDP, ("udp",), _BOTH),
    "UDPLITE": Level("IPPROTO_UDPLITE", socket.IPPROTO_UDPLITE, (), _BOTH),
}
"""The levels, by the first word of the names of their options."""

BYTE = range(256)
WORD = range(2**32)
INT = range(2**31)


class Option(NamedTuple):
    """One socket option of Linux."""

    name: str
    number: int
    kind: Kind
    meaning: str
    refused: str = ""
    """Why a configuration cannot set it; empty if it can."""
    values: range = INT
    """What a number or size may be. The kernel's own limits may be narrower."""
    reads: str = ""
    """The option that reads back what this one sets, where it is another."""
    factor: int = 1
    """What is read back for one that was set."""

    @property
    def level(self) -> Level:
        """The level that goes with the number."""
        return LEVELS[self.name.partition("_")[0]]


READ_ONLY = "is read-only"
FIXED = "is fixed on Linux"
ITSELF = "is set by the daemon itself: "
# A batch of datagrams has room for one control message each, and is sent back with it.
CONTROL = "cannot be set: the daemon reads no control messages but its own"
ERRORS = "cannot be set: one peer's error would come in the place of another's datagram"
STRUCTURE = "cannot be set: its value is a structure, not one word or number"
MULTICAST = "cannot be set: the daemon neither joins nor answers multicast groups"
REPAIR = "cannot be set: it is for moving live connections between hosts"
CLIENT = "cannot be set: it is for clients"
RAW = "cannot be set: it is for raw sockets"
UNIX = "cannot be set: it is for AF_UNIX sockets"
LITE = "cannot be set: it is for UDP-Lite sockets"
UNREAD = "cannot be set: the daemon does not collect what it provides"
ALONE = ITSELF + "IPv4 and IPv6 have a socket each"
ANSWER = ITSELF + "an answer leaves from the address that was asked"
INTERFACE = ITSELF + 'give the listener `interface = "eth0"`'
REUSE = (
    ITSELF + "always on for TCP, so that a restart can bind at once; "
    "never on for UDP, where it would let another user take the port"
)
NO_RECEIVE_WAIT = "cannot be set: the daemon's sockets never block; see `idle_timeout`"
NO_SEND_WAIT = "cannot be set: the daemon's sockets never block; see `write_timeout`"

# The meanings follow socket(7), ip(7), ipv6(7), tcp(7), udp(7) and the headers in <linux/>. Python
# has no name for some of these; the numbers are those of most architectures.
# fmt: off
ROWS = (
    # --- SOL_SOCKET: socket(7), <asm-generic/socket.h> ---
    Option("SO_DEBUG", 1, "flag", "Record debugging information (needs CAP_NET_ADMIN)"),
    Option("SO_REUSEADDR", 2, "flag", "Bind though old connections are in TIME_WAIT", REUSE),
    Option("SO_TYPE", 3, "number", "The type of the socket: 1 stream, 2 datagram", READ_ONLY),
    Option("SO_ERROR", 4, "number", "The pending error, which reading clears", READ_ONLY),
    Option("SO_DONTROUTE", 5, "flag", "Send to directly connected hosts only, by no gateway"),
    Option("SO_BROADCAST", 6, "flag", "Allow datagrams to a broadcast address"),
    Option("SO_SNDBUF", 7, "size", "Send buffer in bytes (doubled by the kernel)", factor=2),
    Option("SO_RCVBUF", 8, "size", "Receive buffer in bytes (doubled by the kernel)", factor=2),
    Option("SO_KEEPALIVE", 9, "flag", "Send keep-alive messages on silent connections"),
    Option("SO_OOBINLINE", 10, "flag", "Place out-of-band data in the stream"),
    Option("SO_PRIORITY", 12, "number", "Priority of sent packets in the queues of the host"),
    Option("SO_LINGER", 13, "linger", "Seconds that close waits for unsent data; 0 for a reset"),
    Option("SO_REUSEPORT", 15, "flag", "Share the address with sockets of the same user"),
    Option("SO_PASSCRED", 16, "flag", "Deliver the credentials of the sender", UNIX),
    Option("SO_PEERCRED", 17, "structure", "Process, user and group of the peer", READ_ONLY),
    Option("SO_RCVLOWAT", 18, "size", "Bytes that must have come before reading returns"),
    Option("SO_SNDLOWAT", 19, "size", "Bytes that must be free before writing returns", FIXED),
    Option("SO_RCVTIMEO", 20, "timeval", "Seconds until receiving gives up", NO_RECEIVE_WAIT),
    Option("SO_SNDTIMEO", 21, "timeval", "Seconds until sending gives up", NO_SEND_WAIT),
    Option("SO_BINDTODEVICE", 25, "text", "The only interface to be reached through", INTERFACE),
    Option("SO_TIMESTAMP", 29, "flag", "Deliver the time of arrival (microseconds)", CONTROL),
    Option("SO_ACCEPTCONN", 30, "flag", "Whether the socket listens", READ_ONLY),
    Option("SO_PEERSEC", 31, "text", "Security context of the peer", READ_ONLY),
    Option("SO_SNDBUFFORCE", 32, "size", "SO_SNDBUF beyond net.core.wmem_max (CAP_NET_ADMIN)",
           reads="SO_SNDBUF", factor=2),
    Option("SO_RCVBUFFORCE", 33, "size", "SO_RCVBUF beyond net.core.rmem_max (CAP_NET_ADMIN)",
           reads="SO_RCVBUF", factor=2),
    Option("SO_PASSSEC", 34, "flag", "Deliver the security context of the sender", UNIX),
    Option("SO_TIMESTAMPNS", 35, "flag", "Deliver the time of arrival (nanoseconds)", CONTROL),
    Option("SO_MARK", 36, "number", "Firewall mark of sent packets (CAP_NET_ADMIN)", values=WORD),
    Option("SO_TIMESTAMPING", 37, "structure", "Deliver times from the hardware", CONTROL),
    Option("SO_PROTOCOL", 38, "number", "The protocol: 6 TCP, 17 UDP", READ_ONLY),
    Option("SO_DOMAIN", 39, "number", "The address family: 2 IPv4, 10 IPv6", READ_ONLY),
    Option("SO_RXQ_OVFL", 40, "flag", "Deliver the count of dropped datagrams", CONTROL),
    Option("SO_BUSY_POLL", 46, "number", "Microseconds to poll the network device when idle"),
    Option("SO_MAX_PACING_RATE", 47, "size", "Bytes per second to send at most",
           values=range(1, 2**32 - 1)),
    Option("SO_INCOMING_CPU", 49, "number", "The CPU that packets come in on; -1 for any",
           values=range(-1, 2**31)),
    Option("SO_MEMINFO", 55, "structure", "Memory in use, queues and drops", READ_ONLY),
    Option("SO_INCOMING_NAPI_ID", 56, "number", "The device queue packets come from", READ_ONLY),
    Option("SO_COOKIE", 57, "number", "The kernel's unique number of the socket", READ_ONLY),
    Option("SO_ZEROCOPY", 60, "flag", "Allow sending without a copy (MSG_ZEROCOPY)", UNREAD),
    Option("SO_BINDTOIFINDEX", 62, "number", "SO_BINDTODEVICE by interface index", INTERFACE),
    Option("SO_PREFER_BUSY_POLL", 69, "flag", "Prefer busy polling to interrupts"),
    Option("SO_BUSY_POLL_BUDGET", 70, "number", "Packets to take in one busy poll",
           values=range(2**16)),
    Option("SO_RCVMARK", 75, "flag", "Deliver the firewall mark of a datagram", CONTROL),

    # --- IPPROTO_IP: ip(7), <linux/in.h> ---
    Option("IP_TOS", 1, "number", "Type of service of sent packets, with DSCP", values=BYTE),
    Option("IP_TTL", 2, "number", "Time to live of sent packets", values=range(1, 256)),
    Option("IP_HDRINCL", 3, "flag", "The sender supplies the IP header", RAW),
    Option("IP_OPTIONS", 4, "structure", "IP options of every sent packet", STRUCTURE),
    Option("IP_RECVOPTS", 6, "flag", "Deliver the IP options of a datagram", CONTROL),
    Option("IP_RECVRETOPTS", 7, "flag", "Deliver the IP options as they came", CONTROL),
    Option("IP_RETOPTS", 7, "flag", "The old name of IP_RECVRETOPTS", CONTROL),
    Option("IP_PKTINFO", 8, "flag", "Deliver destination and interface of a datagram", ANSWER),
    Option("IP_MTU_DISCOVER", 10, "number", "Path MTU discovery: 0 never, 1 as routed, 2 always",
           values=range(6)),
    Option("IP_RECVERR", 11, "flag", "Deliver errors by the error queue", ERRORS),
    Option("IP_RECVTTL", 12, "flag", "Deliver the time to live of a datagram", CONTROL),
    Option("IP_RECVTOS", 13, "flag", "Deliver the type of service of a datagram", CONTROL),
    Option("IP_MTU", 14, "number", "The known path MTU of a connected socket", READ_ONLY),
    Option("IP_FREEBIND", 15, "flag", "Bind to an address that the host may get later"),
    Option("IP_TRANSPARENT", 19, "flag", "Transparent proxying (needs CAP_NET_ADMIN)"),
    Option("IP_RECVORIGDSTADDR", 20, "flag", "Deliver the original destination", CONTROL),
    Option("IP_MINTTL", 21, "number", "Drop segments of a lower time to live", values=BYTE),
    Option("IP_BIND_ADDRESS_NO_PORT", 24, "flag", "Choose port 0's port when connecting"),
    Option("IP_MULTICAST_IF", 32, "address", "Address that multicast leaves from", MULTICAST),
    Option("IP_MULTICAST_TTL", 33, "number", "Time to live of sent multicast", MULTICAST),
    Option("IP_MULTICAST_LOOP", 34, "flag", "Hear sent multicast on this host", MULTICAST),
    Option("IP_ADD_MEMBERSHIP", 35, "action", "Join a group", MULTICAST),
    Option("IP_DROP_MEMBERSHIP", 36, "action", "Leave a group", MULTICAST),
    Option("IP_UNBLOCK_SOURCE", 37, "action", "Hear a blocked source again", MULTICAST),
    Option("IP_BLOCK_SOURCE", 38, "action", "Block a source within a group", MULTICAST),
    Option("IP_ADD_SOURCE_MEMBERSHIP", 39, "action", "Join a group for a source", MULTICAST),
    Option("IP_DROP_SOURCE_MEMBERSHIP", 40, "action", "Leave a group for a source", MULTICAST),
    Option("IP_MULTICAST_ALL", 49, "flag", "Receive from groups that others on the host joined"),

    # --- IPPROTO_IPV6: ipv6(7), RFC 3542, <linux/in6.h> ---
    Option("IPV6_CHECKSUM", 7, "number", "Where the kernel puts a checksum", RAW),
    Option("IPV6_NEXTHOP", 9, "action", "Address of the next hop", STRUCTURE),
    Option("IPV6_UNICAST_HOPS", 16, "number", "Hop limit of sent packets", values=range(1, 256)),
    Option("IPV6_MULTICAST_IF", 17, "number", "Interface multicast leaves by", MULTICAST),
    Option("IPV6_MULTICAST_HOPS", 18, "number", "Hop limit of sent multicast", MULTICAST),
    Option("IPV6_MULTICAST_LOOP", 19, "flag", "Hear sent multicast on this host", MULTICAST),
    Option("IPV6_JOIN_GROUP", 20, "action", "Join a group", MULTICAST),
    Option("IPV6_LEAVE_GROUP", 21, "action", "Leave a group", MULTICAST),
    Option("IPV6_MTU_DISCOVER", 23, "number", "Path MTU discovery: see IP_MTU_DISCOVER",
           values=range(6)),
    Option("IPV6_MTU", 24, "number", "Largest packet that is sent", values=range(1280, 65536)),
    Option("IPV6_RECVERR", 25, "flag", "Deliver errors by the error queue", ERRORS),
    Option("IPV6_V6ONLY", 26, "flag", "IPv6 only; if not, IPv4 clients come mapped", ALONE),
    Option("IPV6_MULTICAST_ALL", 29, "flag", "Receive from groups that others on the host joined"),
    Option("IPV6_HDRINCL", 36, "flag", "The sender supplies the IPv6 header", RAW),
    Option("IPV6_RECVPKTINFO", 49, "flag", "Deliver destination and interface", ANSWER),
    Option("IPV6_PKTINFO", 50, "structure", "Source and interface of sent packets", ANSWER),
    Option("IPV6_RECVHOPLIMIT", 51, "flag", "Deliver the hop limit of a datagram", CONTROL),
    Option("IPV6_HOPLIMIT", 52, "action", "Hop limit of one datagram", CONTROL),
    Option("IPV6_RECVHOPOPTS", 53, "flag", "Deliver the hop-by-hop options", CONTROL),
    Option("IPV6_HOPOPTS", 54, "structure", "Hop-by-hop options of sent packets", STRUCTURE),
    Option("IPV6_RTHDRDSTOPTS", 55, "structure", "Options before the routing header", STRUCTURE),
    Option("IPV6_RECVRTHDR", 56, "flag", "Deliver the routing header", CONTROL),
    Option("IPV6_RTHDR", 57, "structure", "Routing header of sent packets", STRUCTURE),
    Option("IPV6_RECVDSTOPTS", 58, "flag", "Deliver the destination options", CONTROL),
    Option("IPV6_DSTOPTS", 59, "structure", "Destination options of sent packets", STRUCTURE),
    Option("IPV6_RECVPATHMTU", 60, "flag", "Deliver changes of the path MTU", CONTROL),
    Option("IPV6_PATHMTU", 61, "structure", "Path MTU of a connected socket", READ_ONLY),
    Option("IPV6_DONTFRAG", 62, "flag", "Refuse to send datagrams that need fragments"),
    Option("IPV6_RECVTCLASS", 66, "flag", "Deliver the traffic class of a datagram", CONTROL),
    Option("IPV6_TCLASS", 67, "number", "Traffic class of sent packets, with DSCP", values=BYTE),
    Option("IPV6_MINHOPCOUNT", 73, "number", "Drop segments of a lower hop limit", values=BYTE),
    Option("IPV6_TRANSPARENT", 75, "flag", "Transparent proxying (needs CAP_NET_ADMIN)"),
    Option("IPV6_FREEBIND", 78, "flag", "Bind to an address that the host may get later"),

    # --- IPPROTO_TCP: tcp(7), <linux/tcp.h> ---
    Option("TCP_NODELAY", 1, "flag", "Send at once, without Nagle's wait"),
    Option("TCP_MAXSEG", 2, "number", "Largest segment to send and to announce",
           values=range(88, 32768)),
    Option("TCP_CORK", 3, "flag", "Send full segments only, others after 200 ms"),
    Option("TCP_KEEPIDLE", 4, "number", "Seconds of silence before keep-alive messages",
           values=range(1, 32768)),
    Option("TCP_KEEPINTVL", 5, "number", "Seconds between keep-alive messages",
           values=range(1, 32768)),
    Option("TCP_KEEPCNT", 6, "number", "Unanswered keep-alive messages that end a connection",
           values=range(1, 128)),
    Option("TCP_SYNCNT", 7, "number", "Repetitions of an unanswered SYN or SYN-ACK",
           values=range(1, 128)),
    Option("TCP_LINGER2", 8, "number", "Seconds in FIN_WAIT2 after close; -1 for none",
           values=range(-1, 121)),
    Option("TCP_DEFER_ACCEPT", 9, "number", "Seconds to wait for data before accepting"),
    Option("TCP_WINDOW_CLAMP", 10, "size", "Largest window to announce, in bytes"),
    Option("TCP_INFO", 11, "structure", "State and statistics of the connection", READ_ONLY),
    Option("TCP_QUICKACK", 12, "flag", "Acknowledge at once, for a while"),
    Option("TCP_CONGESTION", 13, "text", "Congestion control algorithm, such as cubic or bbr"),
    Option("TCP_MD5SIG", 14, "action", "Key of RFC 2385 signatures", STRUCTURE),
    Option("TCP_THIN_LINEAR_TIMEOUTS", 16, "flag", "Retry steadily on streams of few packets"),
    Option("TCP_THIN_DUPACK", 17, "flag", "Without effect since Linux 4.11"),
    Option("TCP_USER_TIMEOUT", 18, "number", "Milliseconds until unacknowledged data ends it"),
    Option("TCP_REPAIR", 19, "number", "Repair mode", REPAIR),
    Option("TCP_REPAIR_QUEUE", 20, "number", "The queue under repair", REPAIR),
    Option("TCP_QUEUE_SEQ", 21, "number", "Sequence number of that queue", REPAIR, WORD),
    Option("TCP_REPAIR_OPTIONS", 22, "action", "Negotiated options", REPAIR),
    Option("TCP_FASTOPEN", 23, "number", "Fast Open: requests that may wait (RFC 7413)"),
    Option("TCP_TIMESTAMP", 24, "number", "The clock of the timestamps", REPAIR, WORD),
    Option("TCP_NOTSENT_LOWAT", 25, "size", "Unsent bytes below which writing goes on",
           values=range(2**32 - 1)),
    Option("TCP_CC_INFO", 26, "structure", "State of the congestion control", READ_ONLY),
    Option("TCP_SAVE_SYN", 27, "number", "Keep the SYN packets of new connections", UNREAD),
    Option("TCP_SAVED_SYN", 28, "structure", "The SYN packet that was kept", READ_ONLY),
    Option("TCP_REPAIR_WINDOW", 29, "structure", "Window parameters", REPAIR),
    Option("TCP_FASTOPEN_CONNECT", 30, "flag", "Connect with Fast Open", CLIENT),
    Option("TCP_ULP", 31, "text", "Protocol in the kernel on top of TCP, such as tls", UNREAD),
    Option("TCP_MD5SIG_EXT", 32, "action", "Key of RFC 2385 for a whole network", STRUCTURE),
    Option("TCP_FASTOPEN_KEY", 33, "structure", "Key of the Fast Open cookies", STRUCTURE),
    Option("TCP_FASTOPEN_NO_COOKIE", 34, "flag", "Fast Open without cookies"),
    # Its getsockopt(2) reads the buffer before it fills it: an address to map the data to.
    Option("TCP_ZEROCOPY_RECEIVE", 35, "action", "Receive by mapping memory", UNREAD),
    Option("TCP_INQ", 36, "flag", "Deliver the count of bytes that wait", CONTROL),
    Option("TCP_TX_DELAY", 37, "number", "Microseconds to hold packets back, for tests"),

    # --- IPPROTO_UDP: udp(7), <linux/udp.h> ---
    Option("UDP_CORK", 1, "flag", "Join what is sent into one datagram until switched off",
           "cannot be set: no answer would ever leave"),
    Option("UDP_SEGMENT", 103, "number", "Cut what is sent into datagrams of this length",
           "cannot be set: a datagram would not come back whole"),
    Option("UDP_GRO", 104, "flag", "Receive datagrams of one peer joined into one",
           "cannot be set: datagrams would come back joined"),
    Option("UDPLITE_SEND_CSCOV", 10, "number", "Bytes that a sent checksum covers", LITE),
    Option("UDPLITE_RECV_CSCOV", 11, "number", "Bytes that a checksum must cover", LITE),
)
# fmt: on

NOT_OPTIONS = {
    "IP_DEFAULT_MULTICAST_LOOP": "a default value, of IP_MULTICAST_LOOP",
    "IP_DEFAULT_MULTICAST_TTL": "a default value, of IP_MULTICAST_TTL",
    "IP_MAX_MEMBERSHIPS": "a limit, on IP_ADD_MEMBERSHIP",
    "IPV6_RTHDR_TYPE_0": "a type of routing header, for IPV6_RTHDR",
    "SO_J1939_ERRQUEUE": "an option of CAN sockets",
    "SO_J1939_FILTER": "an option of CAN sockets",
    "SO_J1939_PROMISC": "an option of CAN sockets",
    "SO_J1939_SEND_PRIO": "an option of CAN sockets",
    "SO_VM_SOCKETS_BUFFER_MAX_SIZE": "an option of AF_VSOCK sockets",
    "SO_VM_SOCKETS_BUFFER_MIN_SIZE": "an option of AF_VSOCK sockets",
    "SO_VM_SOCKETS_BUFFER_SIZE": "an option of AF_VSOCK sockets",
}
"""Names in Python's `socket` that look like an option of an internet socket, and what they are."""
