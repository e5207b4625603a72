"""Draws the plots of a soak, as SVG."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.bench.plots import PLAIN, STYLE
from tests.soak.findings import Line, scraped

RED, BLUE, GREEN = "#c2410c", "#1e3a5f", "#5b8c5a"


def draw_all(samples: Sequence[Line], scrapes: Sequence[Line], began: float, folder: Path) -> None:
    """Draw memory, descriptors and connections over the minutes of the soak."""
    mpl.use("svg")
    with mpl.rc_context(STYLE | {"lines.linewidth": 1.0}):
        for name, draw in {"memory": _memory, "descriptors": _descriptors}.items():
            _, axes = plt.subplots(figsize=(8, 2.8))
            draw(axes, [each for each in samples if each["pid"]])
            _processes(axes, samples)
            _finish(axes, folder / f"{name}.svg")
        _, axes = plt.subplots(figsize=(8, 2.8))
        _connections(axes, [each for each in scrapes if "figures" in each], began)
        _finish(axes, folder / "connections.svg")


def _finish(axes: Axes, path: Path) -> None:
    axes.set_xlabel("minutes")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PLAIN)
    axes.legend(loc="lower right")
    plt.savefig(path, metadata={"Date": None})
    plt.close()


def _minutes(samples: Sequence[Line]) -> list[float]:
    return [each["s"] / 60 for each in samples]


def _processes(axes: Axes, samples: Sequence[Line]) -> None:
    """Mark where a new process was seen first."""
    pids = [each["pid"] for each in samples]
    for before, now, sample in zip(pids, pids[1:], samples[1:], strict=False):
        if now not in {0, before}:
            axes.axvline(sample["s"] / 60, color="grey", linewidth=0.4, alpha=0.6)


def _memory(axes: Axes, samples: Sequence[Line]) -> None:
    for name, label, colour in (("rss_kib", "VmRSS", RED), ("pss_kib", "Pss", BLUE)):
        mib = [each[name] / 1024 for each in samples]
        axes.plot(_minutes(samples), mib, color=colour, label=label)
    axes.set(title="Memory of the daemon's process", ylabel="MiB")


def _descriptors(axes: Axes, samples: Sequence[Line]) -> None:
    axes.plot(
        _minutes(samples), [s["descriptors"] for s in samples], color=RED, label="descriptors"
    )
    axes.set(title="Descriptors of the daemon's process", ylabel="descriptors")


def _connections(axes: Axes, scrapes: Sequence[Line], began: float) -> None:
    minutes = [(each["t"] - began) / 60 for each in scrapes]
    live = [scraped(each["figures"], "connections") for each in scrapes]
    axes.plot(minutes, live, color=GREEN, label="live, at each scrape")
    accepted = 0.0
    sums, last = [], 0
    for each in scrapes:
        now = scraped(each["figures"], "connections_accepted_total")
        accepted += now - last if now >= last else now
        last = now
        sums.append(accepted / 1000)
    axes.plot(minutes, sums, color=BLUE, label="accepted so far, thousands (between scrapes)")
    axes.set(title="Connections", ylabel="connections")
