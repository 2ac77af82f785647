"""What a build did, as numbers: what the manifest holds and the data card shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medexpert.data import catalogue
from medexpert.data.build.assemble import Stage
from medexpert.data.build.bad_rows import Places, check_shares
from medexpert.data.build.digests import short_names, source_sums
from medexpert.data.build.phases import shard_infos
from medexpert.data.build.plan import Job, size_of
from medexpert.data.build.store import Store
from medexpert.data.card.facts import FIRST_FAULTS
from medexpert.data.readers.local_files import split_path
from medexpert.manifest import versions
from medexpert.recipe import StageName
from medexpert.recipe_data import PLACE, Source

REFUSED = ("phi_refused",)


def check_bad_rows(job: Job, store: Store) -> None:
    """Raises UserError for the first file, or source of documents, with too many bad rows."""
    for stage in job.recipe.stages():
        shards = shard_infos(job, store, stage)
        for source in job.recipe.sources(stage):
            mine = [shard.facts for shard in shards if shard.source == source.source]
            check_shares(catalogue.find(source.source), mine, job.recipe.data.max_bad_rows)


def shares_line(stage: str, facts: Mapping[str, Any]) -> str:
    """One line: what each source of a stage came to; `facts` of the stage, see `build_facts`."""
    told = ", ".join(
        f"{name} {source['realised_records']:.1%}/{source['realised']:.1%} ({source['target']:.1%})"
        for name, source in facts["sources"].items()
    )
    return f"data {stage}: shares of records/characters (wanted): {told}"


def build_facts(
    job: Job, store: Store, stages: Mapping[StageName, Stage], checked: Mapping[str, Any]
) -> dict[str, Any]:
    """The facts of a build in the shape of `card.facts.CardFacts`."""
    recipe = job.recipe
    inputs = source_sums(recipe)
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
    made = {
        source.source: _source(
            found, source, position, uses, total, inputs[f"{found.name}/{source.source}"]
        )
        for position, source in enumerate(sources)
    }
    for source in sources:
        made[source.source]["target"] = round(_target(found, sources, source), 4)
    return {
        "records": len(found.order),
        "characters": total,
        "tokens": sum(one["tokens"] for one in made.values()),
        **replay,
        "near_duplicates_spared": dict(found.spared),
        "sources": made,
    }


def _source(
    found: Stage,
    source: Source,
    position: int,
    uses: NDArray[np.int64],
    total: int,
    sums: Mapping[str, str],
) -> dict[str, Any]:
    """One source in the shape of `card.facts.SourceFacts`."""
    shards = [shard.facts for shard in found.index.shards if shard.source == source.source]
    names = _file_names(source, sums)
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
        "first_faults": _first_faults(shards, {split_path(p)[0]: n for p, n in names.items()}),
        "heldout": int((found.heldout & mine).sum()),
        "kept": int(used.sum()),
        "changed": dict(_sum(shard["changed"] for shard in shards).most_common()),
        "redacted": dict(_sum(shard["redacted"] for shard in shards).most_common()),
        "licences": _table_counts(found, mine & (used | found.heldout), "licence"),
        "records": int(uses[lines].sum()),
        "characters": characters,
        "tokens": int((found.column("tokens").astype(np.int64) * uses)[lines].sum()),
        "unused_parts": int((used[found.line_record] & lines & (uses == 0)).sum()),
        "realised": round(characters / (total or 1), 4),
        "realised_records": round(float(uses[lines].sum()) / (len(found.order) or 1), 4),
        "epochs": round(float(uses[lines].sum()) / usable, 3),
        "inputs": _inputs(names, sums, shards, Places(hidden=source.phi != "off")),
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
    for reason in ("revoked", "superseded", "label_surplus", "replay_surplus"):
        dropped[reason] = int((found.gone[reason] & mine).sum())
    return {
        "faults": faults,
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


def _first_faults(
    shards: Sequence[Mapping[str, Any]], names: Mapping[str, str]
) -> list[dict[str, str]]:
    """The first bad rows; `names` of files are as in the inputs."""
    told = [fault for shard in shards for fault in shard["faults"]]
    return [
        {"where": _short(file, where, names), "what": what}
        for file, where, what in told[:FIRST_FAULTS]
    ]


def _short(file: str, where: str, names: Mapping[str, str]) -> str:
    """A bad row's place without the folders above the source."""
    if file in names and where.startswith(file):
        return names[file] + where[len(file) :]
    # A reader that looks into a folder: the file is one of those inside it.
    inside = [path for path in names if where.startswith(path)]
    longest = max(inside, key=len, default="")
    return names[longest] + where[len(longest) :] if longest else where.rsplit("/", 1)[-1]


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


def _file_names(source: Source, sums: Mapping[str, str]) -> dict[str, str]:
    """Path of an input -> how it is told: without the common folder; by a digest when phi is on."""
    places = Places(hidden=source.phi != "off")
    if places.hidden:
        return {path: places.file(path) for path in sums}
    return short_names(sums)


def _inputs(
    names: Mapping[str, str],
    sums: Mapping[str, str],
    shards: Iterable[Mapping[str, Any]],
    places: Places,
) -> list[dict[str, Any]]:
    """The files of a source with their checksums and the rows that were read of each."""
    rows: Counter[str] = Counter()
    for facts in shards:
        rows.update({file: counts[0] for file, counts in facts["files"].items()})
    return [
        {"file": names[path], "sha256": value, "bytes": size_of(path),
         **({"rows": rows[file]} if (file := places.file(path)) in rows else {})}
        for path, value in sums.items()
    ]  # fmt: skip


def _target(found: Stage, sources: Sequence[Source], source: Source) -> float:
    """Share wanted of a stage: of the source's group, times the group's share when there are two.

    Within a group shares are of records; between training and replay, of characters.
    """
    share = found.targets.get(source.source, 0.0)
    groups = {one.role == "replay" for one in sources if one.source in found.targets}
    if not found.replay or len(groups) < 2:
        return share
    wanted = found.replay["target"]
    return share * (wanted if source.role == "replay" else 1 - wanted)
