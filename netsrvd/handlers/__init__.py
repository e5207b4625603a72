"""Python handlers: they serve connections and datagrams in threads of pools."""
