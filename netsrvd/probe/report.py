"""The results of a run: statistics of streams and targets, and what they mean."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from netsrvd.probe import statistics
from netsrvd.probe.settings import Protocol, Settings
from netsrvd.probe.statistics import Directions, Limit, Offset, Reordering, Summary
from netsrvd.probe.targets import Target
from netsrvd.probe.trips import Stamps, State, Stream, Trip

ALL_ANSWER, SOME_ANSWER, NONE_ANSWERS = 0, 1, 2
"""Exit statuses of a run."""

COUNTED = {Protocol.STAMP, Protocol.ECHOPLUS}
"""Protocols whose reflectors may count what they answer."""


class Figures(NamedTuple):
    """The figures of one stream, or of several together."""

    sent: int
    """Without those that were pending when the run was interrupted."""
    received: int
    lost: int
    """Without an answer in time, for whatever reason."""
    failed: int
    """Those of them that were not sent, or whose failure was reported."""
    duplicates: int
    answered_again: int
    """Those of them that the reflector has counted: the probe came to it more than once."""
    late: int
    unsolicited: int
    dropped: int
    """Answers that this host has dropped, since the prober was too slow to take them."""
    truncated: int
    damaged: int
    reordering: Reordering
    round_trip: Summary | None
    delay_variation: Summary | None
    """PDV of the round trips."""
    packet_variation: Summary | None
    """Amounts of IPDV of the round trips."""
    out: Summary | None
    """Delays to the reflector, as the clocks have them; as are `back`."""
    back: Summary | None
    out_variation: Summary | None
    """Amounts of IPDV on the way out. A constant difference of the clocks does not matter here."""
    back_variation: Summary | None
    reflector: Summary | None
    """Times in the reflector."""
    connect: Summary | None
    offset: Offset | None
    """What the reflector's clock is ahead."""
    synchronised: bool | None
    """Whether the reflector has always said that its clock is synchronised."""
    reflector_error_ns: int | None
    """The largest error of its clock that the reflector has stated."""
    directions: Directions | None
    stamps: Counter[str]
    """How many round trips are measured by stamps of the kernel and of the program."""
    ttls: Counter[int]
    dscps: Counter[int]
    reflector_ttls: Counter[int]
    reflector_dscps: Counter[int]
    addresses: Counter[str]
    """Where answers came from that was not the target."""
    errors: Counter[str]
    half_closes: Counter[str]
    forgotten: int
    """Probes that the statistics of times leave out, as there were too many."""

    @property
    def loss(self) -> float:
        """The share of probes that were lost, from 0 to 1."""
        return self.lost / self.sent if self.sent else 0.0


class StreamReport(NamedTuple):
    """The results of one stream."""

    stream: Stream
    figures: Figures
    differs: str
    """How it differs from the other streams to the same target; empty if it does not."""


class TargetReport(NamedTuple):
    """The results of one target."""

    target: Target
    streams: list[StreamReport]
    figures: Figures
    limit: Limit | None


class Report(NamedTuple):
    """The results of a run."""

    settings: Settings
    began_at: float
    """Of time.time()."""
    ended_at: float
    interrupted: bool
    most_late_seconds: float
    """How late a probe was sent at most."""
    targets: list[TargetReport]

    @property
    def status(self) -> int:
        """The exit status: whether all, some or none of the streams had an answer."""
        streams = [each for target in self.targets for each in target.streams]
        answered = [each for each in streams if each.figures.received]
        if not answered:
            return NONE_ANSWERS
        return ALL_ANSWER if len(answered) == len(streams) else SOME_ANSWER


def targets(settings: Settings, streams: Sequence[Stream]) -> list[TargetReport]:
    """Return the results of all targets, in the order of their streams."""
    by_target: dict[Target, list[Stream]] = {}
    for stream in streams:
        by_target.setdefault(stream.target, []).append(stream)
    return [_target(settings, target, own) for target, own in by_target.items()]


def _target(settings: Settings, target: Target, streams: list[Stream]) -> TargetReport:
    each = [figures(settings, [stream]) for stream in streams]
    compared = [
        (own.sent, own.lost, own.round_trip.median if own.round_trip else None) for own in each
    ]
    reports = [
        StreamReport(*parts)
        for parts in zip(streams, each, statistics.outliers(compared), strict=True)
    ]
    limit = None
    if not any(report.differs for report in reports):
        trips = sorted(
            (trip.sent_ns, trip.state is State.RECEIVED)
            for stream in streams
            for trip in stream.trips
            if trip.state in (State.RECEIVED, State.LOST)
        )
        limit = statistics.rate_limit(trips)
    together = each[0] if len(each) == 1 else figures(settings, streams)
    return TargetReport(target, reports, together, limit)


