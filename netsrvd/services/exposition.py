"""The text of the metrics: Prometheus text format 0.0.4, and OpenMetrics 1.0.

It is made in pieces, so that no turn of an event loop writes more than `PIECE_SAMPLES` samples and
a family.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netsrvd.services.shown import Family

PIECE_SAMPLES = 250
"""Samples after which a piece ends, with the family that it is in: 250 take 0.3 ms. A family has a
sample or a few for each listener."""


LONGEST_ACCEPT = 1000
"""Characters of an Accept header that are read. Prometheus sends 300."""


class Format(NamedTuple):
    """One of the two text formats."""

    content_type: str
    is_open: bool
    """Whether it is OpenMetrics."""


PROMETHEUS = Format("text/plain; version=0.0.4; charset=utf-8", is_open=False)
OPENMETRICS = Format("application/openmetrics-text; version=1.0.0; charset=utf-8", is_open=True)


def pieces(families: Iterable[Family | None], shape: Format) -> Iterator[bytes]:
    """Yield the text of all families in pieces, an empty one for each None among the families."""
    lines: list[str] = []
    count = 0
    for family in families:
        if family is None:
            yield b""
            continue
        lines += _lines(family, shape)
        count += len(family.samples)
        if count >= PIECE_SAMPLES:
            yield _joined(lines)
            lines, count = [], 0
    if shape.is_open:
        lines.append("# EOF")
    if lines:
        yield _joined(lines)


def _joined(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _lines(family: Family, shape: Format) -> Iterator[str]:
    """Yield the lines of one family. A family without samples has none."""
    if not family.samples:
        return
    # OpenMetrics names a family without its ending, and alone knows `info`.
    endings = {"counter": "_total", "info": "_info"}
    name = family.name.removesuffix(endings.get(family.kind, "")) if shape.is_open else family.name
    kind = "gauge" if family.kind == "info" and not shape.is_open else family.kind
    yield f"# HELP {name} {_escaped(family.help, is_open=shape.is_open)}"
    yield f"# TYPE {name} {kind}"
    for labels, value in family.samples:
        inner = ",".join(f'{label}="{_escaped(text, is_open=True)}"' for label, text in labels)
        yield f"{family.name}{f'{{{inner}}}' if inner else ''} {_number(value)}"


def _escaped(text: str, *, is_open: bool) -> str:
    """Return a text as both formats write it. Quotes in a HELP line are escaped by one alone."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if is_open else text


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def accepted(accept: str) -> Format:
    """Return the format for the value of an Accept header (RFC 9110, 12.5.1).

    OpenMetrics only if the client names it, and does not prefer plain text.
    """
    weights = dict(_weights(accept))
    of_open = weights.get("application/openmetrics-text", 0.0)
    of_plain = weights.get("text/plain", 0.0)
    return OPENMETRICS if of_open and of_open >= of_plain else PROMETHEUS


def _weights(accept: str) -> Iterator[tuple[str, float]]:
    """Yield the media types of an Accept header, the least wanted first, each with its weight."""
    found = []
    for entry in accept[:LONGEST_ACCEPT].lower().split(","):
        media, *parameters = (each.strip() for each in entry.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        found.append((media, _weight(weight)))
    return iter(sorted(found, key=lambda each: each[1]))


def _weight(text: str) -> float:
    """Return a weight, which has up to three decimals; 0 for what is none."""
    whole, _, rest = text.partition(".")
    is_number = whole in ("0", "1") and len(rest) <= 3 and (not rest or rest.isdecimal())  # noqa: PLR2004
    return min(1.0, float(text)) if is_number and text.isascii() else 0.0
