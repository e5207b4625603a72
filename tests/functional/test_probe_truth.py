"""What `netsrvd probe` says of a path is what a relay on that path did, as the relay records it.

Both take the kernel's stamps of one clock. The relay's record begins when a request has left the
prober and ends when an answer leaves for it, so a round trip is never said to be shorter than it
was. All bounds are relative to the record; none depends on how fast anything is.
"""

import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import pytest

from tests.support import reflectors
from tests.support.impairment.path import (
    BALANCED,
    FAR,
    FAR6,
    FAR_MANY,
    Network,
    Way,
    bridged,
    has_netem,
    impaired,
    network,
    two_cables,
)
from tests.support.impairment.truth import RoundTrip, Truth
from tests.support.probing import Probed, differences_ns, probe

OTHER_PORT = 51_424
REFLECTORS = {
    "netsrvd": partial(reflectors.netsrvd, port=OTHER_PORT),
    "xinetd": reflectors.xinetd,
    "inetd": reflectors.inetd,
}

STAMP_REFLECTORS = {
    "netsrvd": partial(reflectors.netsrvd, service="stamp", stamp_stateful=True),
    "scapy": lambda space, _folder: reflectors.scapy_stamp(space, FAR),
}

FLOAT_NS = 1_000
"""What a time since 1900 in a double, as scapy has it, and a fraction of 32 bits may be wrong."""

MS = 1_000_000
COUNT = 40
FEW = ("--count=8", "--interval=0.005", "--timeout=2")
SINGLY = ("--count=4", "--interval=0.8", "--timeout=5")
"""Such that a segment is sent again before the next probe is due, and has one probe alone."""
SLOW = ("--count=8", "--interval=0.05", "--timeout=5")
MANY = (f"--count={COUNT}", "--interval=0.005", "--timeout=2")


