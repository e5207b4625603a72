"""What the documents tell a reader to type, and to write into files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")),
]

PROGRAMS = (
    *("apt", "cp", "curl", "dpkg", "echo", "fail2ban-client", "fail2ban-regex", "firewall-cmd"),
    *(
        "journalctl",
        "kill",
        "make",
        "nc",
        "netsrvd",
        "promtool",
        "pytest",
        "python",
        "python3",
        "rm",
    ),
    *("ss", "ssh", "sysctl", "systemctl", "systemd-analyze", "time", "ufw", "ulimit"),
    *("varlinkctl", ".venv/bin/python", "~/netsrvd/bin/netsrvd", "~/netsrvd/bin/pip"),
)

HEADING = r"^## (?P<heading>[^\n]*)$"
NAMED = r"(?:^`(?P<named>/\S+)`\n\n)?"
BLOCK = rf"{NAMED}^(?P<indent> *)```(?P<language>\w*)\n(?P<block>.*?)^ *```$"
INLINE = r"(?<!`)`(?P<inline>[^`\n]+)`(?!`)"
PART = re.compile(f"{HEADING}|{BLOCK}|{INLINE}", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (?P<path>/etc/\S+[.](?:toml|conf))\n")
COMMENT = re.compile(r"\s{2,}# .*")
ASSIGNMENT = re.compile(r"[A-Z]+=\S+ ")


class Step(NamedTuple):
    """A command to type, or a file to write; one of the two is empty."""

    command: str
    path: str = ""
    text: str = ""
    section: str = ""
    """The heading of the second level above it."""
    is_inline: bool = False
    """Whether it stands in a sentence."""


def steps(document: str) -> Iterator[Step]:
    """Yield what a document, named from the top of the repository, tells to do, in its order."""
    section = ""
    for found in PART.finditer((ROOT / document).read_text()):
        if heading := found["heading"]:
            section = heading
        elif inline := found["inline"]:
            if " " in inline and is_command(inline):
                yield Step(inline, section=section, is_inline=True)
        elif path := found["named"]:
            yield Step("", path, found["block"], section)
        elif named := FILE.match(found["block"]):
            yield Step("", named["path"], found["block"], section)
        else:
            yield from (Step(line, section=section) for line in typed(found["block"]))


def others(document: str) -> Iterator[str]:
    """Yield the first lines of the blocks of a document that are neither commands nor files."""
    for found in PART.finditer((ROOT / document).read_text()):
        block = found["block"]
        if block and not found["named"] and not FILE.match(block) and not [*typed(block)]:
            yield block.splitlines()[0]


def typed(block: str) -> Iterator[str]:
    """Yield the commands of a block, without what is said of each; it may be none of commands.

    A command may have several lines, of which each but the last one ends with a `|` or a `\\`.
    """
    joined = re.sub(r"([|\\])\n", "\\1\0", block)
    lines = [COMMENT.sub("", line).strip() for line in joined.splitlines()]
    if is_command(lines[0]) and "nowait" not in lines[0]:
        yield from (line.replace("\0", "\n") for line in lines if is_command(line))


def is_command(line: str) -> bool:
    """Return whether a line begins with a program, or with a variable for one."""
    return ASSIGNMENT.sub("", line).split(maxsplit=1)[:1] in [[name] for name in PROGRAMS]
