"""Access lists and limits: whether a peer is admitted, or the reason and the rule that refuse it.

A policy only decides: its caller passes the time, and it opens no socket.
"""
