"""Turns what was measured into the page that is read: Markdown with tables and plots."""

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Any

from tests.bench.cold import COLD
from tests.bench.figures import Figures, Spread, spread
from tests.bench.growth import ACCEPTS, BURSTS, FREE, LOGGED
from tests.bench.peers import LIMITS, ONE_LOOP, OWN, PEERS, REFERENCE, accepting
from tests.bench.scenarios import (
    COMPARED,
    LIMITED_SCENARIOS,
    SCENARIOS,
    START,
    TOGETHER_SCENARIOS,
    Scenario,
)
from tests.bench.targets import Target, earlier_targets, targets

PLOTS = "performance"
"""The folder of the plots, beside the page."""

BEGIN = "<!-- Written by `make bench` from here on. -->"
END = "<!-- Written by `make bench` up to here. -->"

WIDTH = 100
"""Characters of the lines of the page, tables excepted."""

QUANTILES = ("p50", "p99")

Lines = Iterator[str]


def spliced(prose: str, text: str) -> str:
    """Return the page with what stands between the two comments replaced."""
    before, _, rest = prose.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def page(document: dict[str, Any]) -> Lines:
    """Yield the lines of the whole report; a part that was not measured is left out."""
    figures = Figures(document["samples"])
    yield from conditions(document, figures)
    yield from section("Targets", target_lines(targets(figures)))
    yield from section("Earlier targets", target_lines(earlier_targets(figures)))
    parts = [
        ("CPU time of a message, as a ratio to C", ("churn",), summary_lines),
        ("Loads at the same time", TOGETHER_SCENARIOS, together_lines),
        ("Limits in force", LIMITED_SCENARIOS, limits_lines),
        ("Memory", (START,), memory_lines),
        ("Each connection logged twice", (LOGGED.name,), logged_lines),
        ("Accepts of a turn", (BURSTS.name,), accepts_lines),
        ("Cold start", (COLD,), cold_lines),
        ("Growth", (FREE["tcp"].name,), growth_lines),
    ]
    for title, scenarios, lines in parts:
        if any(scenario in figures.samples for scenario in scenarios):
            yield from section(title, lines(figures))
    for scenario in SCENARIOS:
        if scenario.name in figures.samples and len(scenario.loads) == 1:
            yield from section(f"`{scenario.name}`", scenario_lines(scenario, figures))
    if troubles := figures.troubles():
        yield from section("Failures and wrong answers", [f"- {each}" for each in troubles])
    yield from section("Versions", version_lines(document["versions"]))


def section(title: str, lines: Iterable[str]) -> Lines:
    """Yield a heading with what belongs below it."""
    yield from ("", f"### {title}", "", *lines)


def table(head: list[str], rows: Iterable[list[str]]) -> Lines:
    """Yield a table; all columns but the first are numbers."""
    yield f"| {' | '.join(head)} |"
    yield "|---" + "|--:" * (len(head) - 1) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def number(value: float) -> str:
    """Return three digits that matter, or all that stand before the point."""
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def shown(figure: Spread | None) -> str:
    """Return a median with its ends."""
    if figure is None:
        return "-"
    low, high = number(figure.low), number(figure.high)
    return number(figure.median) + (f" ({low} to {high})" if low != high else "")


def middle(figure: Spread | None) -> str:
    """Return a median."""
    return "-" if figure is None else number(figure.median)


# --- the parts ------------------------------------------------------------------------------


def conditions(document: dict[str, Any], figures: Figures) -> Lines:
    """Yield what must be known to read the rest."""
    machine = document["machine"]
    told = (
        f"{machine['date']}, commit {machine['commit']}: {machine['system']}, "
        f"Linux {machine['kernel']}, {machine['processor']} with {machine['cpus']} CPUs, "
        f"Python {machine['python']}; {document['rounds']} rounds of {document['seconds']:g} s, "
        f"{document['minutes']:.0f} minutes in all. "
    )
    if busy := figures.others_busy():
        told += (
            f"Programs that are no part of the bench took {busy.median:.2f} CPUs meanwhile, "
            f"at most {busy.high:.2f}."
        )
    yield from wrap(told, WIDTH)


