"""The Discard Protocol (RFC 863): input is discarded, and nothing is sent."""

from netsrvd.services import base


def prepare(_settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service."""
    return base.Service(base.SILENT, base.Datagrams())
