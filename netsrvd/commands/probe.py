"""`netsrvd probe`: measures the way to reflectors, and back."""

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from time import time
from typing import NamedTuple

from netsrvd.errors import DependencyError, HostError, NetsrvdError, UsageError, failing_import
from netsrvd.escapes import DUMB, escaped
from netsrvd.probe import echo, echoplus, fping, nagios, report, stamp, stamps
from netsrvd.probe.clocks import Clock, daytime_seconds, time_seconds
from netsrvd.probe.csv_form import CSV
from netsrvd.probe.echoplus import EchoPlus
from netsrvd.probe.engine import Engine, Prober
from netsrvd.probe.exchange import Exchange
from netsrvd.probe.forms import Form
from netsrvd.probe.json_form import JSON
from netsrvd.probe.report import Report
from netsrvd.probe.settings import DEFAULT_PORTS, KEPT_TRIPS, Protocol, Settings
from netsrvd.probe.sockets import source_ports
from netsrvd.probe.stamp import Stamp
from netsrvd.probe.targets import Target, resolve
from netsrvd.probe.tcp import ConnectProber, TCPProber
from netsrvd.probe.text import Text
from netsrvd.probe.trips import Stream
from netsrvd.probe.udp import UDPProber
from netsrvd.sockets.descriptors import raise_limit

LEAST_INTERVAL_SECONDS = 0.00001
MOST_STREAMS = 65536
LEAST_KEPT = 1000
"""Probes of a stream whose details are kept at least."""

STAMP_TTL = 255
"""What RFC 8762, 4.2.1, asks of a sender."""

LEAST_BYTES = {
    Protocol.UDP: echo.LEAST_BYTES,
    Protocol.TCP: echo.LEAST_BYTES,
    Protocol.ECHOPLUS: echoplus.LEAST_BYTES,
}

CLOCKS: dict[Protocol, Callable[[bytes, int], int | None]] = {
    Protocol.TIME: time_seconds,
    Protocol.DAYTIME: daytime_seconds,
}


class Plan(NamedTuple):
    """What a command line asks for."""

    settings: Settings
    targets: list[Target]
    form: Form
    status: Callable[[Report], int]
    plot: Callable[[Report], None] | None = None


def run(arguments: argparse.Namespace) -> int:
    """Probe, print the results, and return the exit status of the form of output.

    Raises UsageError, HostError, SocketError, DependencyError and ResourceError before anything is
    sent; with `--nagios` they are its status UNKNOWN, with `--fping` those of fping(8).
    """
    try:
        plan = _plan(arguments)
        return plan.status(_measure(plan)) if plan.targets else fping.NO_ADDRESS
    except NetsrvdError as error:
        if arguments.fping is not None:
            print(f"{fping.NAME}: {escaped(str(error))}", file=sys.stderr)
            return fping.status_of(error)
        if not arguments.nagios:
            raise
        print(f"PROBE UNKNOWN - {nagios.text_of(error)}")
        return nagios.UNKNOWN


# --- from arguments to a plan -----------------------------------------------------------------


def _plan(arguments: argparse.Namespace) -> Plan:
    if arguments.fping is not None:
        return _fping_plan(arguments)
    settings = _checked(_settings(arguments))
    form: Form
    status: Callable[[Report], int] = _status
    if arguments.json:
        form = JSON(settings)
    elif arguments.csv:
        form = CSV(settings)
    elif arguments.nagios:
        pairs = (("--warn", arguments.warn), ("--crit", arguments.crit))
        plugin = nagios.Nagios(
            *(None if text is None else nagios.thresholds(text, option) for option, text in pairs)
        )
        form, status = plugin, plugin.status
    elif arguments.live:
        form = _live(settings)
    else:
        form = Text(settings, quiet=arguments.quiet)
    if arguments.nagios and not (settings.probe_count or settings.duration_seconds):
        raise UsageError("--nagios with --count 0 would not end; name a --duration")
    has_thresholds = arguments.warn is not None or arguments.crit is not None
    if has_thresholds and not arguments.nagios:
        raise UsageError("--warn and --crit need --nagios")
    plot = _plot(arguments.plot) if arguments.plot else None
    return Plan(settings, _targets(arguments, settings, arguments.targets), form, status, plot)


