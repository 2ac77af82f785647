"""Measurements -> README.md of the training benchmark; made from the JSON lines alone."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from train_systems import SYSTEMS

FULL_GOALS = (("trl-full", 8.0), ("trl-bf16-full", 5.0))
SHARE_GOAL = 0.65
CURVE = 0.02
"""Losses of two systems at the same step may differ by so much: bf16 sums in another order."""


def write_report(folder: Path) -> None:
    """README.md from every file of the folder, smoke runs left out."""
    parts = ["# Training benchmark\n", "Made by `benchmarks/train.py` from the JSON lines here.\n"]
    for file in sorted(folder.glob("*.jsonl")):
        if not file.name.startswith("smoke"):
            lines = [json.loads(x) for x in file.read_text("utf-8").splitlines() if x.strip()]
            parts.append(section(lines[0], lines[1:]))
    if len(parts) > 2:
        (folder / "README.md").write_text("\n".join(parts), "utf-8")


def section(about: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """One work: its table, its goals, its losses."""
    work, place = about["work"], about["machine"]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for row in runs:
        by_name.setdefault(row["system"], []).append(row)
    lines = [
        f"## {work['model']} on {work['device']}\n",
        f"{place['processor']}, {place['cores']} cores, {place['memory_gb']} GB, "
        f"{place['system']}, Python {place['python']}. `{about['command']}`\n",
        f"Steps of {work['rows_per_step']} rows; {work['warmup']} not timed. LoRA of rank "
        f"{work['rank']} on all linear layers, no dropout. Median of the runs (least to most).\n",
        "| system | method | does | runs | tokens/s | of them with loss | times | peak MB | "
        "step losses |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, system in SYSTEMS.items():
        if name in by_name:
            lines.append(_row(system, by_name[name], by_name.get(f"ours-{system.method}", [])))
    lines += ["", *_shares(by_name), *_goals(by_name, work), *_curves(by_name)]
    versions: dict[str, str] = {}
    for name, rows in by_name.items():
        kind = SYSTEMS[name].label.split(",")[0]
        versions[kind] = ", ".join(f"{k} {v}" for k, v in rows[0]["versions"].items())
    told = "; ".join(f"{kind}: {value}" for kind, value in versions.items())
    return "\n".join([*lines, f"\nVersions: {told}.\n"])


def rate(row: dict[str, Any]) -> float:
    """Tokens a second of a run's timed steps."""
    found: float = row["tokens_per_step"] * len(row["seconds"]) / sum(row["seconds"])
    return found


def ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[float]:
    """Our speed as a multiple of theirs, in each turn that has both."""
    known = {row["repeat"]: rate(row) for row in theirs}
    return [rate(row) / known[row["repeat"]] for row in ours if row["repeat"] in known]


def share(row: dict[str, Any]) -> tuple[float, float]:
    """Of the measured matmul rate: by 6 x weights a token, and by all operations of the model."""
    rate_ = statistics.mean(row["matmul"])
    return 6 * row["weights"] * rate(row) / rate_, row["flops"] * rate(row) / rate_


def _row(system: Any, rows: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str:
    rates = [rate(row) for row in rows]
    part = rows[0]["loss_tokens_per_step"] / rows[0]["tokens_per_step"]
    times = ratio(ours, rows)
    peak = [row.get("peak_gpu_mb", row["peak_mb"]) for row in rows]
    losses = " ".join(f"{x:.3f}" for x in rows[0]["losses"])
    return (
        f"| {system.label} | {system.method} | {system.does} | {len(rows)} | {_spread(rates)} | "
        f"{statistics.median(rates) * part:,.0f} | {_spread(times, '.2f') if times else '-'} | "
        f"{_spread(peak)} | {losses} |"
    )


def _spread(values: list[float], form: str = ",.0f") -> str:
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)}-{format(max(values), form)})"


def _shares(by_name: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = []
    for name in ("ours-full", "ours-eager-full", "ours-lora", "ours-eager-lora"):
        if name in by_name:
            found = [share(row) for row in by_name[name]]
            rates = [statistics.mean(row["matmul"]) / 1e9 for row in by_name[name]]
            told = (
                f"- {name}: {_spread([100 * x[1] for x in found], '.1f')} % of the measured bf16 "
                f"matmul rate ({_spread(rates)} GFLOP/s before and after each run)"
            )
            if name.endswith("full"):
                told += f"; {_spread([100 * x[0] for x in found], '.1f')} % counted as 6 N a token"
            lines.append(told)
    return [*lines, ""]


def _goals(by_name: dict[str, list[dict[str, Any]]], work: dict[str, Any]) -> list[str]:
    if work["device"] != "cpu" or "ours-full" not in by_name:
        return []
    lines = ["| goal (full, CPU) | measured | met |", "|---|---|---|"]
    for name, wanted in FULL_GOALS:
        times = ratio(by_name["ours-full"], by_name.get(name, []))
        if times:
            middle = statistics.median(times)
            lines.append(f"| {wanted:g} times {SYSTEMS[name].label} | {middle:.2f} | "
                         f"{'yes' if middle >= wanted else '**no**'} |")  # fmt: skip
    middle = statistics.median(share(row)[0] for row in by_name["ours-full"])
    lines.append(f"| {SHARE_GOAL:.0%} of the matmul rate (6 N) | {middle:.1%} | "
                 f"{'yes' if middle >= SHARE_GOAL else '**no**'} |")  # fmt: skip
    return [*lines, ""]


def _curves(by_name: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "In the first steps at so small a rate a LoRA moves far less than a step of bf16. Compiled "
        "layers add it before they round, where it decides all halves; elsewhere it is rounded "
        "away (docs/log.md). In float32 compiled and plain losses agree.\n"
    ]
    for method in ("full", "lora"):
        ours = by_name.get(f"ours-{method}")
        for name, rows in by_name.items():
            if ours and SYSTEMS[name].method == method and not name.startswith("ours"):
                gap = max(abs(a - b) for a, b in zip(ours[0]["losses"], rows[0]["losses"],
                                                     strict=True))  # fmt: skip
                word = "agree" if gap <= CURVE else "**differ**"
                lines.append(f"- losses of {name} and ours {word}: at most {gap:.4f} apart")
    return lines
