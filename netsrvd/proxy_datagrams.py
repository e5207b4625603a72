"""Datagrams that a proxy forwards: finds their client and removes the header."""

from collections.abc import Callable, Sequence

from netsrvd.contracts import Peer
from netsrvd.counters import Counters
from netsrvd.linux.mmsg import Batch
from netsrvd.proxy_protocol import LONG, LONGEST, HeaderError, read_datagram

SENDERS_KEPT = 4096
"""Senders of which is remembered whether they are proxies."""


class ProxyDatagrams:
    """The proxies of one socket. Owned by the udp event loop."""

    __slots__ = ("_counters", "_proxies", "clients", "errors")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._proxies: dict[bytes, bool] = {}
        self.clients: dict[bytes, Peer] = {}
        """The clients that the headers of the last batch named, by the keys that `unwrap` gave."""
        self.errors: dict[bytes, HeaderError] = {}
        """The errors of invalid headers, by the same keys."""

    def forget(self) -> None:
        """Look up again which senders are proxies."""
        self._proxies.clear()

    def unwrap(
        self, batch: Batch, headers: Sequence[bytes], is_proxy: Callable[[str], bool]
    ) -> list[bytes]:
        """Take the PROXY headers off the datagrams of proxies; return a key for each datagram.

        Equal keys mean the same client by the same way. A key begins with the message header
        (`Batch.headers`); without a proxy it is only that.
        """
        self.clients.clear()
        self.errors.clear()
        keys = list(headers)
        for index, header in enumerate(headers):
            known = self._proxies.get(header)
            if known is None:
                if len(self._proxies) >= SENDERS_KEPT:
                    self._proxies.clear()
                known = self._proxies[header] = is_proxy(batch.peer(header)[0])
            if known:
                keys[index] += self._named(batch, index, header)
        return keys

    def _named(self, batch: Batch, index: int, header: bytes) -> bytes:
        """Take the PROXY header off one datagram; return what its key has of the client."""
        try:
            found = read_datagram(bytes(batch.payload(index)[:LONGEST]))
        except HeaderError as error:
            self._counters.proxy_long += error.reason == LONG
            self._counters.proxy_wrong += error.reason != LONG
            text = str(error).encode()
            self.errors[header + text] = error
            return text
        batch.trim_front(index, found.length)
        if found.client is None:
            return b""
        text = "{} {}".format(*found.client).encode()
        self.clients[header + text] = found.client
        return text
