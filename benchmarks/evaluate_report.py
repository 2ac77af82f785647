"""Measurements -> README.md of the evaluation benchmark; made from the JSON lines alone."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from evaluate_systems import SYSTEMS
from measure import lines

DIRECT_GOALS = (
    ("direct-ours", "direct-lm-eval", 2.0),
    ("direct-ours-bf16", "direct-lm-eval-bf16", 3.0),
)
VOC_GOAL, TOKEN_GOAL = 4.0, 1300
Runs = dict[str, list[dict[str, Any]]]


def write_report(folder: Path) -> None:
    """README.md from every file of the folder, short runs left out."""
    parts = [
        "# Evaluation benchmark\n",
        "Made by `benchmarks/evaluate.py` from the JSON lines here.\n",
    ]
    for file in sorted(folder.glob("*.jsonl")):
        if not file.name.startswith("short-"):
            held = lines(file)
            parts.append(section(held[0], held[1:]))
    if len(parts) > 2:
        (folder / "README.md").write_text("\n".join(parts), "utf-8")


def section(about: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """One work: its tables and its goals."""
    work, place = about["work"], about["machine"]
    by_name: Runs = {name: [r for r in runs if r["system"] == name] for name in SYSTEMS}
    by_name = {name: rows for name, rows in by_name.items() if rows}
    told = [
        f"## {TITLES[work['part']]}: {work['model']}, {work['questions']} questions of "
        f"{work['source']}\n",
        f"{place['processor']}, {place['cores']} cores, {place['memory_gb']} GB, "
        f"{place['system']}, Python {place['python']}. `{about['command']}`\n",
        "Loading the model is not timed. Median of the runs (least to most).\n",
    ]
    told += {"direct": direct, "voc": voc, "growth": growth}[work["part"]](by_name, work)
    versions = {
        SYSTEMS[name].label: ", ".join(
            f"{k} {v}" for k, v in {**rows[0].get("server", {}), **rows[0]["versions"]}.items()
        )
        for name, rows in by_name.items()
    }
    told.append("\nVersions: " + "; ".join(f"{k}: {v}" for k, v in versions.items()) + ".\n")
    return "\n".join(told)


TITLES = {
    "direct": "Direct label scores",
    "voc": "Verification-of-Choice",
    "growth": "Growth of Verification-of-Choice",
}


def times(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[float]:
    """Our speed as a multiple of theirs, in each turn that has both."""
    known = {row["repeat"]: row["seconds"] for row in theirs}
    return [known[row["repeat"]] / row["seconds"] for row in ours if row["repeat"] in known]


def direct(by_name: Runs, work: dict[str, Any]) -> list[str]:
    """The table of label scoring; scores are held against ours in the same precision."""
    told = [
        "| system | does | runs | seconds | questions/s | our speed, times | peak MB | "
        "predictions as ours | largest difference of a score |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in by_name.items():
        ours = by_name.get("direct-ours-bf16" if "bf16" in name else "direct-ours", [])
        same, gap = _agreement(ours, rows)
        seconds = [row["seconds"] for row in rows]
        ratio = times(ours, rows)
        told.append(
            f"| {SYSTEMS[name].label} | {SYSTEMS[name].does} | {len(rows)} | "
            f"{spread(seconds, ',.1f')} | {work['questions'] / statistics.median(seconds):.2f} | "
            f"{spread(ratio, '.2f')} | {spread([r['peak_mb'] for r in rows])} | {same} | {gap} |"
        )
    goals = [
        _goal(f"{wanted:g} times {SYSTEMS[other].label}, {SYSTEMS[other].does}",
              times(by_name.get(mine, []), by_name.get(other, [])), wanted)
        for mine, other, wanted in DIRECT_GOALS
    ]  # fmt: skip
    return [*told, "", *_goals(goals)]


def _agreement(ours: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[str, str]:
    """(equal predictions of all, largest difference of a log-probability) of the first runs."""
    if not ours:
        return "-", "-"
    mine, other = ours[0]["scores"], rows[0]["scores"]
    same = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(mine, other, strict=True))
    gap = max(
        abs(x - y) for a, b in zip(mine, other, strict=True) for x, y in zip(a, b, strict=True)
    )
    return f"{same} of {len(mine)}", f"{gap:.1e}"


def voc(by_name: Runs, work: dict[str, Any]) -> list[str]:
    """The table of VoC: speed, and tokens a question as the engines count them."""
    count = work["questions"]
    ours = by_name.get("voc-ours", [])
    told = [
        "| system | does | runs | seconds a question | our speed, times | prompt tokens | "
        "encoded | written | peak MB | predictions as ours |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in by_name.items():
        usage = rows[0]["usage"]
        each = {
            k: usage[k] / count for k in ("prompt_tokens", "prefilled_tokens", "generated_tokens")
        }
        pairs = zip(rows[0]["predictions"], ours[0]["predictions"] if ours else [], strict=False)
        same = sum(a == b for a, b in pairs)
        told.append(
            f"| {SYSTEMS[name].label} | {SYSTEMS[name].does} | {len(rows)} | "
            f"{spread([r['seconds'] / count for r in rows], '.2f')} | "
            f"{spread(times(ours, rows), '.2f')} | {each['prompt_tokens']:,.0f} | "
            f"{each['prefilled_tokens']:,.0f} | {each['generated_tokens']:,.0f} | "
            f"{spread([r['peak_mb'] for r in rows])} | {same} of {count} |"
        )
    goals = [_goal(f"{VOC_GOAL:g} times the questions/s of the same prompts one by one",
                   times(ours, by_name.get("voc-naive", [])), VOC_GOAL)]  # fmt: skip
    if ours:
        tokens = total(ours[0]["usage"]) / count
        met = "yes" if tokens <= TOKEN_GOAL else "**no**"
        goals.append(f"| at most {TOKEN_GOAL:,} tokens a question | {tokens:,.0f} | {met} |")
    return [*told, "", *_goals(goals)]


def growth(by_name: Runs, work: dict[str, Any]) -> list[str]:
    """Seconds and tokens a question by the number of choices and the length of a rationale."""
    told = ["| choices | tokens of a rationale, at most | seconds a question | encoded | written |",
            "|---|---|---|---|---|"]  # fmt: skip
    rows = by_name.get("growth-ours", [])
    for number, cell in enumerate(rows[0]["cells"] if rows else ()):
        count = cell["questions"]
        seconds = [row["cells"][number]["seconds"] / count for row in rows]
        told.append(
            f"| {cell['choices']} | {cell['max_tokens']} | {spread(seconds, '.2f')} | "
            f"{cell['usage']['prefilled_tokens'] / count:,.0f} | "
            f"{cell['usage']['generated_tokens'] / count:,.0f} |"
        )
    if rows:
        told.append(f"\nPeak memory {spread([row['peak_mb'] for row in rows])} MB.")
    return told


def total(usage: dict[str, Any]) -> float:
    """Tokens that the model worked through: encoded and written."""
    found: float = usage["prefilled_tokens"] + usage["generated_tokens"]
    return found


def _goal(what: str, found: list[float], wanted: float) -> str:
    if not found:
        return ""
    middle = statistics.median(found)
    return f"| {what} | {middle:.2f} | {'yes' if middle >= wanted else '**no**'} |"


def _goals(goals: list[str]) -> list[str]:
    held = [goal for goal in goals if goal]
    return ["| goal | measured | met |", "|---|---|---|", *held, ""] if held else []


def spread(values: list[float], form: str = ",.0f") -> str:
    """Median (least to most)."""
    if not values:
        return "-"
    middle = format(statistics.median(values), form)
    if len(values) == 1:
        return middle
    return f"{middle} ({format(min(values), form)}-{format(max(values), form)})"
