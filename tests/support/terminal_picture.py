"""A picture of what is on a terminal, as SVG: text, in the colours that the program gave it."""

import html
import re
from collections.abc import Iterator, Sequence

LETTER, LINE, MARGIN = 8.4, 18, 14
"""Pixels: the width of a letter at 14 px, the height of a line, and the space around the text."""

COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "36": "#79c0ff"}
PLAIN = "#e6edf3"
ESCAPE = re.compile(r"\x1b\[([\d;]*)m")
FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
 width="{width}" height="{height}" role="img">
<title>{title}</title>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" fill="{plain}">
{body}
</g>
</svg>
"""
ROW = """\
<text x="{left}" y="{base}" xml:space="preserve" textLength="{length}">{spans}</text>"""


def drawn(lines: Sequence[str], title: str) -> str:
    """Return lines with ANSI escape sequences of colours as a picture with a title."""
    columns = max(len(ESCAPE.sub("", line)) for line in lines)
    rows = (_row(number, line) for number, line in enumerate(lines) if line.strip())
    return FRAME.format(
        width=round(2 * MARGIN + columns * LETTER),
        height=2 * MARGIN + len(lines) * LINE,
        title=html.escape(title),
        plain=PLAIN,
        body="\n".join(rows),
    )


def _row(number: int, line: str) -> str:
    line = line.rstrip()
    return ROW.format(
        left=MARGIN,
        base=MARGIN + number * LINE + 14,
        length=round(len(ESCAPE.sub("", line)) * LETTER, 1),
        spans="".join(_spans(line)),
    )


def _spans(line: str) -> Iterator[str]:
    """Yield the parts of a line that have one colour each."""
    colour, first = "", 0
    for found in [*ESCAPE.finditer(line), None]:
        text = html.escape(line[first : found.start() if found else None], quote=False)
        if text:
            yield f'<tspan fill="{COLOURS[colour]}">{text}</tspan>' if colour in COLOURS else text
        if found:
            colour, first = found[1], found.end()


def text_of(picture: str) -> list[str]:
    """Return the lines of a picture, without those that are empty."""
    rows = re.findall(r"<text [^>]*>(.*)</text>", picture)
    return [html.unescape(re.sub(r"<[^>]*>", "", row)) for row in rows]
