"""What a build would meet, told before it: sources opened, first rows read, sizes estimated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from medexpert.data import catalogue, mix
from medexpert.data.build.bad_rows import Places, check_shares
from medexpert.data.build.clean import characters
from medexpert.data.build.plan import files_of
from medexpert.data.build.run import filter_problems
from medexpert.data.build.sources import open_items, stamp, styled
from medexpert.data.build.use import check_use, source_list_problems
from medexpert.data.quarantine.prepare import index_of
from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Change, Fault, Item, Part, Reader, Row
from medexpert.recipe import Run, StageName
from medexpert.recipe_data import Data, Source
from medexpert.records import Document, Example, UserError

SAMPLE = 200
KEPT = 100
"""Examples of a source that are kept for whoever asks how long they are."""


class Inspection(NamedTuple):
    """`problems`, one line each; `characters` expected of a build, by stage and language;
    `examples` of each stage, evenly spaced where a source could be sampled so."""

    problems: list[str]
    characters: dict[str, dict[str, int]]
    examples: dict[StageName, list[Example]]


def inspect_sources(recipe: Run) -> Inspection:
    """What a build of the recipe would meet.

    Passes over a small source (data.max_epochs) count as often as the build would write them.
    Reads the rows of every file for their number (so a damaged gzip file shows) but takes only the
    first for their characters by language.
    """
    problems = filter_problems(recipe)
    try:
        if recipe.data.quarantine:
            index_of(recipe.data.quarantine, recipe.data.root)
    except UserError as error:
        problems.append(str(error))
    problems += source_list_problems(recipe)
    estimate: dict[str, dict[str, int]] = {}
    examples: dict[StageName, list[Example]] = {}
    for stage in recipe.stages():
        train: dict[str, _Size] = {}
        replay: dict[str, _Size] = {}
        examples[stage] = []
        problems += _weights(recipe, stage)
        for source in recipe.sources(stage):
            group = replay if stage == "knowledge" and source.role == "replay" else train
            try:
                size = group[source.source] = _size(recipe, stage, source)
            except UserError as error:
                problems.append(str(error))
                continue
            seen, size.examples = size.examples, []
            some = seen[:: max(1, -(-len(seen) // KEPT))]
            examples[stage] += [styled(example, recipe.seed) for example in some]
        repeated = _repeated(recipe, stage, train)
        estimate[stage] = dict(repeated + _capped(recipe, replay, repeated))
    return Inspection(problems, estimate, examples)


def _weights(recipe: Run, stage: StageName) -> list[str]:
    counts: dict[str, dict[str, int]] = {}
    for source in recipe.sources(stage):
        group = "replay" if stage == "knowledge" and source.role == "replay" else "train"
        counts.setdefault(group, {})[source.source] = 1
    weights = {source.source: source.weight for source in recipe.sources(stage)}
    try:
        for names in counts.values():
            mix.targets(names, weights, tau=recipe.data.tau, cap=recipe.data.cap)
    except UserError as error:
        return [f"data.{stage}: {error}"]
    return []


@dataclass
class _Size:
    """What a source is likely to give: characters by language, and records (parts of texts)."""

    characters: Counter[str] = field(default_factory=Counter)
    records: float = 0.0
    examples: list[Example] = field(default_factory=list)

    def add(self, item: object, entry: catalogue.SourceEntry, data: Data, weight: float) -> None:
        """One item that stands for `weight` of them."""
        if not isinstance(item, Document | Example):
            return
        record = stamp(item, entry)
        size = characters(record)
        if isinstance(record, Document) and size < data.min_chars:
            return
        self.characters[record.lang] += round(size * weight)
        cut = isinstance(record, Document)
        if isinstance(record, Example):
            self.examples.append(record)
        self.records += weight * (-(-size // data.max_chars) if cut else 1)


def _repeated(recipe: Run, stage: StageName, sizes: dict[str, _Size]) -> Counter[str]:
    """Characters by language of a group, each source as often as it is passed over."""
    data = recipe.data
    weights = {source.source: source.weight for source in recipe.sources(stage)}
    counts = {name: max(1, round(size.records)) for name, size in sizes.items() if size.records}
    try:
        share = mix.targets(counts, weights, tau=data.tau, cap=data.cap)
    except UserError:  # told by _weights
        share = dict.fromkeys(counts, 1.0)
    wanted = mix.draws(counts, share, data.max_epochs)
    total: Counter[str] = Counter()
    for name, count in counts.items():
        for lang, n in sizes[name].characters.items():
            total[lang] += round(n * wanted[name] / count)
    return total


def _capped(recipe: Run, replay: dict[str, _Size], train: Counter[str]) -> Counter[str]:
    """Replay up to its share of the characters, after `max_epochs` passes at most."""
    found: Counter[str] = Counter()
    for size in replay.values():
        found.update(size.characters)
    share = recipe.data.replay_share
    if not found.total():
        return found
    most = recipe.data.max_epochs
    scale = most if share >= 1 else min(most, share / (1 - share) * train.total() / found.total())
    return Counter({lang: int(n * scale) for lang, n in found.items()})


def _size(recipe: Run, stage: StageName, source: Source) -> _Size:
    """What a source is likely to give."""
    entry = catalogue.find(source.source, where=f"data.{stage}")
    check_use(stage, source, entry)
    found = _Size()
    if entry.reader == "trialgen":
        # Items are alike and simulating them takes time: a few tell the size.
        few = min(20, source.limit)
        settings = source.model_copy(update={"limit": few})
        for item in open_items(recipe, settings, entry, ()):
            found.add(item, entry, recipe.data, source.limit / few)
        return found
    for origin in source.of or (entry.name,):
        files = files_of(catalogue.find(origin), recipe.data.root, source.path)
        parts = [Part(file) for file in files]
        if entry.reader in READERS:
            sample = _sample(READERS[entry.reader], parts, source.limit)
        else:  # a few hundred items of one file, or what a builder makes of the first rows
            of = origin if source.of else ""
            items = open_items(recipe, source, entry, parts, of)
            sample = [(1.0, item) for item in islice(items, SAMPLE if of else None)]
            if not of:
                _check_rows(recipe, source, entry, [item for _, item in sample])
        for weight, item in sample:
            found.add(item, entry, recipe.data, weight)
    return found


def _check_rows(
    recipe: Run, source: Source, entry: catalogue.SourceEntry, items: list[Item]
) -> None:
    """Raise UserError when all rows of a source have more bad ones than the build allows a file.

    The build asks this file by file: what is told here, it would tell, too.
    """
    places = Places(hidden=source.phi != "off")
    file = places.file(source.path or entry.name)
    faults = [
        (file, places.row(source.path, item.where), places.what(item.what))
        for item in items
        if isinstance(item, Fault)
    ]
    rows = sum(not isinstance(item, Change) for item in items)
    shares = {"files": {file: [rows, len(faults), 1]}, "faults": faults}
    check_shares(entry, [shares], recipe.data.max_bad_rows)


def _sample(reader: Reader, parts: list[Part], limit: int) -> list[tuple[float, Item]]:
    """(weight, item) of evenly spaced rows, at most 2 * SAMPLE: all are read, few converted."""
    rows: list[Row] = []
    step, count = 1, 0
    for part in parts:
        for row in reader.rows(part):
            if limit and count >= limit:
                break
            if not isinstance(row, Fault) and count % step == 0:
                rows.append(row)
                if len(rows) > 2 * SAMPLE:
                    rows, step = rows[::2], step * 2
            count += 1
    found: list[tuple[float, Item]] = []
    for where, fields in rows:
        try:
            found += [(count / len(rows), item) for item in reader.convert(where, fields)]
        except UserError:
            continue  # the build counts it as a bad row
    return found