@pytest.fixture(scope="module")
def between() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture(scope="module")
def port(between: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of this daemon's echo service."""
    with reflectors.netsrvd(between.responder, tmp_path_factory.mktemp("netsrvd")) as given:
        yield given


def losses(share: float, seed: int, delay_ns: int = MS) -> list[int | None]:
    """Return a plan that loses a share of the packets at random and none of the last ones."""
    chance = random.Random(seed)
    plan = [None if chance.random() < share else delay_ns for _ in range(COUNT - 2)]
    return [*plan, delay_ns, delay_ns]


def unanswered(truth: Truth) -> set[int]:
    """Return the sequence numbers of the requests to which no answer went to the prober."""
    return {each.echo_sequence for each in truth.echoes() if each.ns is None}


def true_arrivals(trips: Sequence[RoundTrip]) -> list[int]:
    """Return sequence numbers in the order in which the first answers went to the prober."""
    answered = [each for each in trips if each.sent_ns]
    return [each.echo_sequence for each in sorted(answered, key=lambda trip: trip.sent_ns[0])]


# --- loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REFLECTORS)
def test_lost_probes_are_those_that_the_path_lost(
    kind: str, between: Network, tmp_path: Path
) -> None:
    """Each probe is lost of which the relay lost the request or the answer, and no other, with
    this daemon's echo service, with xinetd's and with that of GNU inetutils.
    """
    with REFLECTORS[kind](between.responder, tmp_path) as port:
        there, back = Way(losses(0.2, 1)), Way(losses(0.1, 2))
        with impaired(between, tmp_path, there, back) as relay:
            probed = probe(between.prober, *MANY, f"{FAR}:{port}")
            truth = relay.stop()
    fates = Counter((each.way, each.fate) for each in truth.packets)
    assert fates["there", "lost"] > 0
    assert fates["back", "lost"] > 0
    assert probed.of_state("lost") == unanswered(truth)
    assert probed.figures["lost"] == len(unanswered(truth))
    assert probed.figures["loss"] == probed.figures["lost"] / COUNT


def test_a_path_without_losses_has_none(between: Network, port: int, tmp_path: Path) -> None:
    """Nothing is lost, doubled, reordered, truncated or limited where the relay only delays."""
    with impaired(between, tmp_path, Way([MS])) as relay:
        probed = probe(between.prober, *MANY, f"{FAR}:{port}")
        truth = relay.stop()
    figures = probed.figures
    assert not unanswered(truth)
    assert figures["received"] == COUNT
    assert not [figures[name] for name in ("lost", "failed", "duplicates", "truncated", "damaged")
                if figures[name]]  # fmt: skip
    assert figures["reordering"]["reordered"] == 0
    assert not figures["addresses"]
    assert probed.target["rate_limit"] is None


# --- duplicates and order -------------------------------------------------------------------------


def test_duplicates_are_counted(between: Network, port: int, tmp_path: Path) -> None:
    """Each further answer counts, whether the request or the answer was doubled."""
    there = Way([(MS, MS, MS), MS, MS, (MS, 2 * MS)] + [MS] * (COUNT - 4))
    back = Way([(0, MS)] + [0] * 2 * COUNT)
    with impaired(between, tmp_path, there, back) as relay:
        probed = probe(between.prober, *MANY, f"{FAR}:{port}")
        truth = relay.stop()
    true = {each.echo_sequence: len(each.sent_ns) - 1 for each in truth.echoes()}
    assert sum(true.values()) == 4
    said = {each["sequence"]: each.get("duplicates", 0) for each in probed.trips}
    assert said == true
    assert probed.figures["duplicates"] == 4
    assert probed.figures["lost"] == 0


def test_reordering_is_that_of_rfc_4737(between: Network, port: int, tmp_path: Path) -> None:
    """A packet is reordered if one with a higher number came before it, as in the record of the
    relay; its extent is how many came since the first such one.
    """
    chance = random.Random(3)
    plan = [MS + (30 * MS if chance.random() < 0.2 else 0) for _ in range(COUNT)]
    with impaired(between, tmp_path, Way(plan)) as relay:
        probed = probe(between.prober, *MANY, f"{FAR}:{port}")
        truth = relay.stop()
    arrivals = true_arrivals(truth.echoes())
    extents = [
        place - min(at for at, other in enumerate(arrivals) if other > number)
        for place, number in enumerate(arrivals)
        if max(arrivals[: place + 1]) > number
    ]
    assert len(extents) >= 3
    found = probed.figures["reordering"]
    assert found["reordered"] == len(extents)
    assert found["extent"] == max(extents)
    assert found["ratio"] == len(extents) / COUNT


# --- delay ----------------------------------------------------------------------------------------


JITTER = tuple(random.Random(4).randrange(MS, 9 * MS) for _ in range(COUNT))


@pytest.mark.parametrize("host", [FAR, FAR6], ids=["IPv4", "IPv6"])
def test_round_trips_are_exact_by_the_stamps_of_the_kernel(
    host: str, between: Network, port: int, tmp_path: Path
) -> None:
    """No round trip is said to be shorter than it was, and half of them are less than 15 us too
    long, whatever the relay and the reflector did; so is their median.
    """
    with impaired(between, tmp_path, Way(JITTER), Way([MS])) as relay:
        probed = probe(
            between.prober, *MANY, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        )
        truth = relay.stop()
    assert probed.figures["stamps"] == {"kernel": COUNT, "program": 0}
    differences = [*differences_ns(probed, truth)]
    assert len(differences) == COUNT
    assert min(differences) >= 0
    assert statistics.median(differences) < 15_000


def test_round_trips_by_stamps_of_the_program_are_longer(
    between: Network, port: int, tmp_path: Path
) -> None:
    """With --program-stamps the report says so; no round trip is shorter than it was."""
    with impaired(between, tmp_path, Way(JITTER)) as relay:
        probed = probe(between.prober, *MANY, "--program-stamps", f"{FAR}:{port}")
        truth = relay.stop()
    assert probed.figures["stamps"] == {"kernel": 0, "program": COUNT}
    differences = [*differences_ns(probed, truth)]
    assert len(differences) == COUNT
    assert min(differences) >= 0


def nearest(summary: dict[str, float], values: Sequence[float], error: float) -> None:
    """Check a summary against a sample each of whose values may be wrong by an error."""
    assert summary["samples"] == len(values)
    assert summary["least"] == pytest.approx(min(values), abs=error)
    assert summary["most"] == pytest.approx(max(values), abs=error)
    assert summary["mean"] == pytest.approx(statistics.fmean(values), abs=error)
    assert summary["median"] == pytest.approx(statistics.median(values), abs=error)
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert summary["p95"] == pytest.approx(cuts[94], abs=error)
    assert summary["p99"] == pytest.approx(cuts[98], abs=error)
    # a vector whose components are wrong by less than the error is less long or longer by its
    # length, and the deviation is that length by the root of n - 1
    factor = (len(values) / (len(values) - 1)) ** 0.5
    assert summary["deviation"] == pytest.approx(statistics.stdev(values), abs=factor * error)


def test_distributions_are_those_of_the_record(between: Network, port: int, tmp_path: Path) -> None:
    """Least, mean, median, percentiles and deviation of round trips, of their variation (PDV) and
    of the differences between neighbours (IPDV) are those that the record gives, within what single
    round trips differ from it.
    """
    with impaired(between, tmp_path, Way(JITTER), Way([MS])) as relay:
        probed = probe(between.prober, *MANY, f"{FAR}:{port}")
        truth = relay.stop()
    error = max(differences_ns(probed, truth))
    true = [each.ns for each in truth.echoes() if each.ns is not None]
    assert len(true) == COUNT
    nearest(probed.figures["round_trip"], true, error)
    nearest(probed.figures["delay_variation"], [each - min(true) for each in true], 2 * error)
    steps = [abs(after - before) for before, after in pairwise(true)]
    nearest(probed.figures["packet_variation"], steps, 2 * error)


def test_a_late_answer_is_no_loss_of_the_path(between: Network, port: int, tmp_path: Path) -> None:
    """A probe whose answer comes behind the time-out is lost, and its answer is counted as late."""
    plan = [400 * MS, 0, 0, 0, 0, 0, 0, 0]
    arguments = ("--count=8", "--interval=0.1", "--timeout=0.2")
    with impaired(between, tmp_path, Way(plan)) as relay:
        probed = probe(between.prober, *arguments, f"{FAR}:{port}")
        truth = relay.stop()
    late = {each.echo_sequence for each in truth.echoes() if (each.ns or 0) > 200 * MS}
    assert 0 in late
    assert probed.of_state("lost") == late
    assert probed.figures["late"] == len(late)


HALTED = """
from time import sleep
from netsrvd.probe.engine import Engine
def turn(self, until, turn=Engine._turn):
    sleep(0.5)
    return turn(self, until)
Engine._turn = turn
"""
"""The prober does not run for half a second whenever it begins to wait."""


@pytest.mark.parametrize("protocol", ["--udp", "--tcp"])
@pytest.mark.parametrize(("delay_ms", "is_late"), [(50, False), (300, True)])
def test_stamps_decide_what_is_late(
    protocol: str, delay_ms: int, *, is_late: bool, between: Network, port: int, tmp_path: Path
) -> None:
    """Of a prober that does not run for longer than the time-out, an answer that the kernel had in
    time is received, and one that came behind the time-out is lost.
    """
    plan = [0] * 2 * (protocol == "--tcp") + [delay_ms * MS]  # a connection is made at once
    arguments = (protocol, "--count=1", "--timeout=0.2", f"{FAR}:{port}")
    with impaired(between, tmp_path, Way([*plan, *[0] * 9])) as relay:
        probed = probe(between.prober, *arguments, planted=HALTED)
        truth = relay.stop()
    [trip] = truth.echoes()
    assert trip.ns is not None
    was_late = trip.ns > 200 * MS
    assert was_late >= is_late
    assert probed.figures["lost"] == probed.figures["late"] == was_late
    assert probed.figures["received"] == (not was_late)


# --- all at once ----------------------------------------------------------------------------------


def anything(chance: random.Random) -> Iterator[int | Sequence[int] | None]:
    """Yield what may happen to packets: losses, copies, and delays that reorder them."""
    while True:
        copies = [
            int(chance.expovariate(1 / MS)) + chance.randrange(40 * MS) * (chance.random() < 0.2)
            for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 2, 3)))
        ]
        yield copies or None


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("option", "host"), [("--poisson", FAR), ("--sweep=3", FAR6), ("--program-stamps", FAR)]
)
def test_all_that_can_happen_at_once(
    option: str, host: str, seed: int, between: Network, port: int, tmp_path: Path
) -> None:
    """On a path that loses, copies, delays and reorders at random, both ways, each stream has the
    losses, the order and at most the copies of the record, and no round trip is too short.
    """
    chance = random.Random(seed)
    there, back = (Way([*islice(anything(chance), 600)]) for _ in range(2))
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    arguments = ("--count=100", "--interval=0.005", "--timeout=2", option, target)
    with impaired(between, tmp_path, there, back) as relay:
        probed = probe(between.prober, *arguments)
        truth = relay.stop()
    for stream in probed.target["streams"]:
        own = [each for each in truth.echoes() if each.request.source_port == stream["source_port"]]
        true = {each.echo_sequence: each for each in own}
        received = [each for each in stream["round_trips"] if each["state"] == "received"]
        assert len(true) == 100
        assert {each["sequence"] for each in received} == {
            number for number, each in true.items() if each.ns is not None
        }
        for each in received:
            its = true[each["sequence"]]
            assert its.ns is not None
            assert each["round_trip_ns"] >= its.ns
            assert each.get("duplicates", 0) <= len(its.sent_ns) - 1
        arrivals = true_arrivals(own)
        reordered = sum(
            max(arrivals[:place]) > arrivals[place] for place in range(1, len(arrivals))
        )
        assert stream["statistics"]["reordering"]["reordered"] == reordered > 0
    assert probed.figures["duplicates"] > 0


