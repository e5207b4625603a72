"""What a profile of AppArmor allows, and what a process did by strace, to compare the two.

A kernel without AppArmor enforces nothing, so the rules are read here: apparmor.d(5).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

VARIABLE = re.compile(r"@\{\w+\}")
ASSIGNMENT = re.compile(r"(@\{\w+\}) *(\+?)= *(.+)")
FILE_RULE = re.compile(r"(?:owner )?([/@]\S*)\s+([a-zA-Z]+),")
NETWORK_RULE = re.compile(r"network (inet6?) (stream|dgram),")

# What strace writes of a call that succeeded. With -y a descriptor has its path behind it, after
# symbolic links.
OPENED = re.compile(r"open(?:at)?\(.*?\b(O_(?:RDONLY|WRONLY|RDWR)\S*?)[,)].* = \d+<([^>(]+)")
MAPPED = re.compile(r"mmap\(.*PROT_EXEC.*?, \d+<([^>]+)>, .*\) = 0x")
NAMED = re.compile(r'(?:connect|bind)\(.*sun_path="([^"]+)".*\) = 0')
CHANGED = re.compile(r'(?:mkdir|unlink|rmdir|rename)\("([^"]+)".*\) = 0')
SOCKET = re.compile(r"socket\((AF_\w+), SOCK_(\w+?)(?:\||,).*\) = \d+")


class Access(NamedTuple):
    """A path, and the letters of apparmor.d(5) that it was used with."""

    path: str
    letters: str


class Profile:
    """The rules of one profile for files and for sockets of the internet.

    Constructed from what `apparmor_parser --preprocess` prints. Rules that deny are none of those
    that are read.
    """

    def __init__(self, text: str) -> None:
        self._variables: dict[str, list[str]] = {}
        lines = [line.strip() for line in text.splitlines()]
        for found in filter(None, map(ASSIGNMENT.fullmatch, lines)):
            name, adds, values = found.groups()
            known = self._variables.get(name, []) if adds else []
            self._variables[name] = known + values.split()
        files = filter(None, map(FILE_RULE.fullmatch, lines))
        self._files = [(self._pattern(path), letters) for path, letters in map(pair, files)]
        self.networks = set(map(pair, filter(None, map(NETWORK_RULE.fullmatch, lines))))

    def allows(self, access: Access) -> bool:
        """Return whether rules allow the path with all of the letters."""
        allowed = "".join(letters for path, letters in self._files if path.fullmatch(access.path))
        return set(access.letters) <= set(allowed)

    def _pattern(self, glob: str) -> re.Pattern[str]:
        """Return a rule's path as a regular expression."""
        while found := VARIABLE.search(glob):
            values = ",".join(value.rstrip("/") for value in self._variables[found[0]])
            glob = glob.replace(found[0], f"{{{values}}}")
        signs = {"**": ".*", "*": "[^/]*", "?": "[^/]", "{": "(?:", "}": ")", ",": "|"}
        parts = re.findall(r"\*\*|\[[^]]*\]|.", glob)
        return re.compile(
            "".join(
                signs.get(part) or (part if part[0] == "[" else re.escape(part)) for part in parts
            )
        )


def pair(found: re.Match[str]) -> tuple[str, str]:
    """Return the two groups of a match."""
    return found[1], found[2]


def accesses(trace: str) -> Iterator[Access]:
    """Yield what a process did with files, by `strace -ff -y`: what failed changed nothing."""
    for line in trace.splitlines():
        if (found := OPENED.match(line)) and "O_PATH" not in found[1]:
            letters = {"O_RDONLY": "r", "O_WRONLY": "w", "O_RDWR": "rw"}
            end = "/" if "O_DIRECTORY" in found[1] else ""
            yield Access(found[2] + end, letters[found[1].partition("|")[0]])
        elif found := MAPPED.match(line):
            yield Access(found[1], "m")
        elif found := NAMED.match(line):
            yield Access(found[1], "w")
        elif found := CHANGED.match(line):
            yield Access(found[1] + ("/" if line.startswith(("mkdir", "rmdir")) else ""), "w")


def sockets(trace: str) -> set[tuple[str, str]]:
    """Return the families and types of the sockets that a process made, by strace."""
    found = filter(None, map(SOCKET.match, trace.splitlines()))
    return {(each[1].removeprefix("AF_").lower(), each[2].lower()) for each in found}
