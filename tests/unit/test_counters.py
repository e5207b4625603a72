"""netsrvd.counters"""

from dataclasses import astuple, fields

from netsrvd.counters import Counters

SIZE = len(fields(Counters))


def test_all_begin_with_nothing() -> None:
    """A new owner has counted nothing."""
    assert astuple(Counters()) == (0,) * SIZE


def test_counters_are_added_one_by_one() -> None:
    """The sum of the house is a new object; those of the threads stay theirs."""
    one, two = Counters(*range(SIZE)), Counters(*range(100, 100 + SIZE))
    total = one + two
    assert astuple(total) == tuple(range(100, 100 + 2 * SIZE, 2))
    assert astuple(one) == tuple(range(SIZE))
    assert sum((one, two), Counters()) == total
