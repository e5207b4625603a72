"""`netsrvd check`: says offline what is wrong with the configuration, or what it means."""

import argparse

from netsrvd import assembly
from netsrvd.services.base import Present


def run(arguments: argparse.Namespace) -> int:
    """Print the effective configuration, a key a line, each with the file that it came from.

    Raises ConfigError with all faults of all files.
    """
    configuration = assembly.read_configuration(arguments.config)
    assembly.prepare_services(configuration.settings, Present())
    for line in configuration.lines(assembly.WORDS):
        print(line)
    return 0
