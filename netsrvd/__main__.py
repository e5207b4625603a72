"""The command `netsrvd`, and what `python -m netsrvd` does."""

import sys


def main() -> int:
    """Run the command line; return the exit status.

    The imports take a fifth of a second on a slow machine: a Ctrl-C meanwhile ends them quietly.
    """
    try:
        from netsrvd import cli  # noqa: PLC0415 - see above

        return cli.main()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT


if __name__ == "__main__":
    sys.exit(main())