# --- what packets look like -----------------------------------------------------------------------


@pytest.mark.parametrize("host", [FAR, FAR6], ids=["IPv4", "IPv6"])
def test_a_hole_in_the_mtu_shows(host: str, between: Network, port: int, tmp_path: Path) -> None:
    """Probes that fit are answered, and none that are a byte longer, with --dont-fragment."""
    headers = (40 if ":" in host else 20) + 8
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with impaired(between, tmp_path, Way(mtu=1400)) as relay:
        fits, falls = (
            probe(
                between.prober, *FEW, "--dont-fragment", f"--size={1400 - headers + more}", target
            )
            for more in (0, 1)
        )
        truth = relay.stop()
    assert Counter((each.length, each.fate) for each in truth.way("there")) == {
        (1400, "sent"): 8, (1401, "mtu"): 8
    }  # fmt: skip
    assert (fits.figures["received"], fits.figures["lost"], fits.status) == (8, 0, 0)
    assert (falls.figures["received"], falls.figures["lost"], falls.status) == (0, 8, 2)


def test_truncated_answers_are_counted(between: Network, port: int, tmp_path: Path) -> None:
    """Answers that the path has shortened are received and truncated, each with its length."""
    with impaired(between, tmp_path, back=Way(cut=40)) as relay:
        probed = probe(between.prober, *FEW, "--size=100", f"{FAR}:{port}")
        relay.stop()
    assert probed.figures["truncated"] == probed.figures["received"] == 8
    assert {(each["length"], each["truncated"]) for each in probed.trips} == {(40, True)}


