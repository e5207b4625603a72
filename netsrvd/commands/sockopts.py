"""`netsrvd sockopts`: lists the socket options of this machine, or those that a listener sets."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from netsrvd.addresses import shown
from netsrvd.settings import Endpoint, ListenerSettings, OptionValue, Settings
from netsrvd.sockets import bind, options

if TYPE_CHECKING:
    from socket import socket

OPTION_HEADINGS = ("NAME", "LEVEL", " NO", "TCP", "UDP", "MEANING")
LISTENER_HEADINGS = ("SOCKET", "OPTION", "ASKED", "GIVEN", "NOTE")

Listing = tuple[list[dict[str, object]], list[tuple[str, ...]]]
"""What is written as JSON, and the same as rows of cells for people, headings first."""

BY_ITSELF = "by the daemon itself"
DOUBLED = "the kernel doubles it"
NOT_AS_ASKED = "not as asked"


@dataclass(frozen=True, slots=True)
class Trial:
    """What one option became on a socket that was made as `endpoint` would be, but not bound."""

    endpoint: Endpoint
    option: str
    asked: OptionValue | None
    given: OptionValue | None
    note: str


def run(arguments: argparse.Namespace) -> int:
    """Print the list that `arguments` ask for: `listener` (a name or None), `config`, `json`.

    Raises UsageError for a listener that is not configured, ConfigError for a faulty configuration.
    """
    if arguments.listener is None:
        objects, rows = _all_options()
    else:
        objects, rows = _of_listener(_settings(arguments.config), arguments.listener)
    if arguments.json:
        print(json.dumps(objects, indent=2))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n".join(aligned(rows, columns)))
    return os.EX_OK


def aligned(rows: list[tuple[str, ...]], columns: int | None) -> list[str]:
    """Return the rows in aligned columns, the first row being the headings.

    Where that is wider than `columns` the last cell stands on a line of its own.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    narrow = columns is not None and sum(widths) + 2 * (len(widths) - 1) > columns
    lines = []
    for *cells, last in rows:
        start = "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=False))
        if not narrow:
            lines.append(f"{start}  {last}".rstrip())
        else:
            lines += [start.rstrip(), f"    {last}"] if last else [start.rstrip()]
    return lines


# --- every option, on fresh sockets -----------------------------------------------------------


def _all_options() -> Listing:
    objects: list[dict[str, object]] = []
    rows: list[tuple[str, ...]] = [OPTION_HEADINGS]
    for option, tcp, udp in options.defaults():
        objects.append(
            {
                "name": option.name,
                "level": option.level.name,
                "number": option.number,
                "kind": option.kind,
                "refused": option.refused or None,
                "tcp": tcp,
                "udp": udp,
                "meaning": option.meaning,
            }
        )
        values = (options.text(tcp), options.text(udp))
        rows.append((option.name, option.level.name, f"{option.number:3}", *values, option.meaning))
    return objects, rows


# --- what a listener sets ---------------------------------------------------------------------


def _settings(config: Path | None) -> Settings:
    from netsrvd import startup  # noqa: PLC0415 - the list of all options does not need it

    return startup.read_configuration(config).settings


def _of_listener(settings: Settings, name: str) -> Listing:
    objects: list[dict[str, object]] = []
    rows: list[tuple[str, ...]] = [LISTENER_HEADINGS]
    for trial in trials(settings.listener(name)):
        where = trial.endpoint
        objects.append(
            {
                "listener": where.listener,
                "protocol": where.protocol,
                "host": where.host,
                "port": where.port,
                "option": trial.option,
                "asked": trial.asked,
                "given": trial.given,
                "note": trial.note or None,
            }
        )
        values = (options.text(trial.asked), options.text(trial.given))
        address = f"{where.protocol} {shown(where.host, where.port)}"
        rows.append((address, trial.option, *values, trial.note))
    return objects, rows


def trials(listener: ListenerSettings) -> Iterator[Trial]:
    """Yield what becomes of every option on each of the listener's sockets, none of them bound."""
    for endpoint in listener.endpoints():
        try:
            sock = bind.make(endpoint)
        except OSError as error:
            yield Trial(endpoint, "-", None, None, f"no such socket: {error.strerror}")
            continue
        with sock:
            yield from _by_itself(sock, endpoint, listener)
            for name, value in listener.options.items():
                if options.applies(options.OPTIONS[name], endpoint.protocol, sock.family):
                    yield _configured(sock, endpoint, name, value)


def _by_itself(sock: "socket", endpoint: Endpoint, listener: ListenerSettings) -> Iterator[Trial]:
    """Yield the options that the daemon sets by itself."""
    fault = NOT_AS_ASKED
    try:
        bind.set_options(sock, endpoint.protocol, listener._replace(options={}))
    except OSError as error:
        fault = os.strerror(error.errno or 0)
    version_6 = ":" in endpoint.host
    asked: dict[str, OptionValue] = {"SO_REUSEADDR": endpoint.protocol == "tcp"}
    if version_6:
        asked["IPV6_V6ONLY"] = True
    if endpoint.interface:
        asked["SO_BINDTODEVICE"] = endpoint.interface
    if endpoint.protocol == "udp":
        asked["IPV6_RECVPKTINFO" if version_6 else "IP_PKTINFO"] = True
    for name, value in asked.items():
        given = options.current(sock, options.OPTIONS[name])
        yield Trial(endpoint, name, value, given, BY_ITSELF if given == value else fault)


def _configured(sock: "socket", endpoint: Endpoint, name: str, value: OptionValue) -> Trial:
    option = options.OPTIONS[name]
    try:
        adjusted = options.apply(sock, name, value)
    except OSError as error:
        note = os.strerror(error.errno or 0)
        return Trial(endpoint, name, value, options.current(sock, option), note)
    doubled = DOUBLED if option.factor > 1 else ""
    note = doubled if adjusted is None else ", ".join(filter(None, (NOT_AS_ASKED, doubled)))
    return Trial(endpoint, name, value, options.current(sock, option), note)
