"""The example for the well-known ports on a real Debian, for the clients that it has."""

import pytest

from tests.support import real_clients
from tests.support.installed import is_active
from tests.support.machine import Machine
from tests.support.patience import eventually
from tests.support.real_clients import MORE, Row, generic, nmap

EXAMPLES = "/usr/share/doc/netsrvd/examples"

USE = f"""
cd {EXAMPLES}
cp well-known-ports.toml /etc/netsrvd/conf.d/
cp quotes /etc/netsrvd/
netsrvd apply
"""
"""What the example says that one should do."""


@pytest.fixture(scope="module")
def small(installed: Machine) -> Machine:
    """Give a machine that uses the example, with all other services besides."""
    installed.run("sh", "-ec", USE)
    installed.run("sh", "-c", "cat >/etc/netsrvd/conf.d/z.toml", input=MORE)
    installed.run("netsrvd", "apply")
    return installed


def test_a_low_port_starts_the_daemon(small: Machine) -> None:
    """systemd binds the ports of all listeners, and the first client starts the daemon."""
    assert not is_active(small, "netsrvd.service")
    assert real_clients.faults([real_clients.SPECIAL[0]], small.command) == []
    eventually(lambda: is_active(small, "netsrvd.service"), "it runs")

    def ports() -> set[str]:
        low = small.journal("_SYSTEMD_UNIT=netsrvd.service", "NETSRVD_ORIGIN=systemd")
        return {record["NETSRVD_LOCAL_PORT"] for record in low}

    ports_of_all = *real_clients.PORTS.values(), real_clients.HTTP_PORT, 51423
    wanted = {*map(str, ports_of_all)}
    eventually(lambda: ports() == wanted, "the records of the sockets")


@pytest.mark.parametrize(
    "rows",
    [list(generic("tcp")), list(generic("udp")), real_clients.SPECIAL, [nmap("tcp"), nmap("udp")]],
    ids=["tcp", "udp", "special", "nmap"],
)
def test_real_clients_see_what_is_said(small: Machine, rows: list[Row]) -> None:
    """Each service answers each client that speaks it, see `support/real_clients.py`."""
    assert real_clients.faults(rows, small.command) == []
