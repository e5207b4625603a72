"""Escapes text from outside for a terminal or a log, and says what a terminal can show."""

import sys

DUMB = ("dumb", "unknown")
"""The values of TERM with which rich draws nothing."""

BLOCKS = "▁▂▃▄▅▆▇█"
"""Block characters, from the lowest to the highest."""


def encodable(text: str, instead: str) -> str:
    """Return `text` if the encoding of standard output has its characters, otherwise `instead`."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return instead
    return text


def blocks() -> str:
    """Return `BLOCKS`, or eight ASCII characters where standard output cannot encode them."""
    return encodable(BLOCKS, "_.-=+*%#")


def escaped(text: str) -> str:
    r"""Return `text` with everything that is not printable as its escape, such as `\x1b` or `\n`.

    Control characters would command a terminal, a line break would forge a line, lone surrogates
    (file names that are not UTF-8) cannot be encoded, and characters that turn the direction of
    writing deceive the eye.
    """
    if text.isprintable():
        return text
    # ascii() needs no codec: a first use of one opens its file, and descriptors may be short.
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
