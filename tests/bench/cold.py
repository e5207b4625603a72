"""Cold starts: from the exec of a program to its first answer."""

import fcntl
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.bench import stage
from tests.bench.boxes import ENVIRONMENT, OUTPUT, ROOT
from tests.bench.loads import Bench
from tests.bench.peers import HERE, OWN, OWN_PORT, PROGRAM, PYTHON, TREE_PYTHON
from tests.bench.servers import BenchError, log_cpu, server_cpu

COLD, SMALLEST = "cold start", "smallest program"
STARTS = 5
"""Starts of each program in a round, in turn; the round's figure is their median."""

HELLO, PASSED, PATIENCE_SECONDS = b"hello", 3, 10

# As the command of the Debian package does it (packaging/netsrvd): without `site`.
AS_PACKAGED = """
import sys
sys.path[:] = [{root!r}, *sys.path, {packages!r}]
from netsrvd.__main__ import main
sys.exit(main())
"""


def commands() -> dict[str, list[str]]:
    """Return the programs that are started; netsrvd as systemd/netsrvd.service does it."""
    base = str(Path(PYTHON).resolve())
    program = [PROGRAM]
    if "NETSRVD" not in os.environ:
        [packages] = TREE_PYTHON.parents[1].glob("lib/python*/site-packages")
        code = AS_PACKAGED.format(root=str(ROOT), packages=str(packages))
        program = [base, "-IS", "-c", code]
    return {
        SMALLEST: [base, str(HERE / "smallest.py")],
        OWN: [*program, "run"],
    }


def cold_starts(bench: Bench, rounds: int) -> None:
    """Measure both programs in turn, after one start of each that is not measured."""
    programs = commands()
    with stage.journal(log_cpu()):
        for number in range(rounds):
            print(f"{number + 1}/{rounds} {COLD}", file=sys.stderr, flush=True)
            took: dict[str, list[float]] = {name: [] for name in programs}
            try:
                for _ in range(STARTS + 1):
                    for name, command in programs.items():
                        took[name].append(first_answer_ms(command))
            except BenchError as error:
                bench.note(number, COLD, OWN, {"failed": str(error)})
                continue
            for name, each in took.items():
                bench.note(number, COLD, name, {"first_answer_ms": median(each[1:])})


def first_answer_ms(command: list[str]) -> float:
    """Start a program with sockets at one of which a client waits; return when it was answered."""
    where = ("127.0.0.1", OWN_PORT)
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(where))
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(where)
        client = stack.enter_context(socket.create_connection(where, PATIENCE_SECONDS))
        client.sendall(HELLO)
        pid = _start(command, [listening.fileno(), datagrams.fileno()])
        try:
            began_at = time.monotonic()
            answer = client.recv(len(HELLO), socket.MSG_WAITALL)
            took = time.monotonic() - began_at
        except OSError as error:
            raise BenchError(f"no first answer: {error}") from error
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    if answer != HELLO:
        raise BenchError("the first answer is wrong")
    return took * 1000


def _start(command: list[str], sockets: list[int]) -> int:
    """Start a program with sockets passed as systemd does it; return when exec(2) has succeeded.

    It is done by hand, as LISTEN_PID must name the process.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            _become(command, sockets, writing)
        finally:
            os._exit(127)
    os.close(writing)
    os.read(reading, 1)  # the end of file: exec(2) has closed the other end
    os.close(reading)
    return pid


def _become(command: list[str], sockets: list[int], writing: int) -> None:
    """Replace this process; the pipe stays open until exec(2)."""
    os.setsid()
    os.sched_setaffinity(0, {int(server_cpu())})
    lowest = PASSED + len(sockets)  # so that nothing is overwritten that is needed below
    copies = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, lowest) for number in sockets]
    fcntl.fcntl(writing, fcntl.F_DUPFD_CLOEXEC, lowest)
    output = os.open(OUTPUT / COLD, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    for place, copy in enumerate(copies):
        os.dup2(copy, PASSED + place)
    status = os.fstat(2)
    told = {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid())}
    told["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"  # the records go to the journal
    os.execve(command[0], command, ENVIRONMENT | told)
