"""What a build would meet, told before it: sources opened, first rows read, sizes estimated."""

from __future__ import annotations

from collections import Counter
from itertools import islice

from medexpert.data import catalogue, mix
from medexpert.data.build.clean import characters
from medexpert.data.build.plan import files_of
from medexpert.data.build.run import filter_problems
from medexpert.data.build.sources import open_items, stamp
from medexpert.data.build.use import check_use, source_list_problems
from medexpert.data.quarantine.prepare import index_of
from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Fault, Item, Part, Reader, Row
from medexpert.recipe import Run, StageName
from medexpert.recipe_data import Source
from medexpert.records import Document, Example, UserError

SAMPLE = 200


def inspect_sources(recipe: Run) -> tuple[list[str], dict[str, dict[str, int]]]:
    """(problems, one line each; {stage: {language: characters}} expected of a build).

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
    for stage in recipe.stages():
        train: Counter[str] = Counter()
        replay: Counter[str] = Counter()
        problems += _weights(recipe, stage)
        for source in recipe.sources(stage):
            group = replay if stage == "knowledge" and source.role == "replay" else train
            try:
                group.update(_size(recipe, stage, source))
            except UserError as error:
                problems.append(str(error))
        estimate[stage] = dict(train + _capped(replay, train, recipe.data.replay_share))
    return problems, estimate


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


def _capped(replay: Counter[str], train: Counter[str], share: float) -> Counter[str]:
    """Replay beyond its share of the characters is not used."""
    if not replay or share >= 1:
        return replay
    wanted = share / (1 - share) * train.total()
    scale = min(1.0, wanted / replay.total())
    return Counter({lang: int(n * scale) for lang, n in replay.items()})


def _size(recipe: Run, stage: StageName, source: Source) -> dict[str, int]:
    """Characters by language that a source is likely to give."""
    entry = catalogue.find(source.source, where=f"data.{stage}")
    check_use(stage, source, entry)
    by_language: Counter[str] = Counter()
    if entry.reader == "trialgen":
        # Items are alike and simulating them takes time: a few tell the size.
        few = min(20, source.limit)
        settings = source.model_copy(update={"limit": few})
        for item in open_items(recipe, settings, entry, ()):
            _count(by_language, item, entry, recipe.data.min_chars)
        return {lang: n * source.limit // few for lang, n in by_language.items()}
    for origin in source.of or (entry.name,):
        files = files_of(catalogue.find(origin), recipe.data.root, source.path)
        parts = [Part(file) for file in files]
        if entry.reader in READERS:
            sample = _sample(READERS[entry.reader], parts, source.limit)
        else:  # a few hundred items of one file, or what a builder makes of the first rows
            of = origin if source.of else ""
            items = open_items(recipe, source, entry, parts, of)
            sample = [(1.0, item) for item in islice(items, SAMPLE if of else None)]
        for weight, item in sample:
            sizes: Counter[str] = Counter()
            _count(sizes, item, entry, recipe.data.min_chars)
            by_language += Counter({lang: round(n * weight) for lang, n in sizes.items()})
    return dict(by_language)


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


def _count(sizes: Counter[str], item: object, entry: catalogue.SourceEntry, least: int) -> None:
    if isinstance(item, Document | Example):
        record = stamp(item, entry)
        size = characters(record)
        sizes[record.lang] += size if isinstance(record, Example) or size >= least else 0
