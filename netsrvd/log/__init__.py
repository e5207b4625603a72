"""The log: one thread that writes the records of all others, and its targets."""
