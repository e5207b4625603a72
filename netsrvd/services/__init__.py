"""The services by name, one row each: what serves a TCP connection, and what serves datagrams."""

from netsrvd.services import echo

SERVICES = {
    "echo": (echo.Stream, echo.Datagrams),
}
