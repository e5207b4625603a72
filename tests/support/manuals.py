"""The manual pages, as far as tests compare them with the program: mdoc(7), read line by line."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging/man"

DELIMITERS = {"|", ",", ".", ";", ":", "(", ")", "...", "?"}
CALLABLE = {"Ar", "Cm", "Fl", "Ns", "Op", "Oo", "Oc", "Xr", "Li", "Pa", "Ev", "Dv", "No", "Pq"}
"""Macros that may stand within a line."""


class Option(NamedTuple):
    """An option as an entry of a list or the synopsis has it."""

    flags: tuple[str, ...]
    takes_value: bool


class Page(NamedTuple):
    """A manual page."""

    name: str
    section: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}({self.section})"

    def sections(self) -> dict[str, str]:
        """Return the text of each section by its heading."""
        _, *parts = re.split(r"^\.Sh (.*)\n", self.text, flags=re.MULTILINE)
        return dict(zip(parts[::2], parts[1::2], strict=True))

    def lines(self, macro: str, heading: str = "") -> Iterator[list[str]]:
        """Yield the words behind a macro at the beginning of a line."""
        text = self.sections()[heading] if heading else self.text
        for line in text.splitlines():
            if line.startswith(f".{macro} "):
                yield words(line)[1:]

    def options(self) -> Iterator[Option]:
        """Yield the option of each entry of a list; one entry may have several."""
        for entry in self.lines("It"):
            if entry[0] == "Fl":
                yield from options(entry)

    def synopsis(self) -> list[Option]:
        """Return the options of the synopsis, each time that it names one."""
        return [
            each
            for line in self.sections()["SYNOPSIS"].splitlines()
            for each in options(words(line))
        ]

    def synopsis_words(self) -> set[str]:
        """Return the arguments and subcommands of the synopsis."""
        lines = [words(line) for line in self.sections()["SYNOPSIS"].splitlines()]
        return {word for line in lines for macro, word in pairwise(line) if macro in {"Ar", "Cm"}}

    def literals(self, heading: str) -> set[str]:
        """Return the words that a section has as literal."""
        found = set()
        for line in map(words, self.sections()[heading].splitlines()):
            is_literal = False
            for word in line:
                is_literal = word == "Li" or (is_literal and word not in CALLABLE)
                if is_literal and word != "Li" and word not in DELIMITERS:
                    found.add(word)
        return found

    def statuses(self) -> set[int]:
        """Return the exit statuses that it lists."""
        entries = self.lines("It", "EXIT STATUS")
        return {int(word) for entry in entries for word in entry if word.isdecimal()}

    def examples(self) -> list[str]:
        """Return the command lines of its examples."""
        return [" ".join(line) for line in self.lines("Dl", "EXAMPLES")]

    def displays(self) -> list[str]:
        """Return the files, or parts of them, among its examples."""
        text = self.sections()["EXAMPLES"]
        return re.findall(r"^\.Bd -literal[^\n]*\n(.*?)^\.Ed$", text, re.MULTILINE | re.DOTALL)

    def references(self) -> set[tuple[str, str]]:
        """Return the name and section of each page that it refers to."""
        return {*re.findall(r"(?:^\.|\s)Xr (\S+) (\d)", self.text, re.MULTILINE)}

    def defaults(self, heading: str) -> Iterator[tuple[str, str]]:
        """Yield each setting of an entry `KEY = VALUE`, and its value, as TOML has it."""
        for line in self.sections()[heading].splitlines():
            if line.startswith(".It Li ") and " = " in line:
                for entry in re.split(r" , (?=\w+ = )", plain(line.removeprefix(".It Li "))):
                    key, _, value = entry.partition(" = ")
                    yield key, value

    def entry(self, heading: str, key: str) -> str:
        """Return the text of the entry of a setting, without macros."""
        for entry in self.sections()[heading].split("\n.It ")[1:]:
            first, _, rest = entry.partition("\n")
            if re.search(rf"\b{key} = ", first):
                text = rest.split("\n.El")[0].split("\n.Ss")[0]
                return " ".join(re.sub(r"^\.\w\w ", "", plain(text), flags=re.MULTILINE).split())
        raise KeyError(key)

    def entries(self, heading: str, subheading: str = "") -> set[str]:
        """Return the literal words of the entries of lists in a section, or in a part of it."""
        text = self.sections()[heading]
        if subheading:
            text = text.split(f".Ss {subheading}\n", 1)[1].split("\n.Ss ", 1)[0]
        found = [words(line) for line in text.splitlines() if line.startswith(".It Li ")]
        return {word for entry in found for word in entry[2:] if word not in DELIMITERS}


def words(line: str) -> list[str]:
    """Return the words of a line, its macro first and without the dot."""
    return plain(line).removeprefix(".").split()


def plain(text: str) -> str:
    """Return a text without the escapes of roff that these pages use."""
    return text.replace("\\(dq", '"').replace("\\&", "")


def options(line: list[str]) -> Iterator[Option]:
    """Yield the options of a line of mdoc; those with the same value or none are one by one."""
    index = 0
    while index < len(line):
        index += 1
        if line[index - 1] != "Fl":
            continue
        flags = []
        while index < len(line) and line[index] not in CALLABLE:
            if line[index] not in DELIMITERS:
                flags.append(f"-{line[index]}")
            index += 1
        takes_value = index < len(line) and line[index] == "Ar"
        yield from (Option((flag,), takes_value) for flag in flags)


def pages() -> list[Page]:
    """Return all pages."""
    files = sorted(FOLDER.glob("*.[0-9]"))
    return [Page(file.stem, file.suffix[1:], file.read_text()) for file in files]
