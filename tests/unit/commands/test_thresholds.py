"""netsrvd.commands.thresholds"""

import pytest

from netsrvd.commands.thresholds import figures, read, read_range
from netsrvd.errors import UsageError


@pytest.mark.parametrize(
    ("text", "fine", "alerts"),
    [
        ("10", (0, 10), (-1, 10.5)),
        ("10:", (10, 1e9), (9.9, -1)),
        ("~:10", (-1e9, 10), (10.1,)),
        ("10:20", (10, 15, 20), (9, 21)),
        ("@10:20", (9, 21), (10, 15, 20)),
        ("-5:-1", (-5, -1), (-6, 0)),
        ("0.5", (0, 0.5), (0.51,)),
        (":10", (0, 10), (-1, 11)),
    ],
)
def test_ranges_are_those_of_monitoring_plugins(
    text: str, fine: tuple[float, ...], alerts: tuple[float, ...]
) -> None:
    """A value outside of the range is an alert, with @ one inside of it."""
    limits = read_range(text)
    assert not any(limits.alerts(value) for value in fine)
    assert all(limits.alerts(value) for value in alerts)


@pytest.mark.parametrize("text", ["", "x", ":", "@", "20:10", "1:2:3", "1e3", "nan", "~", "--1"])
def test_what_is_no_range_is_an_error(text: str) -> None:
    """The error shows the forms that there are."""
    with pytest.raises(UsageError, match=r"no range"):
        read_range(text)


@pytest.mark.parametrize("text", ["connections", "nothing=3", "=3", ""])
def test_a_threshold_names_a_figure(text: str) -> None:
    """The error names the figures."""
    with pytest.raises(UsageError, match="connections, refused, lost, lag"):
        read([text])


REPORT = {
    "connections": 4,
    "run": {"log_records_lost": 9, "tcp_lag": 0.25, "udp_lag": 0.0006},
    "totals": {"refused": {"access": 5}, "datagrams_refused": {"rate": 6, "port": 1}},
    "rates": [],
}


def test_in_the_first_minute_figures_are_those_since_the_start() -> None:
    """There is nothing to compare with yet."""
    assert figures(REPORT) == {"connections": 4, "refused": 12, "lost": 9, "lag": 0.25}


def test_later_they_are_those_of_the_last_minutes() -> None:
    """So what is long over is no alert for ever."""
    rates = [
        {"seconds": 60.0, "refused": 0.0, "log_records_lost": 0.0},
        {"seconds": 298.0, "refused": 0.5, "log_records_lost": 0.1},
    ]
    found = figures(REPORT | {"rates": rates})
    assert (found["refused"], found["lost"]) == (149, 30)
