"""netsrvd.counters"""

from netsrvd.counters import Counters

NAMES = [*Counters.__annotations__]


def test_all_begin_with_nothing() -> None:
    """A new owner has counted nothing."""
    assert vars(Counters()) == dict.fromkeys(NAMES, 0)


def test_counters_are_added_one_by_one() -> None:
    """The sum of the house is a new object; those of the threads stay theirs."""
    one = Counters(**{name: number for number, name in enumerate(NAMES)})
    two = Counters(**{name: number for number, name in enumerate(NAMES, 100)})
    total = one + two
    assert vars(total) == {name: 100 + 2 * number for number, name in enumerate(NAMES)}
    assert vars(one) == {name: number for number, name in enumerate(NAMES)}
    assert sum((one, two), Counters()) == total
