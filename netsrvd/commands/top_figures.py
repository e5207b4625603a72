"""The figures of `netsrvd top`: rates with their history, and the order of connections."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Any, NamedTuple

from netsrvd.escapes import BLOCKS

Reply = Mapping[str, Any]

HISTORY = 300
"""Samples that are kept of each figure: one a second, and a terminal shows a part of them."""

SHORTEST_SECONDS = 0.2
"""Answers that are closer together than this give no rate: it would be a matter of chance."""


def _refused(report: Reply) -> float:
    totals = report["totals"]
    return float(sum((*totals["refused"].values(), *totals["datagrams_refused"].values())))


def _total(name: str) -> Callable[[Reply], float]:
    def read(report: Reply) -> float:
        return float(report["totals"][name])

    return read


class Figure(NamedTuple):
    """What a line of the overview shows."""

    title: str
    read: Callable[[Reply], float]
    """Takes the value out of an answer to Status."""
    is_rate: bool = True
    """Whether its growth a second is shown, not itself."""
    is_bytes: bool = False


FIGURES = (
    Figure("connections", lambda report: report["connections"], is_rate=False),
    Figure("new connections/s", _total("accepted")),
    Figure("flows", lambda report: report["flows"], is_rate=False),
    Figure("datagrams in/s", _total("datagrams_received")),
    Figure("datagrams out/s", _total("datagrams_sent")),
    Figure("received/s", _total("bytes_received"), is_bytes=True),
    Figure("sent/s", _total("bytes_sent"), is_bytes=True),
    Figure("refused/s", _refused),
    Figure("records lost/s", lambda report: report["run"]["log_records_lost"]),
)


class History:
    """The last samples of each figure."""

    def __init__(self) -> None:
        self.samples: dict[str, deque[float]] = {
            each.title: deque(maxlen=HISTORY) for each in FIGURES
        }
        self._before: Reply | None = None

    def add(self, report: Reply) -> None:
        """Take an answer to Status. The first one of a process gives no rates."""
        before, is_same = self._before, False
        if before is not None:
            passed = report["seconds"] - before["seconds"]
            is_same = report["pid"] == before["pid"] and passed > 0
            if is_same and passed < SHORTEST_SECONDS:
                return
        self._before = report
        for figure in FIGURES:
            value = figure.read(report)
            if figure.is_rate:
                if before is None or not is_same:
                    continue
                # A figure never shrinks during a run.
                value = max(0.0, value - figure.read(before)) / passed
            self.samples[figure.title].append(value)


def bars(samples: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """Return the last samples as characters, one each: from 0 to the highest of them."""
    shown = list(samples)[-width:] if width > 0 else []
    most = max(shown, default=0.0)
    if not most:
        return blocks[0] * len(shown)
    # What is not 0 is never drawn as 0.
    return "".join(
        blocks[max(1, round(each / most * (len(blocks) - 1))) if each else 0] for each in shown
    )


class Order(NamedTuple):
    """An order of the connections."""

    key: str
    """The key of the keyboard."""
    title: str
    of: Callable[[Reply], Any]
    """What the first one has the least of."""


def _bytes(connection: Reply) -> int:
    return -int(connection["bytes_received"] + connection["bytes_sent"])


def _age(connection: Reply) -> float:
    return -float(connection["seconds"])


def _source(connection: Reply) -> tuple[int, bytes, int]:
    from ipaddress import ip_address  # noqa: PLC0415 - for this order alone

    try:
        address = ip_address(connection["peer_address"])
    except ValueError:  # what answers may be another program
        return 0, b"", connection["peer_port"]
    return address.version, address.packed, connection["peer_port"]


ORDERS = (
    Order("b", "bytes", _bytes),
    Order("a", "age", _age),
    Order("s", "source", _source),
)


def first(connections: Iterable[Reply], order: Order, count: int) -> tuple[list[Reply], int]:
    """Return the first connections of an order, and the number of all of them."""
    seen = 0

    def counted() -> Iterable[Reply]:
        nonlocal seen
        for each in connections:
            seen += 1
            yield each

    return nsmallest(count, counted(), key=order.of), seen
