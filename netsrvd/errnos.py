"""What the errors of calls on sockets speak of: a mistake of ours, one peer, or the host."""

import errno
import os

BUG_ERRNOS = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL})
"""Only a mistake of ours causes these, in any call on a socket. All others may pass, also those
that no manual page names: the kernel returns what a filter, a tunnel or `ss -K` has set.
"""

CONNECTION_ERRNOS = frozenset(
    {
        errno.ECONNABORTED,
        errno.EINTR,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ENOSR,
        errno.ESOCKTNOSUPPORT,
        errno.EPROTONOSUPPORT,
    }
)
"""accept(2) has taken a connection with such an error off the queue; the next one may be well."""

DESCRIPTOR_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE})

RESET_ERRNOS = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ESHUTDOWN, errno.ENOTCONN})
"""The client has broken the connection off."""

RECEIVED_ERRNOS = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPROTO,
        errno.EACCES,
        errno.EMSGSIZE,
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
    }
)
"""What ICMP said of an earlier answer (udp(7); icmp_err_convert in the kernel), or
what `ss -K` has set. recvmsg(2) takes it off the socket; the next call may be well.
"""


def format_errno(error: OSError) -> str:
    """Return the error's symbol and its meaning, such as `EMFILE: Too many open files`."""
    number = error.errno or 0
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
