"""Finds the line of each key in the text of a TOML file, which tomllib does not tell.

The text has been read by tomllib before, so it is known to be valid TOML 1.0; what this scanner
does not understand all the same ends it, and the keys behind have no line.
"""

import re
import tomllib
from contextlib import suppress

DEEPEST = 4
"""Parts of a path that are looked for, as in `listener.NAME.options.OPTION`."""

Path = tuple[str, ...]

_SPACE = re.compile(r"[ \t]*+")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*+)*+")
_KEY = re.compile(r"""[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'""")
_STRING = re.compile(r""""(?:[^"\\\n]|\\.)*+"|'[^'\n]*+'""")
_ENDS = {
    # Up to two quotation marks may stand before the three that end a text of several lines.
    '"""': re.compile(r'\\[\s\S]|"{3,5}'),
    "'''": re.compile(r"'{3,5}"),
}
_BARE_VALUE = re.compile(r"[^,\]}#\n]++")
_OTHER = re.compile(r"""[^"'#\[\]{}]++""")


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, counted from 1, of each key and table of a valid TOML text by its path.

    A path that occurs several times (`[a.b]` and `[a.c]` for `a`) has the line of the first one.
    """
    scanner = _Scanner(text)
    with suppress(_UnknownError, ValueError):  # not valid TOML: what was found so far is right
        scanner.scan()
    return scanner.found


class _UnknownError(Exception):
    """The text is not what TOML has at this place."""


class _Scanner:
    """One pass over a text. `_at` is the index of the next character."""

    def __init__(self, text: str) -> None:
        self.found: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line, self._counted = 1, 0
        """The line of the character with the index `_counted`."""

    def scan(self) -> None:
        """Scan all statements: tables and keys with their values."""
        table: Path = ()
        while True:
            self._take(_BLANK)
            if self._at >= len(self._text):
                return
            if self._next() == "[":
                double = self._text.startswith("[[", self._at)
                self._at += 1 + double
                table = self._key(())
                self._expect("]]" if double else "]")
            else:
                self._assignment(table)

    def _assignment(self, table: Path) -> None:
        path = self._key(table)
        self._expect("=")
        self._take(_SPACE)
        self._value(path)

    def _key(self, table: Path) -> Path:
        """Take a dotted key, note its line, and return its path."""
        path = table
        while True:
            self._take(_SPACE)
            line = self._line_here()
            path = (*path, _plain(self._take(_KEY)))[: DEEPEST + 1]
            if len(path) <= DEEPEST:
                self.found.setdefault(path, line)
            self._take(_SPACE)
            if self._next() != ".":
                return path
            self._at += 1

    def _value(self, path: Path) -> None:
        first = self._next()
        if first in ('"', "'"):
            self._string()
        elif first == "{" and len(path) < DEEPEST:
            self._inline_table(path)
        elif first in ("[", "{"):
            self._skip_brackets()
        else:
            self._take(_BARE_VALUE)

    def _string(self) -> None:
        quotes = self._text[self._at : self._at + 3]
        if quotes not in _ENDS:
            self._take(_STRING)
            return
        for found in _ENDS[quotes].finditer(self._text, self._at + 3):
            if found[0][0] != "\\":  # an escape, which may be one of a quotation mark
                self._at = found.end()
                return
        raise _UnknownError

    def _inline_table(self, path: Path) -> None:
        """Take an inline table; one in another is a call in a call, at most `DEEPEST` of them."""
        self._expect("{")
        self._take(_BLANK)
        while self._next() != "}":
            self._assignment(path)
            self._take(_BLANK)
            if self._next() == ",":
                self._at += 1
                self._take(_BLANK)
        self._expect("}")

    def _skip_brackets(self) -> None:
        """Take an array or a table with all that it holds."""
        depth = 0
        while True:
            first = self._next()
            if first in ('"', "'"):
                self._string()
            elif first == "#":
                self._take(_BLANK)
            elif first in ("[", "{", "]", "}"):
                depth += 1 if first in ("[", "{") else -1
                self._at += 1
                if not depth:
                    return
            else:
                self._take(_OTHER)

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _expect(self, text: str) -> None:
        self._take(_SPACE)
        if not self._text.startswith(text, self._at):
            raise _UnknownError
        self._at += len(text)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise _UnknownError
        self._at = match.end()
        return match[0]

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line


def _plain(key: str) -> str:
    """Return a key without its quotation marks and escapes."""
    if key[0] == "'":
        return key[1:-1]
    return str(tomllib.loads(f"k = {key}")["k"]) if key[0] == '"' else key
