"""The verbs of the command line, one file each; `run` returns the exit status."""