def target_lines(found: list[Target]) -> Lines:
    """Yield the table of the targets."""
    yield from table(
        ["netsrvd", "compared with", "limit", "measured", "verdict"],
        (
            [
                each.work,
                each.reference or "-",
                limit_shown(each),
                shown(each.figure),
                each.verdict,
            ]
            for each in found
        ),
    )


def limit_shown(target: Target) -> str:
    """Return a limit with its direction, and the aim if there is one."""
    aim = f" (aim {target.aim:g})" if target.aim else ""
    return ("≥ " if target.at_least else "≤ ") + f"{target.limit:g}{aim}"


def summary_lines(figures: Figures) -> Lines:
    """Yield a line for each peer, a column for each scenario that all are measured under."""
    yield f"![CPU time of a message, as a ratio to C]({PLOTS}/cost.svg)"
    yield ""
    tried = {name for each in COMPARED for name in figures.samples.get(each, ())}
    names = [peer.name for peer in PEERS if peer.name in tried]
    rows = []
    for name in names:
        ratios = [figures.ratio("server_us", each, name, REFERENCE) for each in COMPARED]
        marks = [mark(figures, each, name) for each in COMPARED]
        cells = [middle(ratio) + sign for ratio, sign in zip(ratios, marks, strict=True)]
        if name == REFERENCE:
            cost = [figures.spread(each, name, "server_us") for each in COMPARED]
            cells = [f"{middle(each)} µs" for each in cost]
        rows.append([f"**{name}**" if name == OWN else name, *cells])
    yield from table(["", *COMPARED], rows)
    yield ""
    yield "\\* throttled by itself: neither it nor the load had much to do."
    yield "† failed, or answered wrongly."


def mark(figures: Figures, scenario: str, peer: str) -> str:
    """Return the sign of a figure that is not what it seems."""
    samples = figures.samples.get(scenario, {}).get(peer, {}).values()
    if any(each.get("failed") or each.get("errors") for each in samples):
        return " †"
    return " \\*" if samples and figures.bound(scenario, peer) == "waiting" else ""


def together_lines(figures: Figures) -> Lines:
    """Yield what several loads at once get, those that are named first and second.

    With a quiet side, which waits for each answer, the last column is its latency. Without one it
    is the sum of the rates.
    """
    columns = ["rate 1", "p50", "p99", "rate 2", "p50", "p99"]
    for scenario in SCENARIOS:
        if scenario.name not in TOGETHER_SCENARIOS or scenario.name not in figures.samples:
            continue
        last = "rates to one loop" if scenario.quiet is None else "quiet p50 to C"
        head = ["", *columns, "CPU µs", "CPU to C", last]
        rows = []
        for peer in (*scenario.among, *scenario.also):
            rounds = [sample["parts"] for sample in figures.rounds(scenario.name, peer).values()]
            parts = [
                middle(spread([parts[place][key] for parts in rounds]))
                for place in (0, 1)
                for key in ("rate", "p50_us", "p99_us")
            ]
            cost = figures.spread(scenario.name, peer, "server_us")
            to_c = figures.ratio("server_us", scenario.name, peer, REFERENCE)
            if scenario.quiet is None:
                ratio = figures.ratio("rate", scenario.name, peer, ONE_LOOP)
            else:
                ratio = figures.ratio("quiet_p50_us", scenario.name, peer, REFERENCE)
            rows.append([peer, *parts, middle(cost), shown(to_c), shown(ratio)])
        line = f"`{scenario.name}`: {scenario.about}. Messages a second, latencies in µs."
        yield from wrap(line, WIDTH)
        yield ""
        yield from table(head, rows)
        yield ""


def limits_lines(figures: Figures) -> Lines:
    """Yield what it costs that all limits of a source and access lists are in force."""
    rows = [
        [
            scenario,
            *(middle(figures.spread(scenario, peer, "server_us")) for peer in (OWN, LIMITS)),
            shown(figures.ratio("server_us", scenario, LIMITS, OWN)),
        ]
        for scenario in LIMITED_SCENARIOS
    ]
    head = ["", "netsrvd, CPU µs", "with limits", "ratio in one round"]
    yield from table(head, rows)


