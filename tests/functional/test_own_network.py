"""What the tests of this tier take for granted: other runs of tests are not in their network."""

import os
import socket

from tests.support.run import free_port


def test_no_other_program_has_a_port_here() -> None:
    """As root a module has a network with loopback alone, where each port can be bound."""
    if os.geteuid() == 0:
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with (
        socket.create_server(("127.0.0.1", free_port())) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getpeername() == server.getsockname()
