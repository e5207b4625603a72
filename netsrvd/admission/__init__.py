"""May this peer come in now? Nothing, or the reason and the rule that keep it out.

A gate decides and does nothing else: it is told the time and opens no socket.
"""
