"""`netsrvd check`: says offline what is wrong with the configuration, or what it means."""

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from netsrvd import startup
from netsrvd.commands import service_view
from netsrvd.config.files import Configuration, dotted
from netsrvd.errors import ConfigError, Fault
from netsrvd.escapes import escaped
from netsrvd.services.base import ServerView
from netsrvd.settings import Settings
from netsrvd.systemd import comparison

UNREAD = "only *.toml is read, without a dot at its beginning"


class Report(NamedTuple):
    """What is to be said of a configuration."""

    configuration: Configuration | None
    """None where the files themselves have faults."""
    faults: list[Fault]
    """For each of them a start or a reload fails."""
    warnings: list[str]
    """What does not hinder a start, but will surprise."""
    notes: list[str]
    """What was not looked at, and why."""
    as_service: bool = False
    """Whether the files were looked at as netsrvd.service sees them."""


def run(arguments: argparse.Namespace) -> int:
    """Print what the configuration changes, a key a line, each with the place that it is from.

    The last line is the verdict. With `all`, print every key; with `json`, an object, see
    netsrvd(1), also if there are faults. Otherwise raises ConfigError with all faults of all files.
    """
    report = judge(arguments.config)
    if arguments.json:
        print(json.dumps(_object(report), indent=2))
        return os.EX_CONFIG if report.faults else os.EX_OK
    if report.configuration is None or report.faults:
        count = len(report.faults)
        raise ConfigError([*report.faults, f"not valid: {count} fault{'s' * (count > 1)}"])
    for line in _lines(report, report.configuration, everything=arguments.all):
        print(line)
    return os.EX_OK


def judge(config: Path | None) -> Report:
    """Read and judge a configuration as a start would, without opening a socket."""
    try:
        configuration = startup.read_configuration(config)
    except ConfigError as error:
        return Report(None, error.faults, [], [])
    report = Report(configuration, [], _unread(configuration), [])
    report.warnings.extend(each.text() for each in startup.ignored_settings(configuration))
    try:
        settings = _without_credentials(configuration.settings)
        startup.prepare_services(settings, ServerView(), configuration.sources)
    except ConfigError as error:
        report.faults.extend(error.faults)
    faults, notes, as_service = service_view.judge(config, configuration)
    report.faults.extend(faults)
    report.notes.extend(notes)
    if as_service:
        found = comparison.compare(configuration)
        report.warnings.extend(found.lines)
        report.notes.extend(found.notes)
    else:
        report.warnings.extend(comparison.ports_in_use(configuration.settings))
    return report._replace(as_service=as_service)


def _without_credentials(settings: Settings) -> Settings:
    """Return settings that need no credential: systemd passes those to the service alone."""
    listeners = (
        each._replace(stamp_key="") if each.credential else each for each in settings.listeners
    )
    return settings._replace(listeners=tuple(listeners))


def _unread(configuration: Configuration) -> list[str]:
    return [f"not read: {escaped(str(each))}: {UNREAD}" for each in configuration.unread]


def _lines(report: Report, configuration: Configuration, *, everything: bool) -> list[str]:
    """Return TOML: keys, and all else as comments."""
    lines = configuration.lines(startup.VALIDATORS, without_defaults=not everything)
    lines += [f"# warning: {each}" for each in report.warnings]
    lines += [f"# {each}" for each in report.notes]
    served = [
        f"{each.name} ({each.service}, {' and '.join(each.protocols)})"
        for each in configuration.settings.listeners
    ]
    count = len(configuration.files)
    files = f"{count or 'no'} file{'s' * (count != 1)}"
    files += ", read as netsrvd.service would" if report.as_service else ""
    rest = "" if everything else "; all else is default, see --all"
    return [*lines, f"# valid: {files}, serves {', '.join(served)}{rest}"]


def _object(report: Report) -> dict[str, Any]:
    configuration = report.configuration
    return {
        "valid": not report.faults,
        "faults": [
            {
                "file": each.file or None,
                "line": each.line or None,
                "key": dotted(each.key) or None,
                "text": each.text,
            }
            for each in report.faults
        ],
        "warnings": report.warnings,
        "notes": report.notes,
        "as_service": report.as_service,
        "files": [escaped(str(each)) for each in configuration.files] if configuration else [],
        "settings": configuration.objects(startup.VALIDATORS) if configuration else [],
    }
