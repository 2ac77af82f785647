"""The last step of a build: duplicates out, held-out set aside, balanced, mixed, written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from medexpert.data import catalogue, dedup, mix
from medexpert.data.build.phases import SLICES, load, shard_infos
from medexpert.data.build.plan import Job
from medexpert.data.build.shards import LINE, RECORD, Index, Lines
from medexpert.data.build.store import Store
from medexpert.recipe import StageName
from medexpert.recipe_data import Source
from medexpert.records import UserError

Say = Callable[[str], None]
Bools = NDArray[np.bool_]


@dataclass
class Stage:
    """One stage's records as arrays, what became of each, and the order in which they are used."""

    name: StageName
    index: Index
    names: list[str]  # of the sources
    source: NDArray[np.int64]  # position of each record's source among the names
    line_record: NDArray[np.int64]  # record of each line
    line_shard: NDArray[np.int64]
    gone: dict[str, Bools] = field(default_factory=dict)
    stands_for: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    twins: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Records that are alike to another but for their numbers."""
    heldout: Bools = field(default_factory=lambda: np.empty(0, dtype=bool))
    order: mix.Refs = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    targets: dict[str, float] = field(default_factory=dict)
    replay: dict[str, float] = field(default_factory=dict)
    spared: Counter[str] = field(default_factory=Counter)

    def stays(self) -> Bools:
        """Records that nothing has taken out."""
        out = np.zeros(len(self.index), dtype=bool)
        for mask in self.gone.values():
            out |= mask
        return ~out

    def source_of(self, name: str) -> int:
        """Position of a source by its name."""
        return self.names.index(name)

    def column(self, name: str) -> NDArray[Any]:
        """A column of the index."""
        return self.index.columns[name]


def assemble(
    job: Job, store: Store, stage: StageName, *, out: IO[bytes], heldout: IO[bytes],
    drops: IO[bytes], say: Say,
) -> Stage:  # fmt: skip
    """Write one stage's records, held-out documents and drops; returns what became of all.

    Raises UserError when nothing is left to train on, or too little to hold out.
    """
    found = _open(job, store, stage)
    sources = job.recipe.sources(stage)
    _revoked(found)
    _repeated_ids(found)
    _duplicates(job, store, found)
    _balance(found, sources)
    _hold_out(found, sources)
    surplus = _mix(job, found, sources, say)
    lines = Lines(store)
    try:
        for number in np.flatnonzero(found.heldout[found.line_record]):
            heldout.write(_line(found, lines, int(number)))
        for number in found.order.tolist():
            out.write(_line(found, lines, number))
        for shard in found.index.shards:
            drops.write(store.read(f"{shard.stem}.drops.jsonl"))
        _write_drops(found, sources, lines, surplus, drops)
    finally:
        lines.close()
    size = int(found.column("size")[found.order].sum())
    say(f"data {stage}: {len(found.order):,} records, {size / 1e6:,.2f} M characters written")
    return found


def _open(job: Job, store: Store, stage: StageName) -> Stage:
    index = Index(store, shard_infos(job, store, stage), (*RECORD, *LINE, "exact"))
    names = [source.source for source in job.recipe.sources(stage)]
    place = {name: position for position, name in enumerate(names)}
    counts = [int(shard.facts["records"]) for shard in index.shards]
    lines = [int(shard.facts["lines"]) for shard in index.shards]
    source = np.repeat([place[shard.source] for shard in index.shards], counts)
    record = np.repeat(np.arange(len(index)), index.columns["lines"])
    return Stage(
        stage,
        index,
        names,
        source.astype(np.int64),
        record.astype(np.int64),
        np.repeat(np.arange(len(index.shards)), lines).astype(np.int64),
    )


def _revoked(found: Stage) -> None:
    """Records that a later row of their source takes back."""
    mask = np.zeros(len(found.index), dtype=bool)
    last: dict[tuple[int, int], int] = {}  # (source, name) -> record before which it is taken back
    for number, shard in enumerate(found.index.shards):
        for name, before in shard.facts["revoked"]:
            place = int(found.index.starts[number]) + before
            last[found.source_of(shard.source), name] = place
    names = np.array([name for _, name in last], dtype=np.uint64)
    for record in np.flatnonzero(np.isin(found.column("name"), names)).tolist():
        key = int(found.source[record]), int(found.column("name")[record])
        mask[record] = record < last.get(key, 0)
    found.gone["revoked"] = mask


def _repeated_ids(found: Stage) -> None:
    """The same id twice in a source, in different parts of its files.

    In a source with updates (MEDLINE) the last version stays; elsewhere the first does, and the
    other is a bad row.
    """
    places = np.arange(len(found.index))
    updated = np.isin(found.source, [i for i, name in enumerate(found.names) if _has_updates(name)])
    # The one that stays comes first in its group.
    turn = np.where(updated, -places, places)
    order = np.lexsort((turn, found.gone["revoked"], found.column("name"), found.source))
    names, sources = found.column("name")[order], found.source[order]
    again = np.zeros(len(order), dtype=bool)
    again[1:] = (names[1:] == names[:-1]) & (sources[1:] == sources[:-1])
    mask = np.zeros(len(order), dtype=bool)
    mask[order[again]] = True
    mask &= ~found.gone["revoked"]
    found.gone["superseded"] = mask & updated
    found.gone["bad_row"] = mask & ~updated


def _has_updates(source: str) -> bool:
    return catalogue.find(source).reader == "medline"


def _duplicates(job: Job, store: Store, found: Stage) -> None:
    pairs = np.empty((0, 2), dtype=np.int64)
    apart = [pairs]
    if job.recipe.data.near_duplicates:
        number = job.recipe.stages().index(found.name)
        for part in range(SLICES):
            pairs = np.concatenate([pairs, load(store, f"verify/{found.name}-{part:02d}.npy")])
            facts = store.read_json(f"verify/{number * SLICES + part:05d}.json")
            found.spared.update(facts["spared"])
            apart.append(load(store, f"verify/{found.name}-{part:02d}.apart.npy"))
    found.twins = np.unique(np.concatenate(apart))
    prefer = found.column("prefer").astype(np.int64)
    there = found.stays()
    prefer[~there] = 256  # never the copy that stays
    exact, near = dedup.decide(found.column("exact"), prefer, pairs)
    found.gone["duplicate"] = (exact >= 0) & there
    found.gone["near_duplicate"] = (near >= 0) & (exact < 0) & there
    found.stands_for = np.where(exact >= 0, exact, near)


def _balance(found: Stage, sources: Sequence[Source]) -> None:
    """No label of a builder's source above `label_ratio` times the rarer of yes and no."""
    mask = np.zeros(len(found.index), dtype=bool)
    found.gone["label_surplus"] = mask
    if not any(source.label_ratio for source in sources):
        return
    labels = _labels(found)
    stays = found.stays()
    for position, source in enumerate(sources):
        if not source.label_ratio:
            continue
        mine = stays & (found.source == position)
        counts = {name: int((mine & (labels == name)).sum()) for name in ("yes", "no")}
        if not all(counts.values()):
            raise UserError(
                f"label_ratio needs both labels, but source {source.source!r} has "
                f"{counts['yes']} yes and {counts['no']} no",
                where=f"data.{found.name}",
            )
        most = int(source.label_ratio * min(counts.values()))
        for label in np.unique(labels[mine]):
            numbers = np.flatnonzero(mine & (labels == label))
            ordered = numbers[np.argsort(found.column("rank")[numbers], kind="stable")]
            mask[ordered[most:]] = True


