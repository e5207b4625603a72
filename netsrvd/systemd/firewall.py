"""Says which ports ufw(8), by its files, or firewalld(1), by asking it, still closes."""

import re
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

UFW = Path("/etc/ufw")
UFW_DEFAULTS = Path("/etc/default/ufw")

Port = tuple[str, int]
"""Protocol and number."""

_TUPLE = re.compile(r"### tuple ### (allow|limit)(?:_\S+)? (tcp|udp|any) (\S+) ")
FIREWALLD_SECONDS = 10.0
NO = 1
"""The status of `firewall-cmd --query-port` for a port that is closed."""


def hints(ports: Collection[Port]) -> list[str]:
    """Return a line for each port that ufw or firewalld closes, with the command that opens it."""
    return [*ufw_hints(ports), *firewalld_hints(ports)]


def ufw_hints(ports: Collection[Port]) -> list[str]:
    """Return the lines of ufw; none where it is not active, or accepts by default."""
    if not re.search(r"(?m)^ENABLED=yes", _read(UFW / "ufw.conf")):
        return []
    if not re.search(r'(?m)^DEFAULT_INPUT_POLICY="?(DROP|REJECT)', _read(UFW_DEFAULTS)):
        return []
    rules = _read(UFW / "user.rules") + _read(UFW / "user6.rules")
    return [
        f"ufw closes {protocol} port {port}: ufw allow {port}/{protocol}"
        for protocol, port in sorted(closed(ports, rules))
    ]


def closed(ports: Iterable[Port], rules: str) -> set[Port]:
    """Return the ports for which ufw's rules have no tuple that allows them."""
    opened = [(found[2], found[3]) for found in _TUPLE.finditer(rules)]
    return {
        (protocol, port)
        for protocol, port in ports
        if not any(
            kind in ("any", protocol) and _is_among(port, numbers) for kind, numbers in opened
        )
    }


def _is_among(port: int, numbers: str) -> bool:
    for each in numbers.split(","):
        low, _, high = each.partition(":")
        if each == "any" or (low.isdecimal() and int(low) <= port <= int(high or low)):
            return True
    return False


def firewalld_hints(ports: Collection[Port]) -> list[str]:
    """Return the lines of firewalld's default zone; none where it does not run."""
    if _firewall_cmd("--state"):
        return []
    found = []
    for protocol, port in sorted(ports):
        if _firewall_cmd(f"--query-port={port}/{protocol}") == NO:
            found.append(
                f"firewalld closes {protocol} port {port}: firewall-cmd --permanent "
                f"--add-port={port}/{protocol}, then firewall-cmd --reload"
            )
    return found


def _firewall_cmd(argument: str) -> int | None:
    """Return the status of firewall-cmd; -1 if there is none."""
    try:
        done = subprocess.run(  # noqa: S603 - a list, without a shell
            ["firewall-cmd", "--quiet", argument],  # noqa: S607 - where the host has it
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=FIREWALLD_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return -1
    return done.returncode


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
