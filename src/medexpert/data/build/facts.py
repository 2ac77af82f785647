"""What a build did, as numbers: what the manifest holds and the data card shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medexpert.data import catalogue
from medexpert.data.build.assemble import Stage
from medexpert.data.build.clean import too_many_bad_rows
from medexpert.data.build.digests import source_digests
from medexpert.data.build.phases import shard_infos
from medexpert.data.build.plan import Job, size_of
from medexpert.data.build.store import Store
from medexpert.manifest import versions
from medexpert.recipe import StageName
from medexpert.recipe_data import PLACE, Source

FAULTS_TOLD = 5
REFUSED = ("phi_refused",)


def check_bad_rows(job: Job, store: Store) -> None:
    """Raises UserError for the first file whose share of bad rows is above the limit."""
    for stage in job.recipe.stages():
        rows: dict[str, list[int]] = {}
        faults: dict[str, list[tuple[str, str]]] = {}
        for shard in shard_infos(job, store, stage):
            for file, (read, bad) in shard.facts["files"].items():
                held = rows.setdefault(file, [0, 0])
                held[0] += read
                held[1] += bad
            for where, what in shard.facts["faults"]:
                faults.setdefault(where.rpartition(":")[0], []).append((where, what))
        for file, (read, bad) in rows.items():
            if bad > job.recipe.data.max_bad_rows * read:
                told = [f for name, found in faults.items() if name.startswith(file) for f in found]
                raise too_many_bad_rows(file, read, bad, job.recipe.data.max_bad_rows, told)


def build_facts(
    job: Job, store: Store, stages: Mapping[StageName, Stage], checked: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts of a build in the shape of `card.facts.CardFacts`."""
    recipe = job.recipe
    inputs = source_digests(recipe)
    left_out = {*PLACE, "knowledge", "instruct", "adapt"}
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "quarantined": bool(job.quarantine),
        "quarantine": {n: _benchmark(f) for n, f in checked.items() if f["checked"]},
        "not_checked": sorted(name for name, f in checked.items() if not f["checked"]),
        "stages": {name: _stage(job, found, inputs) for name, found in stages.items()},
        "settings": recipe.data.model_dump(mode="json", exclude=left_out),
        "versions": versions(),
    }


def _benchmark(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "listed": facts["ids"],
        "items": facts["items"],
        "text": facts["text"],
        "files": facts["files"],
    }


