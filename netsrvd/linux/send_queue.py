"""What a TCP peer has not taken yet of that which the kernel was given for it (tcp(7))."""

import fcntl
import sys
import termios


def unacknowledged_bytes(descriptor: int) -> int:
    """Return how many bytes of those that were sent the peer has not acknowledged (SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
