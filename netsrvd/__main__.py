"""The command `netsrvd`, and what `python -m netsrvd` does."""

import sys

SIGNALS_OF_RUN = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Signals that `netsrvd run` blocks before it imports anything: their default action would end the
process, and with it the connections that it is about to take over. The daemon finds them pending
when it serves. SIGINT still ends a start.
"""


def main() -> int:
    """Run the command line; return the exit status.

    The imports take a fifth of a second on a slow machine: a Ctrl-C meanwhile ends them quietly.
    """
    try:
        import signal  # noqa: PLC0415 - see above

        if sys.argv[1:2] == ["run"]:
            numbers = [getattr(signal, name) for name in SIGNALS_OF_RUN]
            signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        from netsrvd import cli  # noqa: PLC0415 - see above

        return cli.main()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT


if __name__ == "__main__":
    sys.exit(main())