def _stage(job: Job, found: Stage, inputs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    sources = job.recipe.sources(found.name)
    sizes = found.column("size").astype(np.int64)
    total = int(sizes[found.order].sum())
    uses = np.bincount(found.order, minlength=len(sizes))
    replay = {"replay": found.replay} if found.replay else {}
    return {
        "records": len(found.order),
        "characters": total,
        **replay,
        "near_duplicates_spared": dict(found.spared),
        "sources": {
            source.source: _source(job, found, source, position, uses, total, inputs)
            for position, source in enumerate(sources)
        },
    }


def _source(
    job: Job,
    found: Stage,
    source: Source,
    position: int,
    uses: NDArray[np.int64],
    total: int,
    inputs: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """One source in the shape of `card.facts.SourceFacts`."""
    shards = [shard.facts for shard in found.index.shards if shard.source == source.source]
    mine = found.source == position
    lines = mine[found.line_record]
    used = np.zeros(len(mine), dtype=bool)
    used[found.line_record[lines & (uses > 0)]] = True
    characters = int((found.column("size").astype(np.int64) * uses)[lines].sum())
    usable = int(found.column("lines")[(used | found.gone["replay_surplus"]) & mine].sum()) or 1
    return {
        **_entry(source),
        "read": sum(shard["read"] for shard in shards),
        "read_characters": sum(shard["characters"] for shard in shards),
        **_taken_out(found, mine, shards),
        "heldout": int((found.heldout & mine).sum()),
        "kept": int(used.sum()),
        "changed": dict(_sum(shard["changed"] for shard in shards).most_common()),
        "redacted": dict(_sum(shard["redacted"] for shard in shards).most_common()),
        "licences": _table_counts(found, mine & (used | found.heldout), "licence"),
        "records": int(uses[lines].sum()),
        "characters": characters,
        "tokens": int(found.column("words").astype(np.int64)[used].sum()),
        "target": round(found.targets.get(source.source, 0.0), 4),
        "realised": round(characters / (total or 1), 4),
        "epochs": round(float(uses[lines].sum()) / usable, 3),
        "inputs": _inputs(job, found, source, inputs),
        "lengths": _lengths(found.column("chars")[used]),
        "languages": _table_counts(found, used, "lang"),
    }


def _entry(source: Source) -> dict[str, Any]:
    entry = catalogue.find(source.source)
    return {
        "role": source.role,
        "lang": entry.lang,
        "licence": entry.licence,
        "default_mix": entry.default_mix,
        "note": entry.note,
        "url": entry.url,
        "citation": entry.citation,
        "limit": source.limit,
    }


def _taken_out(
    found: Stage, mine: NDArray[np.bool_], shards: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Every record that left, once, under what took it."""
    dropped = _sum(shard["dropped"] for shard in shards)
    faults = dropped.pop("bad_row", 0) + int((found.gone["bad_row"] & mine).sum())
    refused = {reason: dropped.pop(reason) for reason in REFUSED if reason in dropped}
    hits: dict[str, dict[str, int]] = {}
    for benchmark, kind, n in (hit for shard in shards for hit in shard["hits"]):
        kinds = hits.setdefault(benchmark, {})
        kinds[kind] = kinds.get(kind, 0) + n
        dropped[f"quarantine_{benchmark}"] -= n
    for reason in ("revoked", "label_surplus", "replay_surplus"):
        dropped[reason] = int((found.gone[reason] & mine).sum())
    return {
        "faults": faults,
        "first_faults": _first_faults(shards),
        "dropped": {reason: n for reason, n in dropped.most_common() if n},
        "quarantined": hits,
        "duplicates": {
            "exact": int((found.gone["duplicate"] & mine).sum()),
            "near": int((found.gone["near_duplicate"] & mine).sum()),
        },
        "refused": refused,
    }


def _sum(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return total


def _first_faults(shards: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    told = [fault for shard in shards for fault in shard["faults"]]
    return [{"where": where, "what": what} for where, what in told[:FAULTS_TOLD]]


def _table_counts(found: Stage, chosen: NDArray[np.bool_], name: str) -> dict[str, int]:
    """Records by a column whose codes mean something per shard."""
    numbers = np.flatnonzero(chosen)
    shard = found.index.shard_of(numbers)
    codes = found.column(name)[numbers]
    counts: Counter[str] = Counter()
    for which, code in zip(*np.unique(np.stack([shard, codes]), axis=1), strict=True):
        table = found.index.shards[int(which)].facts["tables"][name]
        counts[table[int(code)]] += int(((shard == which) & (codes == code)).sum())
    return dict(counts.most_common())


def _lengths(characters: NDArray[Any]) -> dict[str, int]:
    """Records by the power of two at or below their characters."""
    if not len(characters):
        return {}
    bins = np.floor(np.log2(np.maximum(characters.astype(np.float64), 1))).astype(int)
    values, counts = np.unique(bins, return_counts=True)
    return {str(1 << int(v)): int(n) for v, n in zip(values, counts, strict=True)}


def _inputs(
    job: Job, found: Stage, source: Source, inputs: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """The files of a source with their checksums; paths are shortened alike."""
    sums = inputs[f"{found.name}/{source.source}"]
    paths: dict[str, int] = {}
    for shard in job.of_stage(found.name):
        if shard.source == source.source:
            for part in shard.parts:
                match = next((n for n in sums if part.path.endswith(n)), None)
                if match is not None:
                    paths[match] = size_of(part.path)
    return [
        {
            # The name of a file of notes may be a patient's.
            "file": file if source.phi == "off" else f"file {number}",
            "sha256": sums[file],
            "bytes": paths.get(file, 0),
        }
        for number, file in enumerate(sums, 1)
    ]
