"""What the errors of accept(2), and of other calls on sockets, speak of."""

import errno

OWN_ERRORS = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EFAULT, errno.EINVAL})
"""Errors of any call on a socket that only a bug of ours can cause. All others may pass, also those
that no manual page names: the kernel returns what a filter, a tunnel or `ss -K` has set.
"""

PEER_ERRORS = frozenset(
    {
        *(errno.ECONNABORTED, errno.EINTR, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT),
        *(errno.ENETDOWN, errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP),
        *(errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOSR),
        *(errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT),
    }
)
"""Errors of the one connection that accept(2) took off the queue: the next one may be well."""

DESCRIPTOR_ERRORS = frozenset({errno.EMFILE, errno.ENFILE})
