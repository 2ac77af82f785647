"""Manifest facts -> the data card, Markdown that a reader can check against the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(facts: Mapping[str, Any]) -> str:
    """The card of one build."""
    lines = [f"# Data card: {facts['recipe']}", ""]
    lines += _quarantine(facts)
    for stage, stage_facts in facts["stages"].items():
        lines += _stage(stage, stage_facts, facts["sources"][stage])
    lines += _licences(facts)
    lines += [
        "## What was not checked",
        "",
        "Quarantine goes by identifier: a benchmark item copied without its PMID is not found. "
        "Duplicates are exact ones after normalisation; near-duplicates stay. Text was not "
        "screened for personal data, and no clinician has reviewed it.",
        "",
    ]
    return "\n".join(lines)


def _quarantine(facts: Mapping[str, Any]) -> list[str]:
    if not facts["quarantined"]:
        return [
            "> **Built without quarantine.** Benchmark items may be in this data; a score of a "
            "model trained on it proves nothing.",
            "",
        ]
    lines = ["Records that carry an identifier of these benchmarks left every source:", ""]
    for name, entry in facts["quarantine"].items():
        hits = ", ".join(f"{place} {n}" for place, n in entry["hits_by_source"].items())
        found = hits or "none"
        lines.append(f"- {name}: {entry['listed']:,} identifiers; found and removed: {found}")
    return [*lines, ""]


def _stage(
    stage: str, facts: Mapping[str, Any], sources: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    lines = [
        f"## Stage {stage}",
        "",
        f"{facts['records']:,} records, {facts['characters']:,} characters.",
        "",
        *_row("source", "role", "in", "dropped", "held out", "kept", "records", "characters"),
    ]
    for name, entry in sources.items():
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in entry["dropped"].items())
        limit = f" (limit: the first {entry['limit']:,})" if entry["limit"] else ""
        lines += _row(
            name,
            entry["role"],
            f"{entry['in']:,}{limit}",
            reasons or "0",
            f"{entry['heldout']:,}",
            f"{entry['kept']:,}",
            f"{entry['records']:,}",
            f"{entry['characters']:,}",
            head=False,
        )
    lines += ["", "in = dropped + held out + kept; a long document becomes several records.", ""]
    lines += _row("source", "target share", "share of records", "share of characters")
    for name, entry in facts["mix"].items():
        lines += _row(
            name,
            f"{entry['target']:.1%}",
            f"{entry['records']:.1%}",
            f"{entry['characters']:.1%}",
            head=False,
        )
    lines += [
        "",
        "The target (within training and within replay sources) holds for every prefix of the file "
        "until a source runs out; each record occurs once.",
    ]
    if "replay" in facts:
        replay = facts["replay"]
        lines.append(
            f"Replay: {replay['realised']:.1%} of characters, {replay['target']:.1%} wanted."
        )
    changed = [
        f"- {name}: " + ", ".join(f"{what} {n:,}" for what, n in entry["changed"].items())
        for name, entry in sources.items()
        if entry["changed"]
    ]
    return [*lines, "", *(["Altered rows:", "", *changed, ""] if changed else [])]


def _licences(facts: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Licences",
        "",
        "As stated upstream, counted over documents kept or held out. `no` = not MIT, Apache-2.0, "
        "CC BY, CC0 or our own throughout: naming the source in the recipe was the opt-in.",
        "",
        *_row("stage/source", "in the default mix", "licence: records", "note"),
    ]
    for stage, sources in facts["sources"].items():
        for name, entry in sources.items():
            counts = facts["licences"][f"{stage}/{name}"]
            text = "; ".join(f"{licence}: {n:,}" for licence, n in counts.items())
            default = "yes" if entry["default_mix"] else "no"
            lines += _row(
                f"{stage}/{name}", default, text or entry["licence"], entry["note"], head=False
            )
    return [*lines, ""]


def _row(*cells: str, head: bool = True) -> list[str]:
    line = "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
    return [line, "|" + " --- |" * len(cells)] if head else [line]
