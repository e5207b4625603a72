"""netsrvd.services.exposition: the texts of the metrics"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

from netsrvd.services.exposition import (
    LONGEST_ACCEPT,
    OPENMETRICS,
    PIECE_SAMPLES,
    PROMETHEUS,
    accepted,
    pieces,
)
from netsrvd.services.shown import Family
from tests.support.effort import in_proportion

FAMILIES = (
    Family("netsrvd_build_info", "info", "The version.", (((("version", "1.0"),), 1),)),
    Family("netsrvd_start_time_seconds", "gauge", "When it began.", (((), 1_800_000_000.25),)),
    Family(
        "netsrvd_connections_refused_total",
        "counter",
        "Connections refused.",
        (((("listener", "a"), ("reason", "rate")), 7), ((("listener", "b"), ("reason", "")), 0)),
    ),
    Family("netsrvd_flows", "gauge", "Flows.", ()),
)

TEXTS = st.text(st.characters(codec="utf-8"))

PLAIN = """\
# HELP netsrvd_build_info The version.
# TYPE netsrvd_build_info gauge
netsrvd_build_info{version="1.0"} 1
# HELP netsrvd_start_time_seconds When it began.
# TYPE netsrvd_start_time_seconds gauge
netsrvd_start_time_seconds 1800000000.25
# HELP netsrvd_connections_refused_total Connections refused.
# TYPE netsrvd_connections_refused_total counter
netsrvd_connections_refused_total{listener="a",reason="rate"} 7
netsrvd_connections_refused_total{listener="b",reason=""} 0
"""

OPEN = """\
# HELP netsrvd_build The version.
# TYPE netsrvd_build info
netsrvd_build_info{version="1.0"} 1
# HELP netsrvd_start_time_seconds When it began.
# TYPE netsrvd_start_time_seconds gauge
netsrvd_start_time_seconds 1800000000.25
# HELP netsrvd_connections_refused Connections refused.
# TYPE netsrvd_connections_refused counter
netsrvd_connections_refused_total{listener="a",reason="rate"} 7
netsrvd_connections_refused_total{listener="b",reason=""} 0
# EOF
"""


@pytest.mark.parametrize(("shape", "text"), [(PROMETHEUS, PLAIN), (OPENMETRICS, OPEN)])
def test_the_two_formats(shape: object, text: str) -> None:
    """A counter's family is named without its ending in OpenMetrics alone, which also knows `info`
    and ends with a mark; a family without samples has no line.
    """
    assert b"".join(pieces(FAMILIES, shape)).decode() == text


@pytest.mark.parametrize("shape", [PROMETHEUS, OPENMETRICS])
@given(value=TEXTS, text=TEXTS)
def test_any_text_may_be_a_label_or_a_help(shape: object, value: str, text: str) -> None:
    """Both parsers of prometheus-client read it as what it was."""
    family = Family("lab_total", "counter", text, (((("listener", value),), 1),))
    read = read_open if shape is OPENMETRICS else read_plain
    [found] = read(b"".join(pieces([family], shape)).decode())
    [sample] = found.samples
    assert sample.labels == {"listener": value}


def many(count: int) -> list[Family]:
    samples = [((("listener", f"lab-{number}"),), number) for number in range(count)]
    return [Family(f"lab_{number}", "gauge", "A figure.", samples) for number in range(12)]


def test_a_text_is_made_in_pieces() -> None:
    """A piece ends with the family in which it reaches its number of samples."""
    found = list(pieces(many(PIECE_SAMPLES // 2), PROMETHEUS))
    assert len(found) == 6
    assert {piece.count(b"# TYPE") for piece in found} == {2}
    assert [*pieces(many(1), PROMETHEUS)] == [b"".join(pieces(many(1), PROMETHEUS))]
    assert [*pieces([], OPENMETRICS)] == [b"# EOF\n"]


def test_the_effort_grows_with_the_number_of_listeners() -> None:
    """Four times the listeners cost four times the steps."""
    assert in_proportion(lambda count: list(pieces(many(count), OPENMETRICS)))


OPENS = "application/openmetrics-text"


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (OPENS, True),
        (f"{OPENS};version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        (f"{OPENS};version=1.0.0;q=0.3, text/plain;q=0.5", False),
        (f"text/plain;q=0.3, {OPENS}; q=0.75", True),
        (f"{OPENS.upper()};Q=1", True),
        (f"{OPENS};q=0", False),
        (f"{OPENS};q=0.000, */*", False),
        (f"{OPENS};q=2", False),
        (f"{OPENS};q=nan", False),
        (f"{OPENS};q=-1", False),
        (f"{OPENS};q=1e5", False),
        (f"{OPENS};q=\u0660.\u0665", False),
        (f"{OPENS};q=0.{'1' * 5000}", False),
        (";;,,;q=1,=", False),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, is_open: bool) -> None:  # noqa: FBT001
    """OpenMetrics if the Accept header names it, unless it wants plain text more."""
    assert accepted(accept) is (OPENMETRICS if is_open else PROMETHEUS)


def test_only_the_beginning_of_a_long_accept_header_counts() -> None:
    """To take 16 KiB of commas apart would hold up other clients for 40 ms."""
    wanted = "application/openmetrics-text"
    assert accepted(f"{',' * (LONGEST_ACCEPT - len(wanted))}{wanted}") is OPENMETRICS
    assert accepted(f"{',' * LONGEST_ACCEPT}{wanted}") is PROMETHEUS
