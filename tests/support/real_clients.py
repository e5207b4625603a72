"""Clients that others wrote, as people call them, and what each is to see of each service.

A command line is for sh(1); it may have {host} and {port}. What has no end is cut by `head`.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "packaging/examples/well-known-ports.toml"
QUOTES = ROOT / "packaging/examples/quotes"

HOST = "127.0.0.1"
SECONDS = 60
"""How long a client may take. The slowest, nmap, takes 6 s on an idle machine."""

TIMED_OUT = 124
"""The status of timeout(1) then."""

AT_ONCE = 8

MORE = """
[listener.port-13]
daytime_format = "weekday"

[listener.active]
service = "active"
active_listeners = ["active", "port-7"]
port = 12011

[listener.whoami]
service = "whoami"
port = 12012

[listener.close]
service = "close"
port = 12013

[listener.metrics]
service = "metrics"
port = 12014
"""
"""What is served besides the example. nmap(1) knows no daytime in the form of RFC 3339."""

PORTS = {
    "echo": 7,
    "discard": 9,
    "daytime": 13,
    "qotd": 17,
    "chargen": 19,
    "time": 37,
    "active": 12011,
    "whoami": 12012,
    "close": 12013,
}

HTTP_PORT = 12014
"""That of `metrics`, which clients of HTTP alone speak."""

SAID = {
    "echo": r" *hello\r?\n",
    "discard": "",
    "daytime": r"[A-Z][a-z]+day, [A-Z][a-z]+ \d\d?, \d{4} \d\d:\d\d:\d\d-\S+\r?\n",
    "qotd": r"([^\n]+\r?\n){2,}",
    "chargen": r"""!"#\$%&'\(\)\*\+,-\./0123456789:;<=>\?@[\s\S]*""",
    "time": r"[\s\S]{1,4}",
    "active": r"((active|port-7) 127\.0\.0\.1:\d+\r?\n)+",
    "whoami": r"127\.0\.0\.1:\d+\n",
    "close": "",
}
"""What clients that show what they get have to show, as a regular expression."""

SAID_BY_UDP = SAID | {"chargen": r"""(!("(#[\s\S]*)?)?)?"""}
"""There the number of characters is random, and may be 0."""

HELD = "f=$(mktemp -u); mkfifo $f; exec 3<>$f; rm $f; "
"""Gives a client an input that does not end: what is written to descriptor 3."""

TELNET = "sed -e 1,3d -e '/^Connection closed by foreign host\\.$/d'"

TCP = {
    "nc": "echo hello | nc.openbsd -N {host} {port} | head -c 2000",
    "nc that sends nothing": "nc.openbsd -d {host} {port} | head -c 2000",
    "ncat": "echo hello | ncat {host} {port} | head -c 2000",
    "ncat that sends nothing": "ncat --recv-only {host} {port} | head -c 2000",
    "socat": "echo hello | socat -t 10 - TCP:{host}:{port} | head -c 2000",
    "socat that sends nothing": "socat -u TCP:{host}:{port} - | head -c 2000",
    "curl": "echo hello | curl -sSN -m 5 telnet://{host}:{port} | head -c 2000",
    "telnet": HELD
    + "echo hello >&3; timeout 5 telnet {host} {port} <&3 | head -c 2000 | "
    + TELNET,
}
"""How they end: most with the service, or with the pipe. curl does not end with its input (-m);
telnet does, before the answer has come, but not when nobody reads its output (timeout).
"""

UDP = {
    "nc": "printf %600s\\\\n hello | nc.openbsd -u -w 2 {host} {port}",
    "ncat": HELD + "printf %600s\\\\n hello >&3; ncat -u -i 2 {host} {port} <&3",
    "socat": "printf %600s\\\\n hello | socat -t 2 - UDP:{host}:{port}",
}
"""They ask with 600 bytes, so that no answer has to be cut, and wait for two seconds. ncat would
end with its input, before the answer has come.
"""

WAITING = {"echo", "discard"}
"""Services that wait for what a client sends, or for its end."""

BINARY = {"time"}
"""What is no text: telnet takes a byte of 255 for a command."""


class Row(NamedTuple):
    """A command line, and what it has to print."""

    name: str
    command: str
    seen: str


def generic(protocol: str) -> Iterator[Row]:
    """Yield a row for each client of any service, and each service that it speaks."""
    for client, command in {"tcp": TCP, "udp": UDP}[protocol].items():
        for service, port in PORTS.items():
            if "sends nothing" in client and service in WAITING:
                continue
            if client in {"telnet", "curl"} and service in BINARY:
                continue
            name = f"{client}, {service} by {protocol}"
            seen = SAID_BY_UDP[service] if protocol == "udp" else SAID[service]
            yield Row(name, command.format(host=HOST, port=port), seen)


