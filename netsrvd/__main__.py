"""The command `netsrvd`, and what `python -m netsrvd` does."""

import _signal  # type: ignore[import-not-found] # built in: `signal` would import others first
import gc
import sys

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    # A KeyboardInterrupt during an import may be swallowed there, or become another exception, and
    # during a look-up of a name it waits for the answer. The signal itself ends the process quietly
    # and at once; commands that have something to undo set a handler when they have.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

SIGNALS_OF_RUN = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
"""Signals that `netsrvd run` blocks before it imports anything: their default action would end the
process, and with it the connections that it is about to take over. The daemon finds them pending
when it serves. SIGINT still ends a start.
"""


def main() -> int:
    """Run the command line; return the exit status."""
    if sys.argv[1:2] == ["run"]:
        numbers = [getattr(_signal, name) for name in SIGNALS_OF_RUN]
        _signal.pthread_sigmask(_signal.SIG_BLOCK, numbers)
    gc.disable()  # until all is imported, see `cli`: imports leave no garbage
    from netsrvd import cli  # noqa: PLC0415 - signals first: imports take 0.2 s on slow machines

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
