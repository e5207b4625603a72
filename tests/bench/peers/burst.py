"""Runs netsrvd with another number of accepts in a turn: `burst.py ACCEPTS ARGUMENTS...`.

The number is a constant of `netsrvd/tcp.py` and no setting; this is a copy with another constant.
"""

import sys

from netsrvd import __main__, tcp

assert isinstance(tcp.ACCEPTS_PER_TURN, int)
tcp.ACCEPTS_PER_TURN = int(sys.argv.pop(1))
sys.exit(__main__.main())