def _live(settings: Settings) -> Form:
    """Return the form that rich draws. Raises DependencyError if that is not installed."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in DUMB:
        raise UsageError(
            "--live: standard output is no terminal that can draw; without --live it has lines"
        )
    try:
        from netsrvd.probe.live import Live  # noqa: PLC0415 - it imports rich, for 0.1 s
    except ImportError as error:
        raise _missing("--live", "rich", error) from error
    return Live(settings)


def _plot(path: Path) -> Callable[[Report], None]:
    """Return what draws the picture. Raises DependencyError if matplotlib is not installed."""
    try:
        from netsrvd.probe import plot  # noqa: PLC0415 - it imports matplotlib, for 0.5 s
    except ImportError as error:
        raise _missing("--plot", "matplotlib", error) from error
    plot.checked(path)
    return lambda found: plot.draw(found, path)


def _missing(option: str, name: str, error: ImportError) -> DependencyError:
    """Return the error for a module of another package that cannot be imported."""
    if error.name is None or error.name.partition(".")[0] != name:
        return failing_import(error)
    return DependencyError(
        f"{option}: the Python module {name} is missing: install python3-{name}, or by pip: {name}"
    )


def _status(found: Report) -> int:
    return found.status


def _settings(arguments: argparse.Namespace) -> Settings:
    usual = Settings()
    protocol = arguments.protocol or Protocol.UDP
    key = _key(arguments.key_file) if arguments.key_file else None
    size = stamp.base_bytes(key) if protocol is Protocol.STAMP else usual.size_bytes
    if protocol in CLOCKS:
        if arguments.size is not None:
            raise UsageError(f"--size: a request of {protocol} is empty; leave it out")
        size = 0
    usual_count = 0 if arguments.duration or arguments.live else usual.probe_count
    return Settings(
        protocol=protocol,
        probe_count=usual_count if arguments.count is None else arguments.count,
        duration_seconds=arguments.duration or 0.0,
        interval_seconds=arguments.interval or usual.interval_seconds,
        poisson=arguments.poisson,
        size_bytes=size if arguments.size is None else arguments.size,
        timeout_seconds=arguments.timeout or usual.timeout_seconds,
        source=arguments.source,
        interface=arguments.interface,
        source_port=arguments.source_port,
        streams=arguments.sweep,
        dscp=arguments.dscp,
        ttl=arguments.ttl or (STAMP_TTL if protocol is Protocol.STAMP else None),
        dont_fragment=arguments.dont_fragment,
        kernel_stamps=not arguments.program_stamps,
        key=key,
        session_id=arguments.ssid,
    )


def _key(file: Path) -> bytes | None:
    """Return the key in a file, of the form that reflectors of this program read.

    Raises UsageError for a file that others may read, and for one without a key.
    """
    from netsrvd.services.stamp import read_key  # noqa: PLC0415 - the reflector, for this alone

    try:
        return read_key(str(file))
    except ValueError as error:
        reason = str(error).removeprefix("stamp_key: ")
        raise UsageError(f"--key-file: {reason}") from error


def _checked(settings: Settings) -> Settings:
    """Return the settings. Raises UsageError for those that do not fit together."""
    least = LEAST_BYTES.get(settings.protocol, 0)
    if settings.protocol is Protocol.STAMP:
        least = stamp.base_bytes(settings.key)
    elif settings.key is not None or settings.session_id:
        raise UsageError("--key-file and --ssid need --stamp")
    connects = settings.protocol is Protocol.TCP and not settings.size_bytes
    if settings.size_bytes < least and not connects:
        raise UsageError(
            f"--size {settings.size_bytes}: a probe of {settings.protocol} has {least} bytes at "
            "least" + (", or 0 for connections alone" * (settings.protocol is Protocol.TCP))
        )
    if settings.interval_seconds < LEAST_INTERVAL_SECONDS:
        raise UsageError("--interval: expected 10us at least")
    alone = settings.protocol in CLOCKS or connects
    if alone and settings.source_port and settings.interval_seconds <= settings.timeout_seconds:
        raise UsageError(
            "--source-port: each probe of this protocol needs a socket of its own, so the "
            "--interval must be longer than the --timeout"
        )
    return settings


def _targets(
    arguments: argparse.Namespace, settings: Settings, names: Sequence[str]
) -> list[Target]:
    if not names:
        raise UsageError("probe: name a HOST, such as 192.0.2.1, HOST:PORT or [2001:db8::1]:PORT")
    family = socket.AF_UNSPEC
    if arguments.ipv4 or arguments.ipv6:
        family = socket.AF_INET if arguments.ipv4 else socket.AF_INET6
    found: list[Target] = []
    port = DEFAULT_PORTS[settings.protocol]
    for name in names:
        try:
            found += resolve(name, port, family, every=arguments.all)
        except HostError as error:
            if arguments.fping is None:
                raise
            print(escaped(str(error)), file=sys.stderr)  # and go on with the others, as fping does
    targets = [*dict.fromkeys(found)]
    for target in targets:
        if target.lacks_interface and not settings.interface:
            raise UsageError(
                f"{target}: an address of one link alone, which needs the interface: "
                f"{target.host}%eth0, or --interface eth0"
            )
    if len(targets) * settings.streams > MOST_STREAMS:
        count = len(targets) * settings.streams
        raise UsageError(
            f"{len(targets)} targets from {settings.streams} source ports are {count} streams; "
            f"{MOST_STREAMS} are possible: choose fewer targets, or a smaller --sweep"
        )
    return targets


def _fping_plan(arguments: argparse.Namespace) -> Plan:
    """Return the plan of `--fping` and the arguments behind it."""
    given = fping.parser().parse_args(arguments.fping)
    if {arguments.plot, arguments.warn, arguments.crit} != {None}:
        raise UsageError("--plot, --warn and --crit have no meaning with --fping")
    arguments.ipv4, arguments.ipv6 = given.family == 4, given.family == 6  # noqa: PLR2004
    arguments.source, arguments.interface = given.source, given.interface
    arguments.count = given.vcount or given.count or 1
    arguments.size = max(given.size, LEAST_BYTES.get(arguments.protocol, echo.LEAST_BYTES))
    if arguments.protocol is Protocol.STAMP:
        arguments.size = None
    arguments.interval, arguments.timeout = given.period, given.timeout
    arguments.ttl = given.ttl
    arguments.dscp = None if given.tos is None else given.tos >> 2
    settings = _checked(_settings(arguments))
    form = fping.FPing(settings, quiet=given.quiet, times=given.vcount is not None)
    targets = _targets(arguments, settings, given.hosts)
    are_all_known = {target.given for target in targets} == set(given.hosts)
    status = fping.status if are_all_known else _no_address
    return Plan(settings, targets, form, status)


def _no_address(_found: Report) -> int:
    return fping.NO_ADDRESS


# --- the run ----------------------------------------------------------------------------------


def _measure(plan: Plan) -> Report:
    """Send the probes, and print what the form of output prints."""
    stamping = stamps.switched_on() if plan.settings.kernel_stamps else None
    settings = plan.settings._replace(kernel_stamps=stamping is not None)
    raise_limit()
    engine = Engine(settings, plan.form, SystemRandom())
    probers: list[Prober] = []
    try:
        probers += _probers(settings, plan.targets, engine)
        with _stopping_at_signals(engine):
            found = _run(engine, probers, plan)
        plan.form.finish(found)
    finally:
        plan.form.close()
        for each in probers:
            each.close()
        engine.close()
        if stamping:
            stamping.close()
    if plan.plot:
        plan.plot(found)
    return found


def _run(engine: Engine, probers: Sequence[Prober], plan: Plan) -> Report:
    streams = [each.stream for each in probers]
    began_at = time()
    plan.form.start(streams)
    engine.run(probers)
    return Report(
        plan.settings,
        began_at,
        time(),
        engine.stopped,
        engine.most_late_ns / 1e9,
        report.targets(plan.settings, streams),
    )


def _probers(settings: Settings, targets: Sequence[Target], engine: Engine) -> list[Prober]:
    """Return a prober for each source port and target; neighbours have different targets."""
    kept = max(LEAST_KEPT, KEPT_TRIPS // (len(targets) * settings.streams))
    ports = source_ports(settings, len(targets))
    return [
        _prober(settings, target, engine, ports[index][number], kept)
        for number in range(settings.streams)
        for index, target in enumerate(targets)
    ]


def _prober(settings: Settings, target: Target, engine: Engine, port: int, kept: int) -> Prober:
    if settings.protocol is Protocol.TCP:
        stream = Stream(target, kept)
        if not settings.size_bytes:
            return ConnectProber(stream, settings, engine, port)
        exchange = echo.Echo(settings.size_bytes, os.urandom(echo.TOKEN_BYTES))
        return TCPProber(stream, exchange, settings, engine, port)
    by_datagram = _exchange(settings)
    stream = Stream(target, kept, by_datagram.first_sequence)
    return UDPProber(stream, by_datagram, settings, engine, port)


def _exchange(settings: Settings) -> Exchange:
    if settings.protocol in CLOCKS:
        return Clock(CLOCKS[settings.protocol])
    if settings.protocol is Protocol.STAMP:
        return Stamp(settings.size_bytes, settings.key, settings.session_id, settings.dscp)
    if settings.protocol is Protocol.ECHOPLUS:
        return EchoPlus(settings.size_bytes, int.from_bytes(os.urandom(4), "big"))
    return echo.Echo(settings.size_bytes, os.urandom(echo.TOKEN_BYTES))


@contextmanager
def _stopping_at_signals(engine: Engine) -> Iterator[None]:
    """End the run, with a summary, at the first SIGINT or SIGTERM, and the command at a later one.

    One that is ignored stays so: a shell has a job in the background ignore Ctrl-C. Must be used
    in the main thread.
    """

    def stop(number: int, _frame: object) -> None:
        engine.stop()
        signal.signal(number, signal.default_int_handler)

    both = (signal.SIGINT, signal.SIGTERM)
    numbers = [number for number in both if signal.getsignal(number) is not signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