def accepts_lines(figures: Figures) -> Lines:
    """Yield how the number of accepts in a turn changes what established clients wait."""
    rows = []
    for accepts in ACCEPTS:
        peer = accepting(accepts).name
        rounds = figures.rounds(BURSTS.name, peer).values()
        rows.append([
            str(accepts),
            *(shown(figures.spread(BURSTS.name, peer, f"quiet_{key}_us")) for key in QUANTILES),
            shown(spread([sample["parts"][1]["rate"] for sample in rounds])),
            shown(spread([sample["parts"][1]["p99_us"] for sample in rounds])),
            shown(figures.spread(BURSTS.name, peer, "server_us")),
        ])  # fmt: skip
    yield from table(
        [
            "accepts a turn",
            "established: p50 µs",
            "p99 µs",
            "connections a second",
            "their p99 µs",
            "CPU µs",
        ],
        rows,
    )


def cold_lines(figures: Figures) -> Lines:
    """Yield how long a program takes from exec to its first answer."""
    rows = [
        [peer, shown(figures.spread(COLD, peer, "first_answer_ms"))]
        for peer in figures.samples[COLD]
    ]
    yield from table(["", "exec to the first answer, ms"], rows)


def memory_lines(figures: Figures) -> Lines:
    """Yield the memory after the start and for each idle connection."""
    places = [
        (START, "rss_mib"),
        (START, "pss_mib"),
        ("tcp crowd", "crowd"),
        ("tcp crowd", "crowd_kib"),
    ]
    rows = [
        [peer.name, *(middle(figures.spread(scenario, peer.name, key)) for scenario, key in places)]
        for peer in PEERS
        if figures.rounds(START, peer.name)
    ]
    head = ["", "RSS after the start, MiB", "PSS, MiB", "idle connections", "KiB each"]
    yield from table(head, rows)


def logged_lines(figures: Figures) -> Lines:
    """Yield the short connections with a real journal."""
    keys = ("rate", "server_us", "log_busy", "records_lost", "p50_us", "p99_us")
    rows = [
        [peer, *(shown(figures.spread(LOGGED.name, peer, key)) for key in keys)]
        for peer in figures.samples[LOGGED.name]
    ]
    head = ["", "per second", "CPU µs", "the journal's CPUs", "records lost", "p50 µs", "p99 µs"]
    yield from table(head, rows)


def growth_lines(_: Figures) -> Lines:
    """Yield the plots."""
    for name, title in (
        ("connections", "CPU time of a message against the number of connections"),
        ("log", "Connections per second against the speed of the log"),
        ("processes", "Throughput against instances"),
    ):
        yield f"![{title}]({PLOTS}/{name}.svg)"
        yield ""


def scenario_lines(scenario: Scenario, figures: Figures) -> Lines:
    """Yield every figure of one scenario, cheapest first."""
    yield f"{scenario.about[0].upper()}{scenario.about[1:]}."
    yield ""
    keys = ("server_us", "rate", "p50_us", "p99_us", "errors", "lost_percent")
    rows = []
    for peer in figures.samples[scenario.name]:
        found = {key: figures.spread(scenario.name, peer, key) for key in keys}
        ratio = figures.ratio("server_us", scenario.name, peer, REFERENCE)
        rate = figures.ratio("rate", scenario.name, peer, REFERENCE)
        cost = found["server_us"].median if found["server_us"] else float("inf")
        cells = [
            *(peer, shown(found["server_us"]), middle(ratio), middle(found["rate"]), middle(rate)),
            *(middle(found[key]) for key in keys[2:]),
            "" if scenario.is_latency else figures.bound(scenario.name, peer),
        ]
        rows.append((cost, cells))
    head = ["", "CPU µs", "to C", "rate/s", "to C", "p50 µs", "p99 µs", "errors", "lost %", "bound"]
    yield from table(head, (cells for _, cells in sorted(rows)))


def version_lines(versions: dict[str, str]) -> Lines:
    """Yield what was compared, and what was not there."""
    about = {peer.name: peer.about for peer in PEERS}
    for name, version in versions.items():
        line = f"- {name} ({about.get(name, '')}): {version or 'not installed'}"
        yield from wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