def figures(settings: Settings, streams: Sequence[Stream]) -> Figures:
    """Return the figures of streams to one target, together."""
    trips = [trip for stream in streams for trip in stream.trips]
    received = [trip for trip in trips if trip.state is State.RECEIVED]
    orders = [statistics.reordering(_arrivals(stream)) for stream in streams]
    reordered = sum(each.reordered for each in orders)
    variations = (
        statistics.packet_delay_variation([*_values(stream.trips, "round_trip_ns")])
        for stream in streams
    )
    errors = [trip.reflector_error_ns for trip in received if trip.reflector_error_ns is not None]
    said = {trip.reflector_synchronised for trip in received}
    lost = sum(stream.lost + stream.failed for stream in streams)
    return Figures(
        sent=sum(stream.sent - stream.pending for stream in streams),
        received=sum(stream.received for stream in streams),
        lost=lost,
        failed=sum(stream.failed for stream in streams),
        duplicates=sum(stream.duplicates for stream in streams),
        answered_again=sum(stream.answered_again for stream in streams),
        late=sum(stream.late for stream in streams),
        unsolicited=sum(stream.unsolicited for stream in streams),
        dropped=sum(stream.dropped for stream in streams),
        truncated=sum(trip.truncated for trip in received),
        damaged=sum(trip.damaged for trip in trips),
        reordering=Reordering(
            reordered,
            reordered / len(received) if received else 0.0,
            max((each.extent for each in orders), default=0),
        ),
        round_trip=statistics.summary(_values(received, "round_trip_ns")),
        delay_variation=statistics.summary(each for values in variations for each in values),
        packet_variation=_variation(streams, "round_trip_ns"),
        out=statistics.summary(_values(received, "out_ns")) if settings.has_times else None,
        back=statistics.summary(_values(received, "back_ns")) if settings.has_times else None,
        out_variation=_variation(streams, "out_ns"),
        back_variation=_variation(streams, "back_ns"),
        reflector=statistics.summary(_values(received, "reflector_ns")),
        connect=statistics.summary(trip.connect_ns for trip in received if trip.connect_ns),
        offset=None if settings.protocol is Protocol.ECHOPLUS else _offset(received),
        synchronised=None if said <= {None} else said <= {True, None},
        reflector_error_ns=max(errors, default=None),
        directions=_directions(settings, streams, lost),
        stamps=Counter({str(kind): sum(t.stamps is kind for t in received) for kind in Stamps}),
        ttls=Counter(trip.ttl for trip in received if trip.ttl is not None),
        dscps=Counter(trip.dscp for trip in received if trip.dscp is not None),
        reflector_ttls=Counter(t.reflector_ttl for t in received if t.reflector_ttl is not None),
        reflector_dscps=Counter(
            trip.reflector_dscp for trip in received if trip.reflector_dscp is not None
        ),
        addresses=Counter(trip.other_address for trip in received if trip.other_address),
        errors=Counter(trip.error for trip in trips if trip.error),
        half_closes=Counter(stream.half_close for stream in streams if stream.half_close),
        forgotten=sum(stream.forgotten for stream in streams),
    )


def _values(trips: Iterable[Trip], name: str) -> Iterator[float]:
    """Yield a value of each trip that was received and has it."""
    for trip in trips:
        if trip.state is State.RECEIVED and (value := getattr(trip, name)) is not None:
            yield value


def _arrivals(stream: Stream) -> list[int]:
    """Return the sequence numbers of a stream in the order of arrival."""
    received = [trip for trip in stream.trips if trip.state is State.RECEIVED]
    return [trip.sequence for trip in sorted(received, key=lambda trip: trip.arrival)]


def _variation(streams: Sequence[Stream], name: str) -> Summary | None:
    """Return the distribution of the amounts of IPDV."""
    return statistics.summary(
        abs(each)
        for stream in streams
        for each in statistics.inter_packet_delay_variation(
            [getattr(t, name) if t.state is State.RECEIVED else None for t in stream.trips]
        )
    )


def _offset(received: Sequence[Trip]) -> Offset | None:
    clocks = []
    for trip in received:
        sent, came = trip.times
        if trip.remote_clock:
            earliest, latest = trip.remote_clock
            clocks.append((sent, latest, earliest, came))
        elif trip.reflector_received_ns is not None and trip.reflector_sent_ns is not None:
            clocks.append((sent, trip.reflector_received_ns, trip.reflector_sent_ns, came))
    return statistics.clock_offset(clocks)


def _directions(settings: Settings, streams: Sequence[Stream], lost: int) -> Directions | None:
    """Return the loss each way, if a reflector has counted.

    STAMP counts for each session, which has ports of its own; UDPEchoPlus for each source address,
    or for all clients together: its count only helps where one stream is all there is. If probes
    come to the reflector more than once it counts more than there are. Probes whose answers were
    late are lost on neither way.
    """
    if settings.protocol not in COUNTED or any(stream.forgotten for stream in streams):
        return None
    if not lost:
        return Directions(0, 0, 0)
    if any(stream.answered_again for stream in streams):
        return None
    if settings.protocol is Protocol.ECHOPLUS and len(streams) > 1:
        return None
    found = []
    for stream in streams:
        counts = [
            (trip.sequence, trip.reflector_count)
            for trip in stream.trips
            if trip.reflector_count is not None
        ]
        known = statistics.directions(
            counts,
            stream.first_sequence,
            stream.sent - stream.pending,
            from_zero=settings.protocol is Protocol.STAMP,
        )
        if known is None:
            return None
        found.append(known)
    return Directions(*map(sum, zip(*found, strict=True)))