def _labels(found: Stage) -> NDArray[np.str_]:
    shard = found.index.shard_of(np.arange(len(found.index)))
    tables = [shard.facts["tables"]["label"] for shard in found.index.shards]
    codes = found.column("label")
    values = [tables[s][c] if c >= 0 else "" for s, c in zip(shard, codes, strict=True)]
    return np.array(values, dtype=np.str_)


def _hold_out(found: Stage, sources: Sequence[Source]) -> None:
    """Set aside the documents whose seeded hash is smallest, whatever the file's order.

    One that is alike to another but for its numbers is not set aside: its text is trained on.
    """
    found.heldout = np.zeros(len(found.index), dtype=bool)
    free = found.stays()
    free[found.twins] = False
    for position, source in enumerate(sources):
        numbers = np.flatnonzero(free & (found.source == position))
        if source.heldout > len(numbers):
            raise UserError(
                f"heldout = {source.heldout}, but source {source.source!r} has {len(numbers)} "
                "documents after filtering that are unlike any other",
                where=f"data.{found.name}",
            )
        order = np.argsort(found.column("rank")[numbers], kind="stable")
        found.heldout[numbers[order[: source.heldout]]] = True


def _mix(job: Job, found: Stage, sources: Sequence[Source], say: Say) -> Bools:
    """Fill `order`, `targets` and `replay`; returns the records that replay does not need."""
    settings = job.recipe.data
    usable = (found.stays() & ~found.heldout)[found.line_record]
    sizes = found.column("size").astype(np.int64)
    # The replay share is a rule of stage 1; elsewhere general data is a source like the others.
    pools: dict[bool, list[mix.Pool]] = {True: [], False: []}
    for position, source in enumerate(sources):
        lines = np.flatnonzero(usable & (found.source[found.line_record] == position))
        pool = mix.Pool(source.source, lines, _line_ranks(found, lines))
        pools[found.name == "knowledge" and source.role == "replay"].append(pool)
    train = _arrange(job, found, pools[False], sources, settings.max_epochs, every=False)
    if not len(train):
        raise UserError("no record is left to train on", where=f"data.{found.name}")
    replay = _arrange(job, found, pools[True], sources, settings.max_epochs, every=True)
    used = replay
    if found.name == "knowledge":
        total = int(sizes[train].sum())
        used = replay[: mix.take_replay(replay, sizes, total, settings.replay_share)]
        part = int(sizes[used].sum())
        got = part / max(total + part, 1)
        found.replay = {"target": settings.replay_share, "realised": round(got, 4)}
        if got < settings.replay_share - 0.01:
            say(
                f"data {found.name}: WARNING: replay is {got:.1%} of the characters, "
                f"{settings.replay_share:.1%} wanted: the replay sources are too small"
            )
    found.order = mix.interleave(train, used, sizes)
    surplus = np.zeros(len(found.index), dtype=bool)
    surplus[found.line_record[replay]] = True
    surplus[found.line_record[used]] = False
    found.gone["replay_surplus"] = surplus
    return surplus