NOW = r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \w+ \d{4}\n"

CHARGEN = f"-H {{host}} -p {PORTS['chargen']} -s '{'hello':600}' -e '!'"
SPECIAL = [
    Row(
        "curl, metrics",
        f"curl -sS http://{{host}}:{HTTP_PORT}/metrics | grep build_info.version",
        r"netsrvd_build_info\{.*\} 1\n",
    ),
    Row(
        "check_http, metrics",
        f"check_http -I {{host}} -p {HTTP_PORT} -u /metrics -s 'netsrvd_build_info'",
        r"HTTP OK: HTTP/1\.1 200 OK .*\n",
    ),
    Row(
        "check_http, the page",
        f"check_http -I {{host}} -p {HTTP_PORT} -u / -s '<h2>Listeners</h2>'",
        r"HTTP OK: HTTP/1\.1 200 OK .*\n",
    ),
    Row("rdate, time by tcp", "rdate -p {host}", NOW),
    Row("rdate, time by udp", "rdate -u -p {host}", NOW),
    Row("check_time, time by tcp", "check_time -H {host} -w 5 -c 10", r"TIME OK - .*\n"),
    Row("check_time, time by udp", "check_time -u -H {host} -w 5 -c 10", r"TIME OK - .*\n"),
    *(
        Row(f"check_tcp, {service} by tcp", f"check_tcp -H {{host}} -p {port}", r"TCP OK - .*\n")
        for service, port in PORTS.items()
    ),
    Row("check_tcp, the words of chargen", f"check_tcp {CHARGEN}", r"TCP OK - [\s\S]*"),
    Row(  # one answer in 513 has no character at all
        "check_udp, the words of chargen",
        f"check_udp {CHARGEN} || check_udp {CHARGEN}",
        r"[\s\S]*UDP OK - [\s\S]*",
    ),
    *(
        Row(
            f"{check}, the words of {service}",
            f"{check} -H {{host}} -p {PORTS[service]} -s '{'hello':600}' -e '{words}'",
            rf"{check[-3:].upper()} OK - .*\[[\s\S]*{re.escape(words)}[\s\S]*\].*\n",
        )
        for check in ("check_tcp", "check_udp")
        for service, words in {
            "echo": "hello",
            "daytime": "day, ",
            "qotd": "RFC",
            "active": "port-7 127.0.0.1:",
            "whoami": "127.0.0.1:",
        }.items()
    ),
]

NMAP = {
    "tcp": [
        r"7/tcp +open +echo\n",
        r"9/tcp +open +discard\?\n",
        r"13/tcp +open +daytime +.*daytime\n",
        r"17/tcp +open +qotd\?\n",
        r"19/tcp +open +chargen +Linux chargen\n",
        r"37/tcp +open +time +\(32 bits\)\n",
        r"12013/tcp +open +tcpwrapped\n",
    ],
    "udp": [r"7/udp +open +echo\n", r"37/udp +open +time +\(32 bits\)\n"],
}
"""Lines of nmap -sV. A ? means a name by the port: nothing was said, or nothing that it knows."""


def nmap(protocol: str) -> Row:
    """Return the row of a scan with the detection of versions."""
    lines = NMAP[protocol]
    ports = ",".join(line.partition("/")[0] for line in lines)
    kind = "-sU " if protocol == "udp" else ""
    command = f"nmap -n {kind}-sV --version-intensity 0 -p {ports} {{host}}"
    return Row(f"nmap by {protocol}", command, rf"[\s\S]*\n{''.join(lines)}[\s\S]*")


def faults(rows: list[Row], enter: Callable[..., list[str]]) -> list[str]:
    """Run the commands, some at a time, and return what was wrong with which.

    `enter` makes of a command what runs it where it is to be run.
    """

    def fault(row: Row) -> str:
        command = f"PATH=$PATH:/usr/sbin:/usr/lib/nagios/plugins; {row.command}"
        done = subprocess.run(
            enter("timeout", str(SECONDS), "sh", "-c", command.replace("{host}", HOST)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
        if done.returncode != TIMED_OUT and re.fullmatch(row.seen, done.stdout):
            return ""
        return f"{row.name}: {done.returncode} {done.stdout!r} {done.stderr!r}"

    someone = enter("nc.openbsd", "-N", HOST, str(PORTS["echo"]))  # is there, for `active`
    with (
        subprocess.Popen(someone, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as present,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        assert present.stdin
        assert present.stdout
        present.stdin.write(b"here\n")
        present.stdin.flush()
        assert present.stdout.readline() == b"here\n"
        found = [found for found in pool.map(fault, rows) if found]
        present.stdin.close()
        return found
