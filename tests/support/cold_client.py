"""Measures cold starts inside a machine: `cold_client.py ROUNDS UNIT:PORT...`.

For each round and unit in turn, the service is stopped, a client connects to its socket unit, sends
a few bytes and waits for their echo; a line of JSON has the milliseconds of each unit.
"""

import json
import socket
import subprocess
import sys
from time import monotonic

PATIENCE_SECONDS = 60
HELLO = b"hello"


def is_in(unit: str, *states: str) -> bool:
    """Return whether a unit is in one of these states."""
    command = ["systemctl", "show", "--value", "--property=SubState", unit]
    return (
        subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip() in states
    )


def answer_ms(unit: str, port: int) -> float:
    """Return how long the first answer of a service takes that does not run."""
    subprocess.run(["systemctl", "stop", f"{unit}.service"], capture_output=True, check=True)
    while not (is_in(f"{unit}.socket", "listening") and is_in(f"{unit}.service", "dead")):
        pass
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as sock:
        began_at = monotonic()
        sock.sendall(HELLO)
        assert sock.recv(len(HELLO), socket.MSG_WAITALL) == HELLO
        return (monotonic() - began_at) * 1000


def main(rounds: str, *pairs: str) -> None:
    """Print what each unit took."""
    units = dict(pair.split(":") for pair in pairs)
    found: dict[str, list[float]] = {unit: [] for unit in units}
    for _ in range(int(rounds)):
        for unit, port in units.items():
            found[unit].append(answer_ms(unit, int(port)))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