def _arrange(
    job: Job, found: Stage, pools: list[mix.Pool], sources: Sequence[Source], max_epochs: float,
    *, every: bool,
) -> mix.Refs:  # fmt: skip
    counts = {pool.name: len(pool.lines) for pool in pools}
    weights = {source.source: source.weight for source in sources}
    share = mix.targets(counts, weights, tau=job.recipe.data.tau, cap=job.recipe.data.cap)
    found.targets |= share
    wanted = (
        {name: int(max_epochs * n) for name, n in counts.items()}
        if every
        else mix.draws(counts, share, max_epochs)
    )
    return mix.order_group(pools, share, wanted, job.recipe.seed)


def _line_ranks(found: Stage, lines: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash for each line: its record's, changed by its place in the record."""
    record = found.line_record[lines]
    starts = np.concatenate([[0], np.cumsum(found.column("lines"))])[record]
    rank: NDArray[np.uint64] = found.column("rank")[record] + np.uint64(0x9E3779B97F4A7C15) * (
        lines - starts
    ).astype(np.uint64)
    return rank


def _line(found: Stage, lines: Lines, number: int) -> bytes:
    stem = found.index.shards[int(found.line_shard[number])].stem
    offset, length = found.column("offset")[number], found.column("length")[number]
    return lines.read(stem, int(offset), int(length))


def record_id(found: Stage, lines: Lines, number: int) -> str:
    """The id of a record, read from its first line."""
    starts = np.searchsorted(found.line_record, number)
    identifier = str(json.loads(_line(found, lines, int(starts)))["id"])
    parts = int(found.column("lines")[number])
    return identifier.removesuffix(f"#1of{parts}") if parts > 1 else identifier


def _write_drops(
    found: Stage, sources: Sequence[Source], lines: Lines, surplus: Bools, drops: IO[bytes]
) -> None:
    for reason, mask in found.gone.items():
        for number in np.flatnonzero(mask).tolist():
            row = {
                "source": sources[int(found.source[number])].source,
                "id": record_id(found, lines, number),
                "reason": reason,
                "stage": found.name,
            }
            if reason == "bad_row":
                row["what"] = "this id occurs twice in the source"
            if reason.endswith("duplicate"):
                kept = int(found.stands_for[number])
                row["of"] = record_id(found, lines, kept)
                row["of_source"] = sources[int(found.source[kept])].source
            drops.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
