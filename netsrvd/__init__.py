"""netsrvd serves small network services, TCP and UDP echo first, under systemd."""

__version__ = "1.0.0"
