"""Sections about how the model was made: data flow, training, forgetting, provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from medexpert.evaluate.report import charts
from medexpert.evaluate.report.blocks import Block, Chart, Code, Folded, Note, Section, Table, Text
from medexpert.evaluate.report.facts import RunFacts, point_order
from medexpert.evaluate.report.formats import duration, number
from medexpert.evaluate.statistics import bootstrap_change

GENERAL = ("replay", "general")
"""Roles of text that the model should not forget; any other role is text it should learn."""
STAGE_COLUMNS = (
    ("steps", ">steps"),
    ("items", ">items read"),
    ("not_read_beyond_max_tokens", ">beyond max_tokens"),
    ("rows", ">rows"),
    ("tokens", ">tokens"),
    ("loss_tokens", ">loss tokens"),
    ("seconds", ">time"),
)


def training(facts: RunFacts) -> Section | None:
    """What each stage consumed, and the loss curves."""
    if not facts.stages and not facts.logs:
        return None
    rows = []
    for stage in sorted({*facts.stages, *facts.logs}, key=point_order):
        made, steps = facts.stages.get(stage, {}), facts.logs.get(stage, [])
        cells = [stage, str(facts.recipe.get(stage, {}).get("method", "–"))]
        for key, _ in STAGE_COLUMNS:
            value: object = made.get(key)
            if value is None and key == "steps" and steps:
                value = f"{steps[-1]['step']} so far"
            cells.append(duration(value) if key == "seconds" else number(value))
        cells.append(_drops(made.get("dropped")))
        cells += [_mean_loss(steps[:10]), _mean_loss(steps[-10:])]
        rows.append(cells)
    columns = ["Stage", "Method", *(name for _, name in STAGE_COLUMNS), "dropped"]
    columns += [">loss, first 10", ">loss, last 10"]
    blocks: list[Block] = [Table(columns, rows, "Loss in nats per token, mean over ten steps.")]
    if facts.logs:
        words = "; ".join(
            f"{stage}: {_mean_loss(s[:10])} to {_mean_loss(s[-10:])} in {s[-1]['step']} steps"
            for stage, s in facts.logs.items()
        )
        caption = "Loss of each step (thin) and its running mean; below, the learning rate."
        blocks.append(Chart(charts.loss_chart(facts.logs), caption, words + "."))
    return Section("Training", "training", blocks)


def _mean_loss(steps: Sequence[Mapping[str, Any]]) -> str:
    values = [float(event["loss"]) for event in steps if "loss" in event]
    return f"{sum(values) / len(values):.3f}" if values else "–"


def _drops(value: object) -> str:
    """{reason: n} as 'reason n, …'; a plain count as it is."""
    if isinstance(value, Mapping):
        parts = [f"{reason} {number(n)}" for reason, n in value.items() if n]
        return ", ".join(parts) or "0"
    return number(value)


def forgetting(facts: RunFacts) -> Section | None:
    """Bits per byte of held-out text at every point: lower is better."""
    if not facts.heldout:
        return None
    points = list(facts.heldout)
    sources = sorted({source for entry in facts.heldout.values() for source in entry})
    entries_of = facts.heldout.values()
    replay = {s for s in sources if any(e.get(s, {}).get("role") in GENERAL for e in entries_of)}
    rows: list[list[str]] = []
    changes: dict[str, list[float | None]] = {}
    for source in sorted(sources, key=lambda s: (s in replay, s)):
        entries = [facts.heldout[point].get(source) for point in points]
        values = [e["bits_per_byte"] if e else None for e in entries]
        one = next(e for e in entries if e)
        first = values[0]
        relative = [100 * (v / first - 1) if v is not None and first else None for v in values]
        changes[source] = relative
        last = relative[-1]
        rows.append(
            [
                source,
                "replay" if source in replay else str(one.get("role") or "–"),
                number(one.get("documents")),
                number(one.get("bytes")),
                *(f"{v:.4f}" if v is not None else "–" for v in values),
                f"{last:+.2f} %".replace("-", "−") if last is not None and len(points) > 1 else "–",
                _paired(entries[0], entries[-1]) if len(points) > 1 else "–",
            ]
        )
    columns = ["Source", "Role", ">documents", ">bytes", *(f">{p}" for p in points), ">change"]
    columns.append(">95 % interval")
    text = (
        "Bits per byte of text kept out of training; lower is better. A rise on replay (general) "
        "text is forgetting, a fall on the other sources is learning. The interval is a paired "
        "bootstrap over the documents of the source."
    )
    blocks: list[Block] = [Text(text), Table(columns, rows)]
    if len(points) > 1:
        svg = charts.forgetting_chart(points, changes, frozenset(replay))
        words = "; ".join(f"{row[0]} {row[-2]}" for row in rows)
        caption = "Change since the first point. Dashed: replay sources."
        blocks.append(Chart(svg, caption, words + "."))
    return Section("Learning and forgetting", "forgetting", blocks)


def _paired(first: Mapping[str, Any] | None, last: Mapping[str, Any] | None) -> str:
    """Interval of the relative change between two points on the same documents."""
    one, two = ((entry or {}).get("per_document") for entry in (first, last))
    if not one or not two or one["bytes"] != two["bytes"] or len(one["bits"]) < 2:
        return "–"
    found = bootstrap_change(one["bits"], two["bits"], seed=0)
    return f"{100 * found.low:+.2f} to {100 * found.high:+.2f} %".replace("-", "−")


def data_flow(facts: RunFacts) -> Section | None:
    """What came in, what was dropped and why, what was kept, and the realised mix."""
    if facts.data is None:
        return None
    blocks: list[Block] = []
    rows = [
        _source_row(stage, name, entry)
        for stage, made in facts.data.get("stages", {}).items()
        for name, entry in made["sources"].items()
    ]
    if rows:
        columns = ["Stage", "Source", "Role", ">read", "taken out (why n)", ">held out", ">kept"]
        columns += [">characters", ">share %"]
        caption = (
            "Nothing leaves without a counted reason. How much of this a stage then read stands "
            "under Training."
        )
        blocks.append(Table(columns, rows, caption))
    # The provenance section tells the last ones.
    hidden = {"stages", "files", "key", "versions", "resolved_recipe", "recipe_hash"}
    rest = [(k, v) for k, v in facts.data.items() if k not in hidden]
    plain = [[k, number(v)] for k, v in rest if not isinstance(v, Mapping | list)]
    if plain:
        blocks.append(Table(["Fact", ">Value"], plain))
    for name, value in rest:
        if isinstance(value, Mapping | list):
            text = json.dumps(value, ensure_ascii=False, indent=1)
            blocks.append(Folded(name.replace("_", " ").capitalize(), [Code(text)]))
    if not facts.data.get("quarantine"):
        blocks.insert(
            0, Note("warning", "This data was built without quarantine: test items may be in it.")
        )
    return Section("Data", "data", blocks)


def _source_row(stage: str, name: str, entry: Mapping[str, Any]) -> list[str]:
    taken = {"bad_row": entry["faults"], **entry["dropped"], **entry["refused"]}
    taken |= {f"{kind} duplicate": n for kind, n in entry["duplicates"].items()}
    for benchmark, kinds in entry["quarantined"].items():
        taken |= {f"{benchmark} ({kind})": n for kind, n in kinds.items()}
    return [
        stage,
        name,
        str(entry.get("role", "–")),
        number(entry["read"]),
        _drops(taken),
        number(entry.get("heldout")),
        number(entry.get("kept")),
        number(entry.get("characters")),
        f"{100 * entry['realised']:.1f}",
    ]


def provenance(facts: RunFacts) -> Section:
    """What the numbers depend on: recipe, base, seeds, versions, engine."""
    recipe = facts.recipe
    rows = [
        ["Recipe", str(recipe.get("name", "–"))],
        ["Recipe hash", facts.recipe_hash or "–"],
        ["Seed", number(recipe.get("seed"))],
        ["Base model", str(recipe.get("base", {}).get("model", "–"))],
        ["Base revision", str(recipe.get("base", {}).get("revision") or "default branch")],
    ]
    if facts.data is not None:
        rows.append(["Data key", str(facts.data.get("key", "–"))])
    for stage, made in facts.stages.items():
        rows.append([f"{stage} key", str(made.get("key", "–"))])
    blocks: list[Block] = []
    if facts.results:
        last = facts.results[-1].data
        rows.append(["Evaluation seed", number(last.get("seed"))])
        rows += [[f"Version of {k}", str(v)] for k, v in last.get("versions", {}).items()]
        timing = [
            [
                r.point,
                r.strategy,
                str(r.data["model"]),
                duration(r.data.get("seconds")),
                ", ".join(f"{k} {number(v)}" for k, v in r.data.get("tokens", {}).items()) or "–",
            ]
            for r in facts.results
        ]
        columns = ["Point", "Strategy", "Model", ">time", "tokens"]
        blocks.append(Table(columns, timing, "Cost of each evaluation."))
        engine = json.dumps(last.get("engine", {}), ensure_ascii=False, indent=1)
        blocks.append(Folded("Engine of the last evaluation", [Code(engine)]))
    if recipe:
        text = json.dumps(recipe, ensure_ascii=False, indent=1)
        blocks.append(Folded("Resolved recipe", [Code(text)]))
    return Section("Provenance", "provenance", [Table(["Fact", "Value"], rows), *blocks])
