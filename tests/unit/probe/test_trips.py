"""netsrvd.probe.trips: what becomes of probes."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.probe.echo import Echo
from netsrvd.probe.echoplus import EchoPlus
from netsrvd.probe.exchange import Exchange
from netsrvd.probe.stamp import Stamp
from netsrvd.probe.targets import Target
from netsrvd.probe.trips import NUMBERS, STEP_NS, Stamps, State, Stream, Trip

TARGET = Target("192.0.2.1", ("192.0.2.1", 7))

SECOND_NS = 1_000_000_000


def received(**changes: int) -> Trip:
    """Return a probe whose answer came after 1 ms; the kernel says 0.9 ms."""
    trip = Trip(0, 5 * SECOND_NS, 100 * SECOND_NS)
    trip.kernel_sent_ns = trip.sent_at_ns + 50_000
    trip.received_ns = trip.sent_ns + 1_000_000
    trip.received_at_ns = trip.sent_at_ns + 1_000_000
    trip.kernel_received_ns = trip.sent_at_ns + 950_000
    trip.state = State.RECEIVED
    for name, value in changes.items():
        setattr(trip, name, getattr(trip, name) + value)
    return trip


def test_the_kernels_stamps_are_taken() -> None:
    """With both stamps of the kernel the time is their difference."""
    trip = received()
    assert (trip.stamps, trip.round_trip_ns) == (Stamps.KERNEL, 900_000)


@pytest.mark.parametrize("name", ["kernel_sent_ns", "kernel_received_ns"])
def test_one_stamp_is_none(name: str) -> None:
    """Without one of the two the time is the program's, and it says so."""
    trip = received()
    setattr(trip, name, 0)
    assert (trip.stamps, trip.round_trip_ns) == (Stamps.PROGRAM, 1_000_000)


@pytest.mark.parametrize("step", [-SECOND_NS, -STEP_NS, STEP_NS, SECOND_NS])
def test_a_step_of_the_clock_does_not_matter(step: int) -> None:
    """If CLOCK_REALTIME was stepped meanwhile, the time is that of CLOCK_MONOTONIC."""
    trip = received(kernel_received_ns=step, received_at_ns=step)
    assert (trip.stamps, trip.round_trip_ns) == (Stamps.PROGRAM, 1_000_000)


def test_the_reflectors_time_is_no_part_of_the_round_trip() -> None:
    """What the reflector takes is subtracted; delays each way are as the clocks have them."""
    trip = received()
    trip.reflector_received_ns = trip.kernel_sent_ns + 300_000 + 7 * SECOND_NS
    trip.reflector_sent_ns = trip.reflector_received_ns + 400_000
    assert trip.round_trip_ns == 500_000
    assert trip.reflector_ns == 400_000
    assert (trip.out_ns, trip.back_ns) == (300_000 + 7 * SECOND_NS, 200_000 - 7 * SECOND_NS)


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "answer", "lose", "fail"]), st.integers(0, 30)),
        max_size=200,
    )
)
def test_every_probe_is_counted_once(happenings: list[tuple[str, int]]) -> None:
    """Whatever comes in whatever order, counts agree with states, and each probe has one end."""
    stream = Stream(TARGET, most_kept=1000, first_sequence=1)
    for what, number in happenings:
        trip = stream.find(number)
        if what == "send":
            assert stream.begin(0, 0).sequence == stream.sent
        elif trip and what == "answer":
            pending = trip.state is State.PENDING
            assert stream.receive(trip) == pending
        elif trip and trip.state is State.PENDING:
            stream.lose(trip) if what == "lose" else stream.fail(trip, "no route")
    states = Counter(trip.state for trip in stream.trips)
    assert states[State.RECEIVED] == stream.received
    assert states[State.LOST] == stream.lost
    assert states[State.FAILED] == stream.failed
    assert states[State.PENDING] == stream.pending
    assert stream.duplicates == sum(trip.duplicates for trip in stream.trips)
    arrivals = sorted(t.arrival for t in stream.trips if t.state is State.RECEIVED)
    assert arrivals == [*range(stream.received)]


def test_old_probes_are_forgotten() -> None:
    """Of a long run the last probes are kept, and found by their numbers; counts are of all."""
    stream = Stream(TARGET, most_kept=10, first_sequence=5)
    for _ in range(1000):
        stream.lose(stream.begin(0, 0))
        assert len(stream.trips) < 20
    assert (stream.sent, stream.lost, stream.pending) == (1000, 1000, 0)
    assert stream.forgotten == 1000 - len(stream.trips)
    last = stream.find(1004)
    assert last is stream.trips[-1]
    assert stream.find(1005) is None
    assert stream.find(5) is None


@pytest.mark.parametrize(
    "exchange",
    [
        Echo(64, bytes(8)),
        EchoPlus(64, 7),
        Stamp(44, None, 0, None),
    ],
    ids=["echo", "echoplus", "stamp"],
)
def test_numbers_begin_again_after_32_bits(exchange: Exchange) -> None:
    """The probe after number 4294967295 has number 0 in packets, and its answer is found by it."""
    stream = Stream(TARGET, 1000, NUMBERS - 2)
    trips = [stream.begin(0, 0) for _ in range(4)]
    payloads = [exchange.request(trip.number, SECOND_NS) for trip in trips]
    assert [exchange.quoted(payload) for payload in payloads] == [NUMBERS - 2, NUMBERS - 1, 0, 1]
    assert [stream.find(trip.number) for trip in trips] == trips
    assert [trip.sequence for trip in trips] == [NUMBERS - 2 + index for index in range(4)]
    assert stream.find(NUMBERS - 3) is None
    assert stream.find(2) is None
