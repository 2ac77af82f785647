"""Inline SVG charts. Drawn with placeholder colours that become the page's CSS variables, so that
one drawing reads well on light and dark paper. Text stays text (system fonts), nothing is fetched.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

INK, MUTED, GRID, PAPER = "#010203", "#020304", "#030405", "#040506"
SERIES = ("#100001", "#100002", "#100003", "#100004", "#100005", "#100006")
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"c{i}" for i, colour in enumerate(SERIES)
}
WIDTH = 9.0
"""Inches of a full-width chart: 648 pt."""


Arguments = ParamSpec("Arguments")


def _styled(draw: Callable[Arguments, str]) -> Callable[Arguments, str]:
    """Draw under our settings and leave matplotlib's own as they were."""

    @wraps(draw)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> str:
        import matplotlib as mpl

        with mpl.rc_context(_settings()):
            return draw(*args, **kwargs)

    return wrapped


@dataclass(frozen=True)
class Dot:
    """A value with its interval, in the unit of the axis; None = not measured."""

    value: float
    low: float
    high: float


@_styled
def stage_chart(
    points: Sequence[str],
    series: Mapping[str, Sequence[Dot | None]],
    majority: float | None,
    unit: str = "accuracy, %",
) -> str:
    """Value with interval at each point of the run, one colour a series; majority dashed."""
    figure = _figure(3.4)
    axes = figure.subplots()
    width = 0.12
    for index, (name, dots) in enumerate(series.items()):
        colour = SERIES[index % len(SERIES)]
        shift = (index - (len(series) - 1) / 2) * width
        known = [(x + shift, dot) for x, dot in enumerate(dots) if dot is not None]
        xs, ys = [x for x, _ in known], [dot.value for _, dot in known]
        below = [dot.value - dot.low for _, dot in known]
        above = [dot.high - dot.value for _, dot in known]
        axes.plot(xs, ys, color=colour, linewidth=1, alpha=0.45)
        axes.errorbar(
            xs,
            ys,
            yerr=[below, above],
            fmt="o",
            color=colour,
            ecolor=colour,
            elinewidth=1.6,
            capsize=3,
            markersize=6,
            label=name,
        )
        for x, y in zip(xs, ys, strict=True):
            # The first of several series is labelled on its left, clear of the others' whiskers.
            left = len(series) > 1 and index == 0
            axes.annotate(
                f"{y:.1f}",
                (x, y),
                xytext=(-7 if left else 7, 4),
                textcoords="offset points",
                ha="right" if left else "left",
                fontsize=9,
                color=colour,
            )
    if majority is not None:
        _majority_line(axes, majority)
    axes.set_xticks(range(len(points)), list(points), fontsize=10)
    axes.set_xlim(-0.5, len(points) - 0.5)
    axes.set_ylabel(unit)
    axes.grid(axis="y")
    if len(series) > 1:
        _legend(axes, ncols=len(series))
    return _svg(figure)


