"""netsrvd.probe.engine: when probes are sent, and when they are given up."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random

import pytest

from netsrvd.probe import engine as module
from netsrvd.probe.engine import Engine
from netsrvd.probe.report import Report
from netsrvd.probe.settings import Settings
from netsrvd.probe.targets import Target
from netsrvd.probe.trips import State, Stream, Trip

TARGET = Target("192.0.2.1", ("192.0.2.1", 7))

MS = 1_000_000
STALL_NS = 12 * MS
"""Three intervals, in which nothing is sent."""


class Clock:
    """A clock that goes on when the engine waits."""

    def __init__(self) -> None:
        self.now = 1_000 * MS

    def monotonic_ns(self) -> int:
        return self.now

    @property
    def turn_of(self) -> Callable[[Engine, int], bool]:
        """What replaces a method: a function, so that it is bound to its engine."""

        def turn(_engine: Engine, until: int) -> bool:
            self.now = max(self.now, until)
            return True

        return turn


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock, and what waits."""
    clock = Clock()
    monkeypatch.setattr(module, "monotonic_ns", clock.monotonic_ns)
    monkeypatch.setattr(Engine, "_turn", clock.turn_of)
    return clock


class FakeForm:
    """Remembers what was settled."""

    def __init__(self) -> None:
        self.settled: list[tuple[int, State]] = []

    def start(self, streams: list[Stream]) -> None:
        """Do nothing."""

    def settle(self, _stream: Stream, trip: Trip) -> None:
        self.settled.append((trip.sequence, trip.state))

    def notice(self, stream: Stream, text: str) -> None:
        """Do nothing."""

    def tick(self) -> None:
        """Do nothing."""

    def finish(self, report: Report) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class FakeProber:
    """Sends nothing; each probe is answered at once, or never."""

    def __init__(
        self, engine: Engine, clock: Clock, *, answers: bool = True, stalls: Sequence[int] = ()
    ) -> None:
        self._clock = clock
        self.stream = Stream(TARGET, 1000)
        self.sent_ns: list[int] = []
        self.expired: list[int] = []
        self.stop_at = -1
        self.stall_ns = STALL_NS
        self._engine, self._answers, self._stalls = engine, answers, stalls

    def send(self) -> None:
        trip = self.stream.begin(self._clock.now, 0)
        self.sent_ns.append(trip.sent_ns)
        self._engine.expect(self, trip)
        if self._answers:
            self.stream.receive(trip)
            self._engine.settled(self.stream, trip)
        if trip.sequence in self._stalls:
            self._clock.now += self.stall_ns
        if trip.sequence == self.stop_at:
            self._engine.stop()

    def on_ready(self, descriptor: int, events: int) -> None:
        """Do nothing."""

    def expire(self, trip: Trip) -> None:
        self.expired.append(trip.sequence)

    def finish(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing."""


@contextmanager
def engine(**changes: object) -> Iterator[tuple[Engine, FakeForm]]:
    """Give an engine whose interval and time-out are 4 ms."""
    usual: dict[str, object] = {"interval_seconds": 0.004, "timeout_seconds": 0.004}
    form = FakeForm()
    made = Engine(Settings(**usual | changes), form, Random(1))  # type: ignore[arg-type]
    try:
        yield made, form
    finally:
        made.close()


def test_each_stream_sends_its_probes(clock: Clock) -> None:
    """Each sends as many as were asked for, at its times, which are spread over the interval."""
    with engine(probe_count=3) as (made, form):
        probers = [FakeProber(made, clock) for _ in range(4)]
        start = clock.now
        made.run(probers)
    assert [prober.stream.received for prober in probers] == [3] * 4
    assert len(form.settled) == 12
    for index, prober in enumerate(probers):
        assert [sent - start for sent in prober.sent_ns] == [
            (index + 4 * number) * MS for number in range(3)
        ]
    assert made.most_late_ns == 0


def test_no_burst_after_a_stall(clock: Clock) -> None:
    """A prober that did not run for some intervals does not send the probes of all at once."""
    with engine(probe_count=8) as (made, _):
        prober = FakeProber(made, clock, stalls=(1, 4))
        start = clock.now
        made.run([prober])
    assert [(sent - start) // MS for sent in prober.sent_ns] == [0, 4, 16, 20, 24, 36, 40, 44]
    assert made.most_late_ns == 8 * MS


def test_short_intervals_are_made_up_for(clock: Clock) -> None:
    """With an interval of 0.5 ms the probes of a stall up to 2 ms follow at once, others do not."""
    with engine(probe_count=8, interval_seconds=0.0005) as (made, _):
        prober = FakeProber(made, clock, stalls=(1,))
        prober.stall_ns = 3 * MS // 2
        start = clock.now
        made.run([prober])
    late = [(sent - start) / MS for sent in prober.sent_ns]
    assert late == [0, 0.5, 2, 2, 2, 2.5, 3, 3.5]


def test_a_poisson_process_goes_on_after_a_stall(clock: Clock) -> None:
    """So does one whose gaps differ: no two probes at once."""
    with engine(probe_count=200, poisson=True) as (made, _):
        prober = FakeProber(made, clock, stalls=(10, 50, 100))
        made.run([prober])
    assert len({*prober.sent_ns}) >= 200 - 3


def test_probes_without_an_answer_are_lost(clock: Clock) -> None:
    """They are given up in the order of sending, after the time-out."""
    with engine(probe_count=4) as (made, form):
        prober = FakeProber(made, clock, answers=False)
        made.run([prober])
    assert form.settled == [(number, State.LOST) for number in range(4)]
    assert prober.expired == [0, 1, 2, 3]
    assert prober.stream.lost == 4
    assert clock.now - prober.sent_ns[-1] == 4 * MS


def test_a_stop_leaves_probes_pending(clock: Clock) -> None:
    """After `stop` nothing more is sent, and what waits for its answer is not lost."""
    with engine(probe_count=0, timeout_seconds=60.0) as (made, form):
        prober = FakeProber(made, clock, answers=False)
        prober.stop_at = 2
        made.run([prober])
    assert made.stopped
    assert (prober.stream.sent, prober.stream.pending, form.settled) == (3, 3, [])


def test_a_duration_ends_the_sending(clock: Clock) -> None:
    """Nothing is due after the duration."""
    with engine(probe_count=0, duration_seconds=0.01) as (made, _):
        prober = FakeProber(made, clock)
        made.run([prober])
    assert prober.stream.sent == 3


@pytest.mark.parametrize("poisson", [False, True])
def test_intervals(poisson: bool) -> None:  # noqa: FBT001 - pytest's
    """Due times have the interval between them, or the gaps of a Poisson process with that mean."""
    with engine(poisson=poisson) as (made, _):
        gaps = [made._gap() / MS for _ in range(10_000)]
    assert sum(gaps) / len(gaps) == pytest.approx(4, rel=0.05)
    shares = sorted(gaps)
    if poisson:
        assert shares[5000] == pytest.approx(4 * 0.693, rel=0.05)
    else:
        assert {*gaps} == {4}
