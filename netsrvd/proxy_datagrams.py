"""Datagrams that a proxy forwards: finds their client and removes the header."""

from collections.abc import Callable, Sequence

from netsrvd.counters import Counters
from netsrvd.linux.mmsg import Batch
from netsrvd.log.refusals import Peer
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
        self, batch: Batch, envelopes: Sequence[bytes], is_proxy: Callable[[str], bool]
    ) -> list[bytes]:
        """Take the headers off the datagrams of proxies; return a key for each datagram.

        Equal keys mean the same client by the same way. A key begins with the message header
        (`Batch.envelopes`); without a proxy it is only that.
        """
        self.clients.clear()
        self.errors.clear()
        keys = list(envelopes)
        for index, envelope in enumerate(envelopes):
            known = self._proxies.get(envelope)
            if known is None:
                if len(self._proxies) >= SENDERS_KEPT:
                    self._proxies.clear()
                known = self._proxies[envelope] = is_proxy(batch.peer(envelope)[0])
            if known:
                keys[index] += self._named(batch, index, envelope)
        return keys

    def _named(self, batch: Batch, index: int, envelope: bytes) -> bytes:
        """Take the header off one datagram; return the part of its key that names the client."""
        try:
            header = read_datagram(bytes(batch.payload(index)[:LONGEST]))
        except HeaderError as error:
            self._counters.proxy_long += error.reason == LONG
            self._counters.proxy_wrong += error.reason != LONG
            text = str(error).encode()
            self.errors[envelope + text] = error
            return text
        batch.strip(index, header.length)
        if header.client is None:
            return b""
        text = "{} {}".format(*header.client).encode()
        self.clients[envelope + text] = header.client
        return text
