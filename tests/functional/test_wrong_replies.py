"""Replies of other types than the interface says: what the commands that look make of them."""

import argparse
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from netsrvd.commands import daemons, metrics, status, thresholds, top
from netsrvd.commands.top_figures import ORDERS
from netsrvd.commands.top_screen import Frame, Screen
from netsrvd.errors import ControlError
from tests.functional.conftest import Start
from tests.support.clients import ended, talking
from tests.support.peers import connect
from tests.support.run import LOOPBACK, echo
from tests.support.varlink_client import calling

LOOKING = argparse.Namespace(control="it", json=False, openmetrics=True)
LOOKING.__dict__.update(what=None, listener=None, address=None, warn=[], crit=[])

FOREIGN = "it: what answers there is not this version of netsrvd"

RATES = ("accepted", "refused", "received_bytes", "sent_bytes", "log_records_lost")
RATES += ("datagrams_received", "datagrams_sent", "seconds")

Replies = dict[str, Any]
"""The parameters of a reply to each method."""


@pytest.fixture
def replies(start: Start, port: int, tmp_path: Path) -> Replies:
    """What a daemon with a client and a refused source answers."""
    configuration: dict[str, Any] = echo(port)
    closed = {"host": LOOPBACK, "port": port + 1, "allow": ["192.0.2.1"]}
    configuration["listener"] |= {"closed": closed}
    path = str(tmp_path / "control")
    start(configuration, "--control", path)
    with talking(port), connect(("127.0.0.1", port + 1)) as refused, calling(path) as caller:
        assert ended(refused)
        methods = ("Status", "TopSources", "RefusedSources")
        found = {name: caller.call(f"io.netsrvd.{name}")["parameters"] for name in methods}
        [found["Connections"]] = caller.all_of("io.netsrvd.Connections")
    found["Status"]["rates"] = [dict.fromkeys(RATES, 1.0)]  # a daemon has them after a minute
    return found


def show_status(_: Screen) -> None:
    status.run(LOOKING)


def show_connections(_: Screen) -> None:
    status.run(argparse.Namespace(**vars(LOOKING) | {"what": "connections"}))


def show_metrics(_: Screen) -> None:
    metrics.run(LOOKING)


def judge(_: Screen) -> None:
    if thresholds.run(argparse.Namespace(**vars(LOOKING) | {"warn": ["lag=1"]})) == 3:
        raise ControlError(FOREIGN)  # the line that it prints says why


def drawing(view: str) -> Callable[[Screen], None]:
    """Return what looks as `netsrvd top` does, and draws a view in each order."""

    def draw(terminal: Screen) -> None:
        for order in ORDERS if view == "connections" else ORDERS[:1]:
            watch = top.Watch("it")
            watch.order = order
            watch.look(view, 1)
            watch.close()
            if watch.error:
                raise watch.error
            shown = (watch.report, watch.problem, view, order, watch.history, watch.rows)
            terminal.draw(Frame("it", *shown, watch.total, has_others=False))

    return draw


LOOKS: dict[str, tuple[tuple[str, ...], Callable[[Screen], None]]] = {
    "status": (("Status", "TopSources", "RefusedSources"), show_status),
    "status connections": (("Connections",), show_connections),
    "status --warn": (("Status",), judge),
    "metrics": (("Status",), show_metrics),
    "top": (("Status",), drawing("overview")),
    "top, connections": (("Status", "Connections"), drawing("connections")),
    "top, refused": (("Status", "RefusedSources"), drawing("refused")),
    "top, sources": (("Status", "TopSources"), drawing("sources")),
}
"""Each command that looks: the calls that it makes, in their order, and the command."""


class Looker:
    """Runs the commands that look, in this process, where a daemon has these replies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._calls: tuple[str, ...] = ()
        self._replies: Replies = {}
        self._screen = Screen()
        self._screen.open()
        for module in (metrics, status, thresholds, top):
            monkeypatch.setattr(module, "asking", self._asking)

    @contextmanager
    def _asking(self, found: daemons.Found) -> Iterator[daemons.Conversation]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for name in self._calls:
                message = {"parameters": self._replies[name]}
                theirs.sendall(json.dumps(message).encode() + b"\0")
            yield daemons.Conversation(ours, found.name)

    def look(self, command: str, replies: Replies) -> None:
        """Run a command. Raises what it raises."""
        self._calls, run = LOOKS[command]
        self._replies = replies
        run(self._screen)

    def close(self) -> None:
        self._screen.close()


@pytest.fixture
def looker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looker]:
    """All commands that look."""
    made = Looker(monkeypatch)
    yield made
    made.close()


def places(value: Any, *path: Any) -> Iterator[tuple[Any, ...]]:
    """Yield where a reply has a value, as the names and numbers that lead there."""
    if path:
        yield path
    members = enumerate(value) if isinstance(value, list) else getattr(value, "items", list)()
    for name, each in members:
        yield from places(each, *path, name)


def changed(replies: Replies, path: tuple[Any, ...], value: object) -> Replies:
    """Return a copy with another value at a place."""
    copy: Any = deepcopy(replies)
    holder = copy
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    return copy  # type: ignore[no-any-return]


@pytest.mark.parametrize("command", LOOKS)
def test_a_wrong_type_anywhere_is_one_error(
    looker: Looker, replies: Replies, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command takes it: each says where no netsrvd of this version answers."""
    looker.look(command, replies)
    own = {name: replies[name] for name in LOOKS[command][0]}
    wrong = [path for path in places(own) if len(path) > 1]
    assert len(wrong) > 10
    for path in wrong:
        with pytest.raises(ControlError, match=f"^{FOREIGN}"):
            looker.look(command, changed(own, path, True))
    assert FOREIGN in capsys.readouterr().out or command != "status --warn"


CLEAR = "\x1b[2J"
UNUSUAL = (None, [], {}, f"\ud800{CLEAR}", -1, 1e15, 1e300, 2**70, float("nan"), float("inf"))


@pytest.mark.parametrize("command", LOOKS)
def test_no_value_breaks_a_command(
    looker: Looker, replies: Replies, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers that are too large, texts that command a terminal, and what is missing: a command
    shows it or says that this is no netsrvd; it never ends by a mistake of its own.
    """
    own = {name: replies[name] for name in LOOKS[command][0]}
    for path in places(own):
        for value in UNUSUAL:
            with suppress(ControlError):
                looker.look(command, changed(own, path, value))
    assert CLEAR not in capsys.readouterr().out
