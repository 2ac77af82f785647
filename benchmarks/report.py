"""The tables and the figure of the data benchmark, from its JSON alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers import OURS, PEERS

FLAT = 1.25
RECALL, PRECISION = 0.98, 0.99
FASTER_THAN_SHIPPED = 5.0


def write_report(folder: Path) -> None:
    """Write README.md beside the JSON."""
    parts = [
        "# Data benchmark\n\nWritten by `python benchmarks/data.py --report` from the JSON files "
        "beside it; how it is measured is told in `benchmarks/README.md`.\n"
    ]
    english, chinese = (_read(folder / f"compare-{name}.json") for name in ("en", "zh"))
    growth = _read(folder / "scale.json")
    parts.append(goals(english, chinese, growth))
    if english:
        parts.append(comparison(english, "English"))
    if chinese:
        parts.append(comparison(chinese, "Chinese"))
    if growth:
        parts.append(growth_table(growth))
    (folder / "README.md").write_text("\n".join(parts), "utf-8")


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return found


def spread(values: Sequence[float], form: str = ",.1f") -> str:
    """Median, and least to largest in brackets."""
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return f"{middle} (one run)"
    return f"{middle} ({min(values):{form}} to {max(values):{form}})"


def median_of(facts: dict[str, Any], peer: str, key: str = "seconds") -> float:
    """The median over a tool's repetitions; 0 where it did not run."""
    values = [row[key] for row in facts.get("runs", ()) if row["peer"] == peer]
    return statistics.median(values) if values else 0.0


def scores_of(facts: dict[str, Any], peer: str) -> dict[str, Any]:
    """The scores of a tool's first repetition."""
    rows = [row for row in facts.get("runs", ()) if row["peer"] == peer]
    return rows[0]["scores"] if rows else {}


def goals(english: dict[str, Any], chinese: dict[str, Any], growth: dict[str, Any]) -> str:
    """Goal, measured, met: a table."""
    rows: list[tuple[str, str, bool | None]] = []
    ours = median_of(english, OURS)
    for peer, least in (("datatrove-shipped", FASTER_THAN_SHIPPED), ("daft", 1.0)):
        theirs = median_of(english, peer)
        ratio = theirs / ours if ours and theirs else None
        told = f"{ratio:.2f} times as fast" if ratio else "not measured"
        label = f"at least {least:g} times as fast as {PEERS[peer].label}"
        if least == 1.0:
            label = f"no slower than {PEERS[peer].label}"
        rows.append((label, told, ratio >= least if ratio else None))
    for name, facts in (("English", english), ("Chinese", chinese)):
        scores = scores_of(facts, OURS)
        for key, least in (("recall", RECALL), ("precision", PRECISION)):
            value = scores.get(key)
            told = "not measured" if value is None else f"{value:.4f}"
            met = None if value is None else value >= least
            rows.append((f"{name} near-duplicates: {key} at least {least}", told, met))
        if scores:
            wrong = scores["dose_errors"]
            rows.append((f"{name}: no dose variant taken for a duplicate",
                         f"{wrong} of {scores['dose_pairs']}", wrong == 0))  # fmt: skip
    sizes = _each(growth)
    if len(sizes) > 1:
        times = [median for _, median, _ in sizes]
        ratio = max(times) / min(times)
        label = f"time per document flat within 25 % from {sizes[0][0]:,} to {sizes[-1][0]:,}"
        rows.append((label, f"largest / least = {ratio:.2f}", ratio <= FLAT))
        start = start_of(growth)
        if start:
            net = [middle - start / size * 1e6 for size, middle, _ in sizes]
            ratio = max(net) / min(net)
            label = f"the same without the {start:.1f} s of starting and ending"
            rows.append((label, f"largest / least = {ratio:.2f}", ratio <= FLAT))
    lines = ["## Goals\n", "| goal | measured | met |", "|---|---|---|"]
    answer = {True: "yes", False: "**no**", None: "-"}
    lines += [f"| {label} | {told} | {answer[met]} |" for label, told, met in rows]
    return "\n".join(lines) + "\n"


