"""The examples of the manual pages, typed on a machine with the package."""

from typing import NamedTuple

from tests.support.machine import Machine
from tests.support.manuals import Page, pages

PAGES = [page for page in pages() if page.examples() and page.name != "netsrvd-probe"]
"""Pages with command lines; those of netsrvd-probe(1) are run by
tests/functional/test_probe_examples.py.
"""

ELSEWHERE = {
    "netsrvd top": "tests/system/test_top.py",
    "netsrvd top --control @lab": "tests/functional/test_top.py",
}
"""Examples that other tests run, as they need a terminal."""


class Context(NamedTuple):
    """What a command takes for granted, and what undoes it."""

    before: str
    after: str = ":"


START = "systemctl start netsrvd"
STOP = "systemctl stop netsrvd.socket netsrvd.service"
DETACHED = f"{STOP}; netsrvd run --detach --pid-file /run/netsrvd.pid"
ENDED = (
    "if pid=$(cat /run/netsrvd.pid); then kill $pid || true; tail --pid=$pid -f /dev/null; fi;"
    "rm -f /run/netsrvd.pid; systemctl start netsrvd.socket"
)
CONTEXTS = {
    "netsrvd apply --rollback": Context(
        "netsrvd apply; echo max_connections = 9 >/etc/netsrvd/conf.d/test.toml",
        "! test -e /etc/netsrvd/conf.d/test.toml",
    ),
    "netsrvd run --detach --pid-file /run/netsrvd.pid": Context(STOP, ENDED),
    'kill "$(cat /run/netsrvd.pid)"': Context(DETACHED, ENDED),
    'netsrvd reload "$(cat /run/netsrvd.pid)"': Context(DETACHED, ENDED),
    "netsrvd run -c ./netsrvd.toml": Context(f"{STOP}; echo >netsrvd.toml", START),
}
"""What these take for granted; the daemon runs for the others."""

ENDLESS = {"netsrvd run -c ./netsrvd.toml", "journalctl -f -u netsrvd"}
"""Examples that run until they are ended; each prints a line that names the program before."""

REFUSED = {"netsrvd explain echo 192.0.2.7", "netsrvd explain --udp echo [2001:db8::1]:53"}
"""Examples whose status is 1."""


def type_examples(machine: Machine, page: Page) -> None:
    """Type each example of a page; raises an error for one that fails."""
    for command in page.examples():
        if command in ELSEWHERE:
            continue
        context = CONTEXTS.get(command, Context(START))
        typed = command
        if command in ENDLESS:
            typed = f"exec 3< <({command} 2>&1); pid=$!; grep -m 1 netsrvd <&3; kill $pid"
        elif command in REFUSED:
            typed = f"{command} && exit 9 || test $? = 1"
        for line in (context.before, typed, context.after):
            machine.run("bash", "-ec", f"cd /srv; {line}")


def unknown() -> set[str]:
    """Return what the tables above have and no page."""
    examples = {command for page in PAGES for command in page.examples()}
    return {*ELSEWHERE, *CONTEXTS, *ENDLESS, *REFUSED} - examples
