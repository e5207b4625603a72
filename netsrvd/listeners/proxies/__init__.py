"""Clients that a proxy connects for: whose the connections and datagrams are (PROXY protocol)."""
