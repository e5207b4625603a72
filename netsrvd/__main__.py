"""Lets `python -m netsrvd` do what the command `netsrvd` does."""

import sys

from netsrvd.cli import main

if __name__ == "__main__":
    sys.exit(main())
