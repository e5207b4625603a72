"""Several sockets on one port, as several instances on one host have them."""

from contextlib import ExitStack, suppress

import pytest

from netsrvd.events.connections import ListenerFull
from tests.support.namespaces import namespace
from tests.support.peers import connect, echoed
from tests.support.serving import Serving

SHARED = {"port": 51423, "options": {"SO_REUSEPORT": True}}
CLIENTS = 30


@pytest.mark.parametrize("migrates", [True, False])
def test_whoever_waits_for_one_that_leaves_goes_to_the_other(
    serving: Serving,
    stack: ExitStack,
    migrates: bool,  # noqa: FBT001
) -> None:
    """The queue of a socket that is closed is handed to the other ones by net.ipv4.tcp_migrate_req;
    without that, who waited there is reset: so docs/scaling.md asks for it.
    """
    network = stack.enter_context(namespace())
    network.sysctl("net/ipv4/tcp_migrate_req", int(migrates))
    stack.enter_context(network.entered())
    leaving, staying = serving.tcp(max_connections=1, **SHARED), serving.tcp(**SHARED)
    clients = [stack.enter_context(connect(leaving.local)) for _ in range(CLIENTS)]
    serving.only(ListenerFull)
    leaving.call("stop")
    served = 0
    for client in clients:
        with suppress(ConnectionError, AssertionError):
            served += echoed(client)
    assert leaving.counters.accepted == 1
    assert staying.counters.accepted == served - 1
    assert (served == CLIENTS) is migrates
