"""The plots of an ablation: accuracies with intervals, and differences with what was detectable."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert import manifest

if TYPE_CHECKING:
    from medexpert.evaluate.ablation import Line

INK, FAINT = "#1f4e79", "#9aa5b1"


def draw(found: Sequence[Line], out: Path) -> list[Path]:
    """OUT/accuracy.svg, and OUT/differences.svg when anything was compared."""
    measured = [line for line in found if line.accuracy is not None]
    compared = [line for line in found if line.difference is not None]
    files = [_write(_accuracies(measured), out / "accuracy.svg")]
    if compared:
        files.append(_write(_differences(compared), out / "differences.svg"))
    return files


def _axes(found: Sequence[Line], label: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.34 * len(found)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_yticks(range(len(found)), [f"{x.variant} · {x.strategy}" for x in found], fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color="#e3e7eb")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return figure, axes


def _accuracies(found: Sequence[Line]) -> Any:
    figure, axes = _axes(found, "accuracy, %, with its 95 % interval; small dots are seeds")
    for y, line in enumerate(found):
        a = line.accuracy
        assert a is not None
        axes.hlines(y, 100 * a.interval.low, 100 * a.interval.high, color=INK, linewidth=2)
        axes.plot(100 * a.accuracy, y, "o", color=INK)
        if a.seeds > 1:
            spots = [100 * value for value in a.per_seed]
            axes.plot(spots, [y + 0.22] * len(spots), ".", color=FAINT)
    return figure


def _differences(found: Sequence[Line]) -> Any:
    figure, axes = _axes(found, "difference from the reference, points; grey: too small to detect")
    axes.axvline(0, color=FAINT, linewidth=1)
    for y, line in enumerate(found):
        d = line.difference
        assert d is not None
        if d.detectable is not None:
            wide = 100 * d.detectable
            axes.barh(y, 2 * wide, left=-wide, height=0.5, color=FAINT, alpha=0.25)
        strong = line.holm is not None and line.holm < 0.05
        axes.hlines(y, 100 * d.interval.low, 100 * d.interval.high, color=INK, linewidth=2)
        axes.plot(100 * d.difference, y, "o", color=INK, markerfacecolor=INK if strong else "white")
    return figure


def _write(figure: Any, path: Path) -> Path:
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    manifest.write_text(path, target.getvalue())
    return path