@pytest.mark.parametrize("host", [FAR, FAR6], ids=["IPv4", "IPv6"])
def test_ttl_and_dscp_are_those_that_arrive(
    host: str, between: Network, port: int, tmp_path: Path
) -> None:
    """What the prober sets leaves it, and what it says of an answer is what the path has made of
    it: seven hops less and another DSCP.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with impaired(between, tmp_path, back=Way(hops=7, tos=0x28)) as relay:
        probed = probe(between.prober, *FEW, "--ttl=33", "--dscp=46", target)
        truth = relay.stop()
    assert {(each.ttl, each.tos >> 2) for each in truth.way("there")} == {(33, 46)}
    [ttl] = {each.ttl for each in truth.way("back")}
    assert probed.figures["ttls"] == {str(ttl - 7): 8}
    assert probed.figures["dscps"] == {"10": 8}


@pytest.mark.parametrize("kind", ["xinetd", "inetd"])
def test_an_answer_from_another_address_is_named(
    kind: str, between: Network, tmp_path: Path
) -> None:
    """xinetd and GNU inetd answer from the first address of their host whatever address was asked;
    the report names it.
    """
    with (
        REFLECTORS[kind](between.responder, tmp_path) as port,
        impaired(between, tmp_path) as relay,
    ):
        asked = FAR_MANY[4]
        probed = probe(between.prober, *FEW, f"{asked}:{port}")
        truth = relay.stop()
    assert {each.destination for each in truth.way("there")} == {asked}
    assert {each.source for each in truth.way("back")} == {FAR}
    answered = len(truth.way("back"))  # xinetd drops what waits meanwhile
    assert answered > 0
    assert probed.figures["addresses"] == {f"{FAR}:{port}": answered}


# --- each way by itself -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", STAMP_REFLECTORS)
def test_losses_each_way_are_told_apart(kind: str, between: Network, tmp_path: Path) -> None:
    """With STAMP the report has as many losses there and back as the relay, with this daemon and
    with packets that scapy has made; a probe is lost if either was.
    """
    there, back = Way(losses(0.3, 5)), Way(losses(0.1, 6))
    with (
        STAMP_REFLECTORS[kind](between.responder, tmp_path) as port,
        impaired(between, tmp_path, there, back) as relay,
    ):
        probed = probe(between.prober, *MANY, "--stamp", f"{FAR}:{port}")
        truth = relay.stop()
    fates = Counter((each.way, each.fate) for each in truth.packets)
    assert fates["there", "lost"] > fates["back", "lost"] > 0
    assert probed.of_state("lost") == {
        each.stamp_sequence for each in truth.stamps() if each.ns is None
    }
    directions = probed.figures["directions"]
    assert directions == {
        "out": fates["there", "lost"],
        "back": fates["back", "lost"],
        "undecided": 0,
    }


def test_echoplus_tells_losses_apart(between: Network, tmp_path: Path) -> None:
    """With UDPEchoPlus, too, the report has as many losses there and back as the relay."""
    there, back = Way([MS, *losses(0.3, 12)[1:]]), Way([MS, *losses(0.1, 13)[1:]])
    keys = {"service": "echoplus", "protocols": ["udp"], "port": OTHER_PORT}
    with (
        reflectors.netsrvd(between.responder, tmp_path, **keys) as port,
        impaired(between, tmp_path, there, back) as relay,
    ):
        probed = probe(between.prober, *MANY, "--echoplus", f"{FAR}:{port}")
        truth = relay.stop()
    fates = Counter((each.way, each.fate) for each in truth.packets)
    assert fates["there", "lost"] > fates["back", "lost"] > 0
    assert probed.figures["lost"] == fates["there", "lost"] + fates["back", "lost"]
    assert probed.figures["directions"] == {
        "out": fates["there", "lost"],
        "back": fates["back", "lost"],
        "undecided": 0,
    }


def test_late_answers_are_lost_on_neither_way(between: Network, tmp_path: Path) -> None:
    """A probe that is lost since its answer came behind the time-out is counted as late, and not
    among the losses of either way.
    """
    late = {2: 500 * MS, 5: 500 * MS}
    there = Way([late.get(place, delay) for place, delay in enumerate(losses(0.2, 14))])
    arguments = (f"--count={COUNT}", "--interval=0.025", "--timeout=0.4", "--stamp")
    with (
        STAMP_REFLECTORS["netsrvd"](between.responder, tmp_path) as port,
        impaired(between, tmp_path, there) as relay,
    ):
        probed = probe(between.prober, *arguments, f"{FAR}:{port}")
        truth = relay.stop()
    lost = sum(each.fate == "lost" for each in truth.packets)
    assert lost > 0
    assert probed.figures["late"] >= 2
    assert probed.figures["lost"] == lost + probed.figures["late"]
    assert probed.figures["directions"] == {"out": lost, "back": 0, "undecided": 0}


@pytest.mark.parametrize("way", ["there", "back"])
def test_doubled_probes_are_not_taken_for_lost_ones(
    way: str, between: Network, tmp_path: Path
) -> None:
    """Of probes that are doubled and lost the report has the losses each way if answers were
    doubled. If requests were it says how many the reflector has answered again, and of the losses
    that they are unknown: the reflector's count tells no probe from its double.
    """
    chance = random.Random(8)
    doubling: list[int | Sequence[int] | None] = [
        (MS, MS) if chance.random() < 0.3 else entry for entry in losses(0.2, 9)
    ]
    plans = {"there": losses(0.2, 10), "back": losses(0.2, 11)} | {way: doubling}
    calm = [MS] * 5  # for the last ones, as no double may come when the run is over
    with (
        STAMP_REFLECTORS["netsrvd"](between.responder, tmp_path) as port,
        impaired(
            between, tmp_path, *(Way([*plans[name][: COUNT - 5], *calm, *calm]) for name in plans)
        ) as relay,
    ):
        probed = probe(between.prober, *MANY, "--stamp", f"{FAR}:{port}")
        truth = relay.stop()
    fates = Counter((each.way, each.fate) for each in truth.packets)
    again = [sum(1 for each in trip.answers if each.sent_ns) for trip in truth.stamps()]
    assert probed.figures["answered_again"] == sum(each - 1 for each in again if each)
    assert (probed.figures["answered_again"] > 0) == (way == "there")
    assert probed.figures["duplicates"] > 0
    assert probed.figures["directions"] == (
        None
        if way == "there"
        else {"out": fates["there", "lost"], "back": fates["back", "lost"], "undecided": 0}
    )


@pytest.mark.parametrize("kind", STAMP_REFLECTORS)
def test_delays_each_way_are_those_of_the_record(
    kind: str, between: Network, tmp_path: Path
) -> None:
    """With STAMP the delays there and back are not shorter than the relay's, nor is a round trip
    without the time in the reflector shorter than both, and the clocks agree.
    """
    with (
        STAMP_REFLECTORS[kind](between.responder, tmp_path) as port,
        impaired(between, tmp_path, Way(JITTER), Way([MS])) as relay,
    ):
        probed = probe(between.prober, *MANY, "--stamp", f"{FAR}:{port}")
        truth = relay.stop()
    trips = {each["sequence"]: each for each in probed.trips}
    true = {each.stamp_sequence: each for each in truth.stamps()}
    assert len(true) == COUNT == probed.figures["received"]
    for sequence, its in true.items():
        said = trips[sequence]
        assert said["out_ns"] >= its.out_ns - FLOAT_NS
        assert said["back_ns"] >= its.back_ns - FLOAT_NS
        assert said["round_trip_ns"] >= its.out_ns + its.back_ns - 2 * FLOAT_NS
    offset = probed.figures["clock_offset"]
    assert offset["agree"]
    assert offset["least_ns"] <= FLOAT_NS
    assert offset["most_ns"] >= -FLOAT_NS


def test_the_kernel_stamps_at_both_ends(between: Network, tmp_path: Path) -> None:
    """With this daemon's reflector half of the delays there are less than 50 us longer than the
    relay's: it has the kernel's time of arrival.
    """
    with (
        STAMP_REFLECTORS["netsrvd"](between.responder, tmp_path) as port,
        impaired(between, tmp_path, Way(JITTER), Way([MS])) as relay,
    ):
        probed = probe(between.prober, *MANY, "--stamp", f"{FAR}:{port}")
        truth = relay.stop()
    true = {each.stamp_sequence: each.out_ns for each in truth.stamps()}
    differences = [each["out_ns"] - true[each["sequence"]] for each in probed.trips]
    assert len(differences) == COUNT
    assert statistics.median(differences) < 50_000


def test_another_clock_is_noticed(between: Network, tmp_path: Path) -> None:
    """If the reflector's clock is 3 s ahead the report has that offset, within the delays of the
    path, and says that the clocks do not agree.
    """
    with (
        reflectors.scapy_stamp(between.responder, FAR, ahead_seconds=3) as port,
        impaired(between, tmp_path, Way([2 * MS]), Way([MS])) as relay,
    ):
        probed = probe(between.prober, *FEW, "--stamp", f"{FAR}:{port}")
        truth = relay.stop()
    offset = probed.figures["clock_offset"]
    assert not offset["agree"]
    least = min(each.ns for each in truth.stamps() if each.ns)
    assert 3000 * MS - least <= offset["least_ns"] + FLOAT_NS
    assert offset["least_ns"] <= 3000 * MS + FLOAT_NS
    assert offset["most_ns"] >= 3000 * MS - FLOAT_NS


@pytest.mark.parametrize("kind", STAMP_REFLECTORS)
def test_the_ttl_that_arrives_is_told(kind: str, between: Network, tmp_path: Path) -> None:
    """A STAMP reflector tells the TTL with which a probe came: nine hops less than the 255 with
    which it left (RFC 8762, 4.2.1).
    """
    with (
        STAMP_REFLECTORS[kind](between.responder, tmp_path) as port,
        impaired(between, tmp_path, Way(hops=9), Way(hops=3)) as relay,
    ):
        probed = probe(between.prober, *FEW, "--stamp", f"{FAR}:{port}")
        truth = relay.stop()
    assert {each.ttl for each in truth.way("there")} == {255}
    [ttl] = {each.ttl for each in truth.way("back")}
    assert probed.figures["reflector_ttls"] == {"246": 8}
    assert probed.figures["ttls"] == {str(ttl - 3): 8}


# --- queues of the kernel -----------------------------------------------------------------------


QUEUES = {
    "tbf": (0, ("tbf", "rate", "2mbit", "burst", "3000", "limit", "9000")),
}
if has_netem():
    QUEUES["netem"] = (8 * MS, ("netem", "delay", "10ms", "2ms", "loss", "20%"))


@pytest.mark.parametrize("kind", QUEUES)
def test_a_queue_of_the_kernel_shows(kind: str, between: Network, port: int) -> None:
    """Where a queueing discipline on a middle hop drops and delays, as many probes are lost as it
    says to have dropped, and no round trip is shorter than its least delay.
    """
    least_ns, queue = QUEUES[kind]
    fast = ("--count=100", "--interval=0.001", "--timeout=2", "--size=1000")
    with bridged(between, *queue) as dropping:
        probed = probe(between.prober, *fast, f"{FAR}:{port}")
        dropped = dropping.dropped
    assert 0 < dropped < 100
    assert probed.figures["lost"] == dropped
    assert probed.figures["round_trip"]["least"] >= least_ns


def test_a_slow_link_shows_by_its_queue(between: Network, port: int) -> None:
    """At 1 Mbit/s no answer comes before the link can have carried all requests up to it."""
    byte_ns, burst, frame = 8000, 2000, 1000 + 28 + 14
    fast = ("--count=20", "--interval=0.001", "--timeout=5", "--size=1000")
    queue = ("tbf", "rate", "1mbit", "burst", str(burst), "limit", "100000")
    with bridged(between, *queue):
        probed = probe(between.prober, *fast, f"{FAR}:{port}")
    assert probed.figures["received"] == 20
    began_ns = probed.trips[0]["sent_at_ns"]
    for number, trip in enumerate(probed.trips, 1):
        carried_ns = (number * frame - burst) * byte_ns
        assert trip["sent_at_ns"] + trip["round_trip_ns"] - began_ns >= 0.98 * carried_ns


# --- the bad path among several -------------------------------------------------------------------


FIRST_PORT = 40_000
SWEEP = ("--sweep=16", f"--source-port={FIRST_PORT}")


def standing_out(probed: Probed) -> dict[int, str]:
    """Return the source ports that the report says to differ from the others, and how."""
    streams = probed.target["streams"]
    assert [each["source_port"] for each in streams] == [*range(FIRST_PORT, FIRST_PORT + 16)]
    return {each["source_port"]: each["differs"] for each in streams if each["differs"]}


@pytest.mark.parametrize(
    ("plan", "how"),
    [([None, *[50 * MS] * 3], "loses more"), ([150 * MS], "slower")],
    ids=["loss", "delay"],
)
def test_the_bad_path_among_sixteen_stands_out(
    plan: list[int | None], how: str, between: Network, port: int, tmp_path: Path
) -> None:
    """Of sixteen source ports those differ, in the way they do, that the relay sent on its bad path
    of sixteen, and no other.
    """
    way = Way(paths=16)
    bad = way.path_of(FIRST_PORT + 5)
    way = Way([50 * MS], plans={bad: plan}, paths=16)
    with impaired(between, tmp_path, way) as relay:
        probed = probe(between.prober, *MANY, *SWEEP, f"{FAR}:{port}")
        truth = relay.stop()
    on_it = {each.source_port for each in truth.way("there") if each.path == bad}
    assert FIRST_PORT + 5 in on_it
    assert standing_out(probed) == dict.fromkeys(on_it, how)


def test_a_bad_cable_of_two_shows_by_its_ports(tmp_path: Path) -> None:
    """Where the kernel spreads flows over two cables one of which loses all, exactly the source
    ports on that cable have no answer, and the exit status says that some have.
    """
    with (
        two_cables() as between,
        reflectors.netsrvd(between.responder, tmp_path) as port,
        impaired(between, tmp_path) as good,
        impaired(between, tmp_path, Way([None]), cable=1) as bad,
    ):
        probed = probe(between.prober, *FEW, *SWEEP, f"{BALANCED}:{port}")
        good.stop()
        truth = bad.stop()
    lost = {each.source_port for each in truth.way("there")}
    assert 0 < len(lost) < 16
    streams = probed.target["streams"]
    assert {each["source_port"] for each in streams if each["statistics"]["received"] == 0} == lost
    assert {each["statistics"]["lost"] for each in streams} == {0, 8}
    assert probed.status == 1


# --- TCP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", REFLECTORS)
def test_tcp_has_the_delay_of_the_path(kind: str, between: Network, tmp_path: Path) -> None:
    """The time to connect and each exchange have the delays of both directions, and no exchange is
    said to be shorter than the record.
    """
    with (
        REFLECTORS[kind](between.responder, tmp_path) as port,
        impaired(between, tmp_path, Way([20 * MS]), Way([10 * MS])) as relay,
    ):
        probed = probe(between.prober, *SLOW, "--tcp", f"{FAR}:{port}")
        truth = relay.stop()
    assert probed.figures["received"] == 8
    assert probed.figures["connect"]["least"] >= 30 * MS
    assert probed.figures["round_trip"]["least"] >= 30 * MS
    differences = [*differences_ns(probed, truth)]
    assert differences
    assert min(differences) >= 0


def test_tcp_hides_losses_and_shows_their_time(between: Network, port: int, tmp_path: Path) -> None:
    """A segment that the path loses is no loss: it is sent again, and its exchange takes longer by
    the time until then.
    """
    # One of three in a row has data: the others may be mere acknowledgements.
    plan = [MS] * 4 + [None] * 3 + [MS] * 100
    with impaired(between, tmp_path, Way(plan)) as relay:
        probed = probe(between.prober, *SINGLY, "--tcp", f"{FAR}:{port}")
        truth = relay.stop()
    there = truth.way("there")
    lost = next(each for each in there if each.fate == "lost" and each.payload)
    again = next(each for each in there if each.fate == "sent" and each.payload == lost.payload)
    assert probed.figures["lost"] == 0
    assert probed.figures["received"] == 4
    assert min(differences_ns(probed, truth)) >= 0
    waited_ns = again.arrived_ns - lost.arrived_ns
    assert max(each["round_trip_ns"] for each in probed.trips) >= waited_ns + MS


# --- limits of a reflector ------------------------------------------------------------------------


FAST = ("--count=300", "--interval=0.01", "--timeout=1")


LONG = ("--count=1000", "--interval=0.01", "--timeout=1")
"""The limit of the reflector still shows if the reflector is stopped for 0.2 s of these 10 s."""


def test_a_limit_of_the_reflector_is_recognised(between: Network, tmp_path: Path) -> None:
    """Of a reflector that answers 5 datagrams a second after a burst of 5 the report says so: with
    the answers of the relay's record, although the path lost nothing.
    """
    keys = {"unlimited": [], "datagram_rate": 5, "datagram_burst": 5, "port": OTHER_PORT}
    with (
        reflectors.netsrvd(between.responder, tmp_path, **keys) as port,
        impaired(between, tmp_path) as relay,
    ):
        limited = probe(between.prober, *LONG, f"{FAR}:{port}")
        truth = relay.stop()
    assert {each.fate for each in truth.packets} == {"sent"}
    assert limited.figures["lost"] > 50
    assert limited.figures["received"] == len(truth.way("back"))
    assert limited.target["rate_limit"]["per_second"] == pytest.approx(5, rel=0.15)


def test_a_path_that_loses_is_no_limit(between: Network, port: int, tmp_path: Path) -> None:
    """A path that loses as much at random is not taken for a limit of the reflector."""
    chance = random.Random(7)
    way = Way([None if chance.random() < 0.5 else 0 for _ in range(300)])
    with impaired(between, tmp_path, way) as relay:
        probed = probe(between.prober, *FAST, f"{FAR}:{port}")
        relay.stop()
    assert probed.figures["lost"] > 100
    assert probed.target["rate_limit"] is None
