"""Recipe -> the data folder: one JSONL a stage, held-out documents, drops, card; manifest last."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from medexpert.data import card, catalogue, mix, quarantine
from medexpert.data.gather import Flow, Gatherer, Slot, Spool, source_list_problems
from medexpert.data.inspection import inspect_sources
from medexpert.manifest import (
    MANIFEST,
    atomic,
    disk_errors,
    sha256_file,
    write_manifest,
    write_text,
)
from medexpert.recipe import Run, StageName
from medexpert.records import UserError

__all__ = ["build", "inspect_sources", "source_digests"]

Say = Callable[[str], None]


@dataclass
class StageData:
    """The gathered sources of a stage and the order in which their records are learned."""

    flows: dict[str, Flow]
    order: list[mix.Ref]
    targets: dict[str, float]
    replay: dict[str, float]


def build(recipe: Run, folder: Path, *, key: str, progress: Say) -> dict[str, Any]:
    """Write `folder` (RUN/data) for the stages that are switched on; returns the manifest.

    Files: <stage>.jsonl, heldout.jsonl, drops.jsonl, card.md, manifest.json. A build that stops
    half-way leaves no manifest, so it is made again. Raises UserError for any bad source or row.
    """
    problems = source_list_problems(recipe)
    if problems:
        raise UserError("\n".join(problems))
    lists = quarantine.load(recipe.data.quarantine)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)
    if not lists:
        progress("data: WARNING: no quarantine; benchmark items may be trained on")
    stages: dict[StageName, StageData] = {}
    with ExitStack() as stack:
        scratch = stack.enter_context(_scratch(folder))
        drops = stack.enter_context(atomic(folder / "drops.jsonl"))
        heldout = stack.enter_context(atomic(folder / "heldout.jsonl"))
        for stage in recipe.stages():
            with disk_errors(folder):
                stages[stage] = _build_stage(
                    recipe, stage, folder, scratch, drops, heldout, lists, progress
                )
    facts = _facts(recipe, stages, lists)
    write_text(folder / "card.md", card.render(facts))
    names = [*(f"{stage}.jsonl" for stage in stages), "heldout.jsonl", "drops.jsonl", "card.md"]
    return write_manifest(folder, key=key, files=[folder / n for n in names], facts=facts)


def source_digests(recipe: Run) -> dict[str, dict[str, str]]:
    """ "stage/source" -> {file name: SHA-256}: the raw data that a build's key depends on.

    Holds only the stages that are switched on. Raises UserError for a source that is not there.
    """
    found: dict[str, dict[str, str]] = {}
    for stage in recipe.stages():
        for source in recipe.sources(stage):
            entry = catalogue.find(source.source, where=f"data.{stage}")
            paths = catalogue.locate(entry, recipe.data.root, source.path)
            files = [f for p in paths for f in (_files(p) if p.is_dir() else [p])]
            found[f"{stage}/{entry.name}"] = {file.name: sha256_file(file) for file in files}
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in (".json", ".parquet"))


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """A folder for the spools; what a killed build left there goes first."""
    path = folder / ".spool"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _build_stage(
    recipe: Run,
    stage: StageName,
    folder: Path,
    scratch: Path,
    drops: IO[bytes],
    heldout: IO[bytes],
    lists: dict[str, frozenset[str]],
    progress: Say,
) -> StageData:
    def drop(row: dict[str, str]) -> None:
        drops.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    spool = Spool(scratch / stage)
    try:
        gatherer = Gatherer(recipe, stage, spool, drop, progress, lists)
        flows = {source.source: gatherer.gather(source) for source in recipe.sources(stage)}
        data = _mix(recipe, stage, flows, drop, spool, progress)
        for flow in flows.values():
            for slot in flow.heldout:
                heldout.write(spool.get(slot))
        with atomic(folder / f"{stage}.jsonl") as handle:
            for name, position in data.order:
                handle.write(spool.get(flows[name].slots[position]))
    finally:
        spool.close()
    size = sum(flows[name].slots[i].characters for name, i in data.order)
    progress(f"data {stage}: {len(data.order):,} records, {size / 1e6:,.2f} M characters written")
    return data


def _mix(
    recipe: Run,
    stage: StageName,
    flows: dict[str, Flow],
    drop: Callable[[dict[str, str]], None],
    spool: Spool,
    progress: Say,
) -> StageData:
    settings = recipe.data
    weights = {name: flow.source.weight for name, flow in flows.items()}
    sizes = {name: [slot.characters for slot in flow.slots] for name, flow in flows.items()}

    def arrange(names: list[str]) -> tuple[dict[str, float], list[mix.Ref]]:
        counts = {name: len(sizes[name]) for name in names}
        share = mix.targets(counts, weights, tau=settings.tau, cap=settings.cap)
        return share, mix.order_group(counts, share, recipe.seed)

    # The replay share is a rule of stage 1; elsewhere general data is a source like the others.
    def is_replay(name: str) -> bool:
        return stage == "knowledge" and flows[name].source.role == "replay"

    targets, train = arrange([name for name in flows if not is_replay(name)])
    replay_targets, replay = arrange([name for name in flows if is_replay(name)])
    if not train:
        raise UserError("no record is left to train on", where=f"data.{stage}")
    facts: dict[str, float] = {}
    used: list[mix.Ref] = []
    if stage == "knowledge":
        train_chars = sum(sizes[name][i] for name, i in train)
        used, surplus = mix.choose_replay(replay, sizes, train_chars, settings.replay_share)
        _drop_surplus(flows, surplus, drop, spool)
        replay_chars = sum(sizes[name][i] for name, i in used)
        got = replay_chars / ((train_chars + replay_chars) or 1)
        facts = {"target": settings.replay_share, "realised": round(got, 4)}
        if got < settings.replay_share - 0.01:
            progress(
                f"data {stage}: WARNING: replay is {got:.1%} of the characters, "
                f"{settings.replay_share:.1%} wanted: the replay sources are too small"
            )
    order = mix.interleave(train, used, sizes)
    return StageData(flows, order, {**targets, **replay_targets}, facts)


def _drop_surplus(
    flows: dict[str, Flow],
    surplus: list[mix.Ref],
    drop: Callable[[dict[str, str]], None],
    spool: Spool,
) -> None:
    """Count replay beyond the share as dropped; a document counts once, when all its parts go."""
    licences: dict[tuple[str, int], str] = {}
    for name, position in sorted(surplus):
        slot = flows[name].slots[position]
        record = json.loads(spool.get(slot))
        licences[name, slot.parent] = record["licence"]
        drop({"source": name, "id": record["id"], "reason": "replay_surplus", "stage": "knowledge"})
    for name in {name for name, _ in surplus}:
        flow, gone = flows[name], {position for other, position in surplus if other == name}
        kept = {slot.parent for i, slot in enumerate(flow.slots) if i not in gone}
        left = {flow.slots[i].parent for i in gone} - kept
        flow.dropped["replay_surplus"] += len(left)
        flow.licences -= Counter(licences[name, parent] for parent in left)


def _facts(
    recipe: Run, stages: dict[StageName, StageData], lists: dict[str, frozenset[str]]
) -> dict[str, Any]:
    """What the manifest, the card and the report tell about a build."""
    flows = {
        f"{stage}/{name}": flow
        for stage, data in stages.items()
        for name, flow in data.flows.items()
    }
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "quarantined": bool(lists),
        "quarantine": {
            name: {
                "listed": len(listed),
                "hits_by_source": {p: f.hits[name] for p, f in flows.items() if f.hits[name]},
            }
            for name, listed in lists.items()
        },
        "stages": {stage: _stage_facts(data) for stage, data in stages.items()},
        "sources": {stage: _source_facts(data) for stage, data in stages.items()},
        "licences": {place: dict(flow.licences.most_common()) for place, flow in flows.items()},
        "inputs": source_digests(recipe),
    }


def _stage_facts(data: StageData) -> dict[str, Any]:
    sizes = {name: [slot.characters for slot in flow.slots] for name, flow in data.flows.items()}
    shares = mix.realised(data.order, sizes)
    return {
        "records": len(data.order),
        "characters": sum(sizes[name][i] for name, i in data.order),
        "mix": {
            name: {"target": round(share, 4), **shares.get(name, {"records": 0, "characters": 0})}
            for name, share in data.targets.items()
        },
        **({"replay": data.replay} if data.replay else {}),
    }


def _source_facts(data: StageData) -> dict[str, Any]:
    used: dict[str, list[Slot]] = {name: [] for name in data.flows}
    for name, position in data.order:
        used[name].append(data.flows[name].slots[position])
    total = sum(slot.characters for slots in used.values() for slot in slots) or 1
    return {
        name: {
            "role": flow.source.role,
            "limit": flow.source.limit,
            "in": flow.read,
            "dropped": dict(flow.dropped.most_common()),
            "changed": dict(flow.changed.most_common()),
            "heldout": flow.heldout_documents,
            "kept": len({slot.parent for slot in used[name]}),
            "records": len(used[name]),
            "characters": sum(slot.characters for slot in used[name]),
            "share": round(sum(slot.characters for slot in used[name]) / total, 4),
            "default_mix": flow.entry.default_mix,
            "licence": flow.entry.licence,
            "note": flow.entry.note,
            "seconds": round(flow.seconds, 2),
        }
        for name, flow in data.flows.items()
    }
