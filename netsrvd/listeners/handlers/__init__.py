"""Functions of the administrator's: they serve connections and datagrams in their own threads."""