def comparison(facts: dict[str, Any], title: str) -> str:
    """The tables of one corpus."""
    names = [name for name in PEERS if any(row["peer"] == name for row in facts["runs"])]
    ours = median_of(facts, OURS)
    repeats = max(row["repeat"] for row in facts["runs"])
    lines = [
        f"## {title}: {facts['documents']:,} documents, {facts['bytes'] / 1e6:,.0f} MB, "
        f"{facts['workers']} workers, {repeats} interleaved repetitions\n",
        _setting(facts),
        "| tool | does | seconds | times ours | documents/s | peak MB | peak RSS sum MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        rows = [row for row in facts["runs"] if row["peer"] == name]
        seconds = [row["seconds"] for row in rows]
        middle = statistics.median(seconds)
        ratio = f"{middle / ours:.2f}" if ours else "-"
        peer = PEERS[name]
        lines.append(
            f"| {peer.label} | {peer.does} | {spread(seconds)} | {ratio} | "
            f"{facts['documents'] / middle:,.0f} | {spread([r['pss_mb'] for r in rows], ',.0f')} | "
            f"{spread([r['rss_mb'] for r in rows], ',.0f')} |"
        )
    lines += ["", *_quality(facts, names), "", *_similarity(facts, names), ""]
    versions = "; ".join(
        f"{name}: " + ", ".join(f"{k} {v}" for k, v in facts["versions"][name].items())
        for name in names
    )
    return "\n".join([*lines, f"Versions: {versions}.", ""])


def _quality(facts: dict[str, Any], names: list[str]) -> list[str]:
    leaks = facts["language"] == "en"
    head = "| tool | recall | precision | exact copies | dose variants removed |"
    head += " contexts | bare questions | others flagged | filtered |" if leaks else ""
    lines = [head, "|" + "---|" * (9 if leaks else 5)]
    for name in names:
        s = scores_of(facts, name)
        row = (f"| {PEERS[name].label} | {_share(s['recall'])} ({s['near_pairs']}) | "
               f"{_share(s['precision'])} ({s['near_removed']}) | "
               f"{s['exact_found']} of {s['exact_copies']} | "
               f"{s['dose_errors']} of {s['dose_pairs']} |")  # fmt: skip
        if leaks:
            row += (f" {s['contexts_found']} of {s['contexts']} | "
                    f"{s['questions_found']} of {s['questions']} | "
                    f"{s['leaks_not_planted']} | {s['filtered']} |")  # fmt: skip
        lines.append(row)
    return lines


def _similarity(facts: dict[str, Any], names: list[str]) -> list[str]:
    bins = list(scores_of(facts, names[0])["by_similarity"])
    lines = ["Share of pairs of which one went, by their Jaccard similarity (from 0.8 on that is "
             "right, below it is a loss):\n",
             "| tool | " + " | ".join(bins) + " |", "|" + "---|" * (len(bins) + 1)]  # fmt: skip
    for name in names:
        found = scores_of(facts, name)["by_similarity"]
        cells = [
            f"{found[b]['removed'] / found[b]['pairs']:.3f} ({found[b]['pairs']})"
            if found[b]["pairs"] else "-" for b in bins
        ]  # fmt: skip
        lines.append(f"| {PEERS[name].label} | " + " | ".join(cells) + " |")
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _setting(facts: dict[str, Any]) -> str:
    about = facts["machine"]
    return (
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, "
        f"{about['system']}, Python {about['python']}. `{facts['command']}`\n"
    )


def _each(growth: dict[str, Any]) -> list[tuple[int, float, list[dict[str, Any]]]]:
    """(documents, median microseconds a document, runs), by size."""
    found = []
    for size, facts in sorted(growth.get("sizes", {}).items(), key=lambda item: int(item[0])):
        rows = facts["runs"]
        middle = statistics.median(row["seconds"] for row in rows) / int(size) * 1e6
        found.append((int(size), middle, rows))
    return found


def start_of(growth: dict[str, Any]) -> float:
    """Median seconds of a build of a hundred documents; 0 where it was not measured."""
    runs = growth.get("start", {}).get("runs", ())
    return statistics.median(row["seconds"] for row in runs) if runs else 0.0


def growth_table(growth: dict[str, Any]) -> str:
    """Time and memory at each size."""
    sizes = _each(growth)
    lines = [
        "## Ours, by size\n",
        _setting(next(iter(growth["sizes"].values()))),
        "| documents | MB | seconds | µs a document | against the least | "
        "µs without starting and ending | peak MB | peak RSS sum MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    least = min(middle for _, middle, _ in sizes)
    start = start_of(growth)
    for size, middle, rows in sizes:
        lines.append(
            f"| {size:,} | {growth['sizes'][str(size)]['bytes'] / 1e6:,.0f} | "
            f"{spread([r['seconds'] for r in rows])} | "
            f"{spread([r['seconds'] / size * 1e6 for r in rows], ',.0f')} | {middle / least:.2f} | "
            f"{middle - start / size * 1e6:,.0f} | "
            f"{spread([r['pss_mb'] for r in rows], ',.0f')} | "
            f"{spread([r['rss_mb'] for r in rows], ',.0f')} |"
        )
    return "\n".join([*lines, "", "![time and memory by size](scale.svg)", ""])


def plot(folder: Path) -> None:
    """scale.svg: microseconds a document and peak memory against the number of documents."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "medexpert"  # the same bytes for the same figures
    from matplotlib import pyplot

    sizes = _each(_read(folder / "scale.json"))
    if not sizes:
        return
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    x = [size for size, _, _ in sizes]
    times = [[r["seconds"] / n * 1e6 for r in rows] for n, _, rows in sizes]
    drawn = (
        (axes[0], "µs a document", times),
        (axes[1], "peak memory, MB", [[r["pss_mb"] for r in rows] for _, _, rows in sizes]),
    )
    for axis, label, values in drawn:
        middle = [statistics.median(v) for v in values]
        low = [m - min(v) for m, v in zip(middle, values, strict=True)]
        high = [max(v) - m for m, v in zip(middle, values, strict=True)]
        axis.errorbar(x, middle, yerr=(low, high), marker="o", capsize=3)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_xlabel("documents")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    figure.savefig(folder / "scale.svg", metadata={"Date": None})
    pyplot.close(figure)