@_styled
def loss_chart(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Small multiples, one a stage: loss (thin) with its running mean, learning rate below."""
    figure = _figure(3.3)
    grid = figure.subplots(
        2, len(logs), squeeze=False, sharex="col", gridspec_kw={"height_ratios": [4, 1]}
    )
    for column, (stage, steps) in enumerate(logs.items()):
        xs = [event["step"] for event in steps]
        loss = [float(event.get("loss", "nan")) for event in steps]
        rate = [float(event.get("learning_rate", "nan")) for event in steps]
        top, bottom = grid[0][column], grid[1][column]
        colour = SERIES[column % len(SERIES)]
        top.plot(xs, loss, color=colour, linewidth=0.8, alpha=0.4)
        top.plot(xs, running_mean(loss, max(1, len(loss) // 25)), color=colour, linewidth=1.8)
        bottom.plot(xs, rate, color=MUTED, linewidth=1.2)
        bottom.set_ylim(bottom=0)
        bottom.set_yticks([0, max(rate)], ["0", f"{max(rate):.0e}"])
        top.set_title(stage, loc="left", fontsize=10.5, color=INK)
        bottom.set_xlabel("optimiser step")
        top.grid(axis="y")
        if column == 0:
            top.set_ylabel("loss, nats/token")
            bottom.set_ylabel("rate")
    return _svg(figure)


@_styled
def confusion_chart(
    cells: Mapping[tuple[str, str], Mapping[str, Mapping[str, int]]],
    rows: Sequence[str],
    columns: Sequence[str],
    labels: Sequence[str],
) -> str:
    """Small multiples (strategy down, point across): counts, tinted by share of the gold row."""
    from matplotlib.patches import Rectangle

    given = {p for matrix in cells.values() for row in matrix.values() for p in row}
    answers = [*labels, *sorted(given - {*labels})]
    figure = _figure(0.5 + 1.75 * len(rows))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            axes, matrix = grid[i][j], cells.get((row, column))
            for side in axes.spines.values():
                side.set_visible(False)
            if matrix is None:
                axes.set_axis_off()
                continue
            for y, gold in enumerate(labels):
                counts = [matrix.get(gold, {}).get(answer, 0) for answer in answers]
                for x, count in enumerate(counts):
                    share = count / max(1, sum(counts))
                    colour = SERIES[2] if gold == answers[x] else SERIES[1]
                    axes.add_patch(
                        Rectangle(
                            (x - 0.48, y - 0.46),
                            0.96,
                            0.92,
                            facecolor=colour,
                            alpha=0.06 + 0.6 * share,
                            linewidth=0,
                        )
                    )
                    axes.text(x, y, str(count), ha="center", va="center", fontsize=9.5, color=INK)
            axes.set_xlim(-0.55, len(answers) - 0.45)
            axes.set_ylim(len(labels) - 0.45, -0.55)
            axes.set_xticks(range(len(answers)), [_short(a) for a in answers], fontsize=8.5)
            axes.set_yticks(range(len(labels)), list(labels), fontsize=8.5)
            axes.tick_params(length=0)
            axes.set_title(_panel_title(row, column, rows), loc="left", fontsize=9.5, color=INK)
            axes.set_aspect("equal")
            if j == 0:
                axes.set_ylabel("gold")
            if i == len(rows) - 1:
                axes.set_xlabel("answered")
    return _svg(figure)


@_styled
def reliability_chart(
    bins: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    rows: Sequence[str],
    columns: Sequence[str],
) -> str:
    """Small multiples: accuracy against mean confidence of the ten equal-mass bins."""
    figure = _figure(0.55 + 2.15 * len(rows))
    grid = figure.subplots(len(rows), len(columns), squeeze=False)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            axes, entry = grid[i][j], bins.get((row, column))
            if not entry:
                axes.set_axis_off()
                continue
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
            xs, ys = [b["confidence"] for b in entry], [b["accuracy"] for b in entry]
            colour = SERIES[i % len(SERIES)]
            axes.vlines(xs, xs, ys, color=colour, linewidth=1, alpha=0.4)
            axes.plot(xs, ys, color=colour, linewidth=1, marker="o", markersize=4)
            axes.set_xlim(0, 1.03)
            axes.set_ylim(-0.03, 1.03)
            axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
            axes.set_aspect("equal")
            axes.grid()
            axes.set_title(_panel_title(row, column, rows), loc="left", fontsize=9.5, color=INK)
            if j == 0:
                axes.set_ylabel("share right")
            if i == len(rows) - 1:
                axes.set_xlabel("confidence")
    return _svg(figure)


@_styled
def coverage_chart(
    curves: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]],
    series: Sequence[str],
    columns: Sequence[str],
) -> str:
    """Small multiples, one a point: error rate against the share answered, a line a strategy."""
    figure = _figure(2.7)
    grid = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axes, column in zip(grid, columns, strict=True):
        for index, name in enumerate(series):
            spots = curves.get((name, column), ())
            axes.plot(
                [100 * spot["coverage"] for spot in spots],
                [100 * spot["risk"] for spot in spots],
                color=SERIES[index % len(SERIES)],
                linewidth=1.4,
                label=name,
            )
        axes.set_xlim(0, 103)
        axes.set_ylim(bottom=0)
        # Small at the right: the legend stands above on the left.
        axes.set_title(column, loc="right", fontsize=9.5, color=INK)
        axes.set_xlabel("answered, %")
        axes.grid(axis="y")
    grid[0].set_ylabel("errors, %")
    if len(series) > 1:
        _legend(grid[0], ncols=1)
    return _svg(figure)


@_styled
def forgetting_chart(
    points: Sequence[str], changes: Mapping[str, Sequence[float | None]], dashed: frozenset[str]
) -> str:
    """Change in bits per byte against the first point, in percent; `dashed` are replay sources."""
    figure = _figure(3.2)
    axes = figure.subplots()
    axes.axhline(0, color=MUTED, linewidth=1)
    for index, (source, values) in enumerate(changes.items()):
        known = [(x, y) for x, y in enumerate(values) if y is not None]
        axes.plot(
            [x for x, _ in known],
            [y for _, y in known],
            marker="o",
            markersize=4.5,
            linewidth=1.6,
            color=SERIES[index % len(SERIES)],
            label=source,
            linestyle=(0, (4, 2)) if source in dashed else "-",
        )
    axes.set_xticks(range(len(points)), list(points), fontsize=10)
    axes.set_xlim(-0.3, len(points) - 0.7)
    axes.set_ylabel(f"bits/byte against {points[0]}, %")
    axes.grid(axis="y")
    _legend(axes, ncols=min(4, len(changes)))
    return _svg(figure)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values up to each place (fewer at the start)."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means


def _majority_line(axes: Any, majority: float) -> None:
    """The share of the most frequent gold label, as a dashed line."""
    axes.axhline(majority, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"majority label {majority:.1f}",
        (1, majority),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8.5,
        color=MUTED,
    )


def _panel_title(row: str, column: str, rows: Sequence[str]) -> str:
    return column if len(rows) == 1 else f"{column} · {row}"


def _short(answer: str) -> str:
    return "none" if answer == "NO_ANSWER" else answer


def _legend(axes: Any, ncols: int) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=ncols,
        frameon=False,
        fontsize=9.5,
        labelcolor=INK,
        borderaxespad=0.1,
        handlelength=1.8,
    )


def _settings() -> Any:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "medexpert",
        "font.size": 9.5,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
    }


def _figure(height: float) -> Any:
    """A figure outside pyplot, so that nothing global is touched; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def _svg(figure: Any) -> str:
    """The drawing as an <svg> element that takes colours and fonts from the page."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    # "font: 700 9.5px 'DejaVu Sans', …" -> the size only; the family comes from the page.
    text = re.sub(r"font: (?:[\w-]+ )*?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    for colour, name in _NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text).strip()
