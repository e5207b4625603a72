"""Draws the plots, as SVG."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tests.bench.figures import Figures, Spread
from tests.bench.growth import CONNECTIONS, COUNTS, DROPS, FREE, LOGS, SILENT, SPEEDS, WAITS
from tests.bench.peers import OWN, PEERS, REFERENCE
from tests.bench.scenarios import COMPARED, QUICK

STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters as letters: a fifth of the size
    "svg.hashsalt": "netsrvd",  # the same figures give the same file
}
COLOURS = {OWN: "#c2410c", REFERENCE: "#1e3a5f", "uvloop": "#5b8c5a"}
PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")


def draw_all(figures: Figures, folder: Path) -> None:
    """Draw what was measured into files of the folder."""
    mpl.use("svg")
    plots = {
        "churn": (_cost, "cost"),
        CONNECTIONS[1].name: (_connections, "connections"),
        LOGS["none"].name: (_log, "log"),
        FREE["tcp"].name: (_processes, "processes"),
    }
    with mpl.rc_context(STYLE):
        for needed, (draw, name) in plots.items():
            if needed in figures.samples:
                draw(figures)
                plt.savefig(folder / f"{name}.svg", metadata={"Date": None})
                plt.close()


def _plain(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.xaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_major_formatter(PLAIN)


def _cost(figures: Figures) -> None:
    """A panel for each scenario, a bar for each peer."""
    scenarios = [each for each in COMPARED if each in figures.samples]
    names = [peer.name for peer in reversed(PEERS) if peer.name in figures.samples[scenarios[0]]]
    _, panels = plt.subplots(
        1, len(scenarios), sharey=True, squeeze=False, figsize=(11, 0.6 + 0.22 * len(names))
    )
    for axes, scenario in zip(panels[0], scenarios, strict=True):
        for place, name in enumerate(names):
            if ratio := figures.ratio("server_us", scenario, name, REFERENCE):
                colour = COLOURS.get(name, "#9aa5b1")
                axes.barh(place, ratio.median, color=colour, left=0, log=True)
                axes.text(ratio.median, place, f" {ratio.median:.3g}", va="center", size=7)
        axes.axvline(1, color=COLOURS[REFERENCE], linewidth=0.8)
        axes.set(title=scenario, xlim=(0.5, 1000), yticks=range(len(names)), yticklabels=names)
        axes.set_title(scenario, size=8)
        axes.grid(axis="y")
        axes.xaxis.set_major_formatter(PLAIN)


def _curve(axes: Axes, points: dict[int, Spread | None], label: str, colour: str = "") -> None:
    """Draw the medians of what was measured, with their ends."""
    there = {x: spread for x, spread in points.items() if spread}
    middles = [spread.median for spread in there.values()]
    ends = [
        [spread.median - spread.low for spread in there.values()],
        [spread.high - spread.median for spread in there.values()],
    ]
    style = {"fmt": "o-", "markersize": 3, "linewidth": 1.2, "elinewidth": 0.8}
    axes.errorbar([*there], middles, ends, label=label, color=colour or None, **style)


def _connections(figures: Figures) -> None:
    _, axes = plt.subplots(figsize=(6, 3.2))
    for name in QUICK:
        costs = {
            count: figures.spread(scenario.name, name, "server_us")
            for count, scenario in CONNECTIONS.items()
        }
        _curve(axes, costs, name, COLOURS[name])
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    _plain(axes, "What a message costs", "busy connections, 64 B each", "CPU µs of the server")
    axes.legend()


def _log(figures: Figures) -> None:
    """A curve for each way to treat a full queue; the real journal and no log as lines across."""
    _, axes = plt.subplots(figsize=(6, 3.2))
    for name, colour in ((DROPS, COLOURS[OWN]), (WAITS, COLOURS[REFERENCE])):
        rates = {speed: figures.spread(LOGS[str(speed)].name, name, "rate") for speed in SPEEDS}
        _curve(axes, rates, name, colour)
        if rate := figures.spread(LOGS["journal"].name, name, "rate"):
            axes.axhline(rate.median, linestyle="--", color=colour, label=f"{name}, journal")
    if rate := figures.spread(LOGS["none"].name, SILENT, "rate"):
        axes.axhline(rate.median, linestyle=":", color="grey", label="no records")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    x = "records per second that the log takes, two a connection"
    _plain(axes, "What a slow log does", x, "connections per second")
    axes.legend()


def _processes(figures: Figures) -> None:
    _, axes = plt.subplots(figsize=(6, 3.2))
    for protocol in ("tcp", "udp"):
        rates = {
            count: figures.spread(FREE[protocol].name, f"{count} instances", "rate")
            for count in COUNTS
        }
        _curve(axes, rates, f"instances, {protocol.upper()}")
    axes.set_ylim(bottom=0)
    axes.set_xticks(COUNTS)
    _plain(axes, "What more of them do", "how many", "messages per second")
    axes.legend()
