"""The PROXY protocol: the clients of connections and datagrams that a proxy forwards."""
