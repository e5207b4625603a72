"""The log: one thread that writes what all others report, and the places it can write to."""
