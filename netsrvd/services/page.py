"""The status page: HTML that is whole without a script, and the object by which it is refreshed.

Both are made in pieces from one `Overview`. Every text is escaped, and a Content-Security-Policy
lets nothing run and nothing be loaded but what stands in the page itself.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import islice
from os import urandom
from pathlib import Path
from typing import NamedTuple

from netsrvd.services.shown import Overview, Table

PIECE_ROWS = 100
"""Rows of a table that are written in one turn, in 0.3 ms."""

STYLE = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E"
    "%3Cpath d='M1 4h2l1-3 1 6 1-3h1' fill='none' stroke='%230a58ca'/%3E%3C/svg%3E"
)
"""A browser asks for /favicon.ico otherwise."""


POLICY = (
    "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def new_nonce() -> str:
    """Return a number that a page is sent with once: only what has it runs (CSP level 3, 2.3)."""
    return urandom(16).hex()


def headers(nonce: str) -> tuple[tuple[str, str], ...]:
    """Return the header fields of a page with this nonce."""
    return (
        ("Content-Security-Policy", POLICY.format(nonce=nonce)),
        ("Referrer-Policy", "no-referrer"),
        ("X-Frame-Options", "DENY"),
    )


class Chart(NamedTuple):
    """One line of the history, which the browser keeps."""

    key: str
    """The name in `Overview.series`."""
    title: str
    unit: str
    is_rate: bool
    """Whether the number is a count, of which the growth a second is drawn."""


CHARTS = (
    Chart("connections", "Connections", "", is_rate=False),
    Chart("accepted", "Accepted", "/s", is_rate=True),
    Chart("datagrams", "Datagrams", "/s", is_rate=True),
    Chart("received", "Received", "B/s", is_rate=True),
    Chart("sent", "Sent", "B/s", is_rate=True),
    Chart("refused", "Refused", "/s", is_rate=True),
)


def html(parts: Iterable[Overview | None], nonce: str) -> Iterator[bytes]:
    """Yield the page in pieces, an empty one for each None among the parts."""
    for overview in parts:
        if overview is None:
            yield b""
            continue
        yield _head(overview, nonce).encode()
        for table in overview.tables:
            yield _table_head(table).encode()
            for rows in _groups(table.rows):
                yield "".join(_row(table, row) for row in rows).encode()
            yield b"</tbody></table></div>\n"
        yield f'<script nonce="{nonce}">{SCRIPT}</script>\n</body>\n</html>\n'.encode()


HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="{icon}">
<style nonce="{nonce}">{style}</style>
</head>
<body>
<h1>{title}</h1>
<p id="state" role="status">As of {at}; reload the page for newer figures.</p>
<dl>
{facts}</dl>
<section id="charts" aria-label="History, since the page was opened" hidden>
{charts}</section>
"""

FACT = '<div><dt>{title}</dt><dd id="{key}"{mark}>{text}</dd></div>\n'

CHART = """\
<figure data-series="{key}" data-rate="{rate}" data-unit="{unit}">
<figcaption>{title} <output></output></figcaption>
<svg viewBox="0 0 180 40" preserveAspectRatio="none" aria-hidden="true"><polyline/></svg>
</figure>
"""

TABLE = """\
<h2>{title}</h2>
<div class="wide"><table id="{key}"><thead><tr>{heads}</tr></thead><tbody>
"""

BAD, NUMBER = ' class="bad"', ' class="number"'


def _head(overview: Overview, nonce: str) -> str:
    facts = [
        FACT.format(
            key=each.key,
            title=escape(each.title),
            mark=BAD if each.is_bad else "",
            text=escape(each.text),
        )
        for each in overview.facts
    ]
    charts = [
        CHART.format(**each._asdict(), rate="yes" if each.is_rate else "no") for each in CHARTS
    ]
    return HEAD.format(
        title=escape(overview.title),
        icon=ICON,
        style=STYLE,
        nonce=nonce,
        at=escape(overview.at_text),
        facts="".join(facts),
        charts="".join(charts),
    )


def _table_head(table: Table) -> str:
    heads = [
        f'<th scope="col"{_mark(table, place)}>{escape(title)}</th>'
        for place, title in enumerate(table.columns)
    ]
    return TABLE.format(title=escape(table.title), key=table.key, heads="".join(heads))


def _row(table: Table, row: Sequence[str]) -> str:
    cells = [f'<th scope="row"{_mark(table, 0)}>{escape(row[0])}</th>']
    cells += [
        f"<td{_mark(table, place)}>{escape(text)}</td>" for place, text in enumerate(row[1:], 1)
    ]
    return f"<tr>{''.join(cells)}</tr>\n"


def _mark(table: Table, place: int) -> str:
    return NUMBER if place >= table.texts else ""


def _groups(rows: Iterable[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    left = iter(rows)
    while found := list(islice(left, PIECE_ROWS)):
        yield found


def json_object(parts: Iterable[Overview | None]) -> Iterator[bytes]:
    """Yield the object in pieces, an empty one for each None among the parts."""
    for overview in parts:
        if overview is None:
            yield b""
            continue
        begin = {
            "at": overview.at,
            "start": overview.start,
            "facts": {each.key: (each.text, each.is_bad) for each in overview.facts},
            "series": overview.series,
        }
        yield f'{_json(begin)[:-1]}, "tables": {{'.encode()
        for number, table in enumerate(overview.tables):
            yield f'{", " if number else ""}"{table.key}": ['.encode()
            for place, rows in enumerate(_groups(table.rows)):
                yield f"{', ' if place else ''}{_json(rows)[1:-1]}".encode()
            yield b"]"
        yield b"}}\n"


def _json(value: object) -> str:
    return json.dumps(value)
