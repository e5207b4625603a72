"""What the documents tell an administrator to type, and to write into files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

PROGRAMS = (
    *("apt", "dpkg", "echo", "firewall-cmd", "journalctl", "make", "nc", "netsrvd", "pytest"),
    *("python3", "ss", "sysctl", "systemctl", "time", "ufw", "ulimit", "~/netsrvd/bin/pip"),
    "~/netsrvd/bin/netsrvd",
)

BLOCK = re.compile(r"^```\n(?P<block>.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(?P<inline>[^`\n]+)`(?!`)")
FILE = re.compile(r"# (?P<path>/etc/\S+[.](?:toml|conf))\n")
COMMENT = re.compile(r"\s{2,}# .*")


class Step(NamedTuple):
    """A command to type, or a file to write; one of the two is empty."""

    command: str
    path: str = ""
    text: str = ""


def steps(document: str) -> Iterator[Step]:
    """Yield what a document, named from the top of the repository, tells to do, in its order."""
    text = (ROOT / document).read_text()
    for found in re.finditer(f"{BLOCK.pattern}|{INLINE.pattern}", text, BLOCK.flags):
        if inline := found["inline"]:
            if " " in inline and inline.split()[0] in PROGRAMS:
                yield Step(inline)
        elif named := FILE.match(found["block"]):
            yield Step("", named["path"], found["block"])
        else:
            yield from map(Step, typed(found["block"]))


def typed(block: str) -> Iterator[str]:
    """Yield the commands of a block, without what is said of each; it may be none of commands."""
    lines = [COMMENT.sub("", line) for line in block.splitlines()]
    if lines[0].split()[0] in PROGRAMS and "nowait" not in lines[0]:
        yield from (line for line in lines if line and line.split()[0] in PROGRAMS)
