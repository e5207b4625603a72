"""The arguments of the command line."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import netsrvd
from netsrvd.escapes import escaped

USUAL_COLUMNS = 80

MOST_USAGE_LINES = 6
"""Lines of a usage that are shown above an error; more would hide it."""

PID_DIGITS = 10

COMMANDS = {
    "run": "serve until SIGTERM or Ctrl-C",
    "check": "check the configuration and print what it changes",
    "apply": "put the configuration into force under systemd",
    "explain": "say whether a client is admitted, and why",
    "reload": "make a daemon read its configuration again",
    "status": "show the state of each daemon, or its connections",
    "metrics": "print the metrics for Prometheus once",
    "top": "show the state of a daemon on a terminal, once a second",
    "probe": "measure the path to a host and back",
    "sockopts": "list the socket options of this system or of a listener",
}
"""What each command does, in the order of `netsrvd --help`."""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of the command line: for all commands, or just for this one.

    A start need not wait for the arguments of other commands.
    """
    top = Parser(
        prog="netsrvd", description="Serve small network services, such as TCP and UDP echo."
    )
    top.add_argument("--version", action="version", version=f"netsrvd {netsrvd.__version__}")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for name in (command,) if command in COMMANDS else COMMANDS:
        text = COMMANDS[name]
        one = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_shared(one, name)
        if name in OWN_ARGUMENTS:
            OWN_ARGUMENTS[name](one)
    return top


def _add_shared(parser: "Parser", name: str) -> None:
    """Add those options of a command that several have."""
    if name in ("run", "check", "explain", "sockopts"):
        parser.add_argument(
            *("-c", "--config"),
            type=Path,
            metavar="FILE",
            help="read FILE and conf.d/*.toml beside it (default: /etc/netsrvd/netsrvd.toml)",
        )
    if name in ("check", "apply", "explain", "status", "sockopts"):
        parser.add_argument(
            "--json",
            action="store_true",
            help="print JSON, also if there are faults" if name == "check" else "print JSON",
        )
    if name in ("status", "top", "metrics"):
        parser.add_argument(
            "--control",
            metavar="PATH",
            help="ask the daemon at this socket, not those that systemd runs",
        )


def _add_run(run: "Parser") -> None:
    """Add the arguments of `run` alone."""
    run.add_argument(
        "--detach", action="store_true", help="serve in the background, and log to syslog"
    )
    run.add_argument(
        *("--pid-file",),
        type=Path,
        metavar="FILE",
        help="with --detach: write the process ID into FILE and hold it locked",
    )
    run.add_argument(
        "--user", metavar="NAME", help="with --detach: become this user when the sockets are open"
    )
    run.add_argument(
        "--inetd", action="store_true", help="serve the connection on standard input, and exit"
    )
    run.add_argument(
        "--listener", metavar="NAME", help="with --inetd: serve as this listener, not the first"
    )
    run.add_argument(
        "--log",
        choices=("auto", "journal", "syslog", "stderr"),
        help="where records go, whatever the configuration says",
    )
    run.add_argument(
        "--control",
        metavar="PATH",
        help="answer `netsrvd status` at this socket, or at an abstract name: @NAME",
    )


def _add_check(check: "Parser") -> None:
    """Add the arguments of `check` alone."""
    check.add_argument(
        "--all", action="store_true", help="print all settings, also those with their defaults"
    )


def _add_apply(apply: "Parser") -> None:
    """Add the arguments of `apply` alone."""
    apply.add_argument(
        "--dry-run", action="store_true", help="show what would change, and change nothing"
    )
    apply.add_argument(
        "--rollback", action="store_true", help="restore and apply the last good configuration"
    )


def _add_explain(explain: "Parser") -> None:
    """Add the arguments of `explain` alone."""
    explain.add_argument(
        "--udp", action="store_true", help="judge a datagram instead of a connection"
    )
    explain.add_argument("listener", help="name of a listener")
    explain.add_argument("address", help="IP address, with or without a port: 192.0.2.1:40000")


def _add_reload(reload: "Parser") -> None:
    """Add the arguments of `reload`."""
    reload.add_argument(
        *("pid",),
        type=_pid,
        nargs="?",
        metavar="PID",
        help="process ID of the daemon (default: each that systemd runs)",
    )


def _add_status(status: "Parser") -> None:
    """Add the arguments of `status` alone."""
    status.add_argument(
        "what", nargs="?", choices=("connections",), help="list the live connections"
    )
    status.add_argument(
        "--listener", metavar="NAME", help="with connections: only those of this listener"
    )
    status.add_argument(
        "--address", metavar="NETWORK", help="with connections: only those of these clients"
    )
    for name, level in (("warn", "a warning"), ("crit", "critical")):
        status.add_argument(
            f"--{name}",
            action="append",
            default=[],
            metavar="NAME=RANGE",
            help=f"work as a monitoring plugin: {level} if this figure is out of range",
        )


def _add_metrics(metrics: "Parser") -> None:
    """Add the arguments of `metrics` alone."""
    metrics.add_argument(
        "--openmetrics", action="store_true", help="print OpenMetrics, not Prometheus' text format"
    )


def _add_probe(probe: "Parser") -> None:
    """Add the arguments of `probe`."""
    from netsrvd.probe.arguments import add  # noqa: PLC0415 - for this command alone

    add(probe)


def _add_sockopts(sockopts: "Parser") -> None:
    """Add the arguments of `sockopts` alone."""
    sockopts.add_argument(
        "--listener", metavar="NAME", help="show what the configuration of this listener sets"
    )


OWN_ARGUMENTS: dict[str, Callable[["Parser"], None]] = {
    "run": _add_run,
    "check": _add_check,
    "apply": _add_apply,
    "explain": _add_explain,
    "reload": _add_reload,
    "status": _add_status,
    "metrics": _add_metrics,
    "probe": _add_probe,
    "sockopts": _add_sockopts,
}


def _pid(text: str) -> int:
    known = text.isascii() and text.isdecimal() and len(text) <= PID_DIGITS
    if not (known and 0 < int(text) < 1 << 31):
        raise argparse.ArgumentTypeError(f"expected a process ID, not {text!r}")
    return int(text)


class Help(argparse.HelpFormatter):
    """A help text as wide as the terminal. argparse itself, which makes one for each argument,
    would import shutil and all compressors for this.
    """

    def __init__(self, prog: str) -> None:
        try:
            columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
        except (ValueError, OSError):  # no number, no terminal
            columns = 0
        super().__init__(prog, width=(columns or USUAL_COLUMNS) - 2)


class Parser(argparse.ArgumentParser):
    """A parser whose help names its manual page, and whose errors end with EX_USAGE."""

    def __init__(self, prog: str, **settings: Any) -> None:
        page = prog.replace(" ", "-")
        super().__init__(prog, epilog=f"See {page}(1).", formatter_class=Help, **settings)

    def error(self, message: str) -> NoReturn:
        """Print the usage, if it is short, and the error, and exit."""
        usage, more = self.format_usage(), ""
        if usage.count("\n") > MOST_USAGE_LINES:
            usage, more = "", f"; {self.prog} --help lists the arguments"
        self.exit(os.EX_USAGE, f"{usage}{self.prog}: {escaped(message)}{more}\n")
