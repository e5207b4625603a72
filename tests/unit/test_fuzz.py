"""The targets of tests/fuzz: parsers of bytes from outside keep their promise, whatever comes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

DATA = Path(__file__).parents[1] / "data/fuzz"
SEEDS = sorted(DATA.glob("*/*"))
BY_TARGET = {name: [seed for seed in SEEDS if seed.parent.name == name] for name in TARGETS}

MOST_SEEDS, LONGEST_SEED = 60, 2048


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.parent.name}-{seed.name}")
def test_the_promise_holds_for_what_once_was_of_interest(seed: Path) -> None:
    """Each seed gives a value or the one named error: what broke a promise once does so no more."""
    TARGETS[seed.parent.name](seed.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_the_promise_holds_for_what_is_put_together(name: str, data: st.DataObject) -> None:
    """So does whatever is made of the pieces of seeds, with some bytes of any kind between them."""
    pieces = st.sampled_from([seed.read_bytes() for seed in BY_TARGET[name]])
    one, two = data.draw(pieces), data.draw(pieces)
    end, start = data.draw(st.integers(0, len(one))), data.draw(st.integers(0, len(two)))
    TARGETS[name](one[:end] + data.draw(st.binary(max_size=4)) + two[start:])


def test_every_target_has_its_seeds_and_every_seed_its_target() -> None:
    """The folder of seeds is small, and nothing in it belongs to nobody."""
    assert {seed.parent.name for seed in SEEDS} == {*TARGETS}
    assert max(map(len, BY_TARGET.values())) <= MOST_SEEDS
    assert all(seed.stat().st_size < LONGEST_SEED for seed in SEEDS)
