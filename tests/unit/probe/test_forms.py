"""The forms of output: netsrvd.probe.text, nagios, fping and live."""

import pytest

from netsrvd.errors import UsageError
from netsrvd.probe import fping, live, nagios, report, text
from netsrvd.probe.settings import Settings
from netsrvd.probe.targets import Target
from netsrvd.probe.trips import Stream, Trip

TARGET = Target("host.example", ("192.0.2.1", 7), "host.example:7")
MILLISECOND_NS = 1_000_000


def stream_of(*milliseconds: float | None, target: Target = TARGET) -> Stream:
    """Return a stream with these round trips, None for a loss."""
    stream = Stream(target, 1000)
    stream.source_port = 40000
    for each in milliseconds:
        trip = stream.begin(0, 0)
        if each is None:
            stream.lose(trip)
        else:
            trip.received_ns = round(each * MILLISECOND_NS)
            stream.receive(trip)
    return stream


def report_of(*streams: Stream) -> report.Report:
    """Return the report of streams."""
    settings = Settings(streams=len(streams))
    return report.Report(settings, 0.0, 1.0, False, 0.0, report.targets(settings, streams))


def lines(*streams: Stream) -> list[str]:
    """Return the summary of streams to one target."""
    found = report_of(*streams)
    return [*text.summary_lines(found, found.targets[0])]


def test_a_summary() -> None:
    """Counts and distributions of the sample are those worked out by hand."""
    assert lines(stream_of(1.0, 3.0, None, 2.0)) == [
        "--- host.example (192.0.2.1:7), udp ---",
        "4 sent, 3 received, 1 lost (25 %)",
        "milliseconds        min       mean     median        p95        p99        max  deviation",
        "round trip        1.000      2.000      2.000      2.900      2.980      3.000      1.000",
        "PDV               0.000      1.000      1.000      1.900      1.980      2.000      1.000",
        "IPDV              2.000      2.000      2.000      2.000      2.000      2.000      0.000",
        "stamps: program; times include its own delays",
    ]


def test_a_summary_without_answers() -> None:
    """Without answers there are counts alone."""
    assert lines(stream_of(None, None))[1:] == ["2 sent, 0 received, 2 lost (100 %)"]


def test_the_bad_path_has_a_mark() -> None:
    """Of sixteen streams the one that loses is marked in its line, at its port."""
    streams = [stream_of(*[1.0] * 40) for _ in range(15)]
    bad = stream_of(*[1.0, None] * 20)
    bad.source_port = 40007
    marked = [line for line in lines(*streams, bad) if "<-" in line]
    assert marked == [
        "40007       40     50 %      1.000      1.000      1.000      1.000  <- loses more"
    ]


def test_what_was_pending_is_not_counted() -> None:
    """A probe that waits for its answer when the run is interrupted is neither sent nor lost."""
    stream = stream_of(1.0)
    stream.begin(0, 0)
    assert lines(stream)[1] == "1 sent, 1 received, 0 lost (0 %)"


@pytest.mark.parametrize(
    ("answers", "status"),
    [(([1.0], [1.0]), 0), (([1.0], [None]), 1), (([None], [None]), 2), (([], []), 2)],
)
def test_the_status(answers: tuple[list[float | None], ...], status: int) -> None:
    """It tells whether all, some or none of the streams had an answer."""
    assert report_of(*(stream_of(*each) for each in answers)).status == status


@pytest.mark.parametrize("words", ["100,20%", "100,20", "0.5,0.1%"])
def test_thresholds(words: str) -> None:
    """Thresholds are a time and a share."""
    time, share = words.removesuffix("%").split(",")
    assert nagios.thresholds(words, "--warn") == (float(time), float(share))


@pytest.mark.parametrize("words", ["", "100", "100,", ",5%", "100ms,5%", "-1,5%", "1,2,3"])
def test_what_is_no_threshold(words: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError, match="expected MILLISECONDS,PERCENT%"):
        nagios.thresholds(words, "--warn")


def test_performance_data_names_targets(capsys: pytest.CaptureFixture[str]) -> None:
    """With several targets each value has the target in its label, and the worst one decides."""
    other = Target("192.0.2.2", ("192.0.2.2", 7))
    plugin = nagios.Nagios(None, None)
    found = report_of(stream_of(2.0), stream_of(None, target=other))
    plugin.finish(found)
    assert plugin.status(found) == nagios.CRITICAL
    data = capsys.readouterr().out.partition(" | ")[2]
    assert data == (
        "'host.example (192.0.2.1:7)_rtt'=2.000000ms;;;0 "
        "'host.example (192.0.2.1:7)_rtt_p99'=2.000000ms;;;0 "
        "'host.example (192.0.2.1:7)_loss'=0%;;;0;100 '192.0.2.2:7_loss'=100%;;;0;100\n"
    )


def test_fping_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    """Without -C the line of a target has the counts of fping."""
    form = fping.FPing(Settings(), quiet=True, times=False)
    stream = stream_of(0.5, 12.0, None, 250.0)
    form.start([stream])
    form.finish(report_of(stream))
    line = "host.example:7 : xmt/rcv/%loss = 4/3/25%, min/avg/max = 0.500/87.5/250\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("history", "shown"),
    [([], ""), ([5], "▁"), ([1, 8, None, 4], "▁█×▄"), ([None], "×"), ([7, 7], "▁▁")],  # noqa: RUF001
)
def test_blocks(history: list[int | None], shown: str) -> None:
    """Blocks go from the least to the most, a loss is a cross."""
    assert live.bars(history).plain == shown


def test_a_line_escapes_what_comes_from_outside() -> None:
    """An error's text cannot command the terminal."""
    trip = Trip(0, 0, 0)
    Stream(TARGET, 10).fail(trip, "bad\x1b[2J")
    assert text.outcome(trip, Settings()) == "failed: bad\\x1b[2J"
