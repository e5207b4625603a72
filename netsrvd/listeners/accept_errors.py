"""What the errors of accept(2) speak of."""

import errno

PEER_ERRORS = frozenset(
    {
        *(errno.ECONNABORTED, errno.EINTR, errno.EPERM, errno.EPROTO, errno.ENOPROTOOPT),
        *(errno.ENETDOWN, errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP),
        *(errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET, errno.ENOSR),
        *(errno.ESOCKTNOSUPPORT, errno.EPROTONOSUPPORT),
    }
)
"""Errors of the one connection that accept(2) took off the queue: the next one may be well."""

CAPACITY_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors that last until something is given back: the connection stays in the queue."""

DESCRIPTOR_ERRORS = frozenset({errno.EMFILE, errno.ENFILE})
