"""What a build would meet, told before it: sources opened, first rows read, sizes estimated."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

from medexpert.data import catalogue, mix, quarantine
from medexpert.data.gather import characters, limited, open_source, source_list_problems, stamp
from medexpert.data.readers.rows import Change, Drop, raw_lines
from medexpert.recipe import Run, Source, StageName
from medexpert.records import Document, Example, UserError

SAMPLE = 200


def inspect_sources(recipe: Run) -> tuple[list[str], dict[str, dict[str, int]]]:
    """(problems, one line each; {stage: {language: characters}} expected of a build).

    Reads every file to its end for its size (so a damaged gzip file shows) but parses only the
    first rows; their characters a byte, by language, stand for the rest of the file.
    """
    problems: list[str] = []
    try:
        quarantine.load(recipe.data.quarantine)
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
    paths = catalogue.locate(entry, recipe.data.root, source.path)
    items = open_source(recipe, stage, source, entry)
    if entry.reader == "trialgen":
        # Items are alike and simulating them takes time: a few tell the size.
        few = min(20, source.limit)
        found, factor = islice(items, few), source.limit / few
    elif entry.reader in ("pubmedqa", "headqa"):
        found, factor = islice(limited(items, source.limit), None), 1.0
    else:
        wanted = min(SAMPLE, source.limit or SAMPLE)
        found, factor = islice(limited(items, wanted), None), _growth(paths, wanted, source.limit)
    by_language: Counter[str] = Counter()
    for item in found:
        if not isinstance(item, Change | Drop):
            record = stamp(item, entry)
            by_language[record.lang] += _usable(record, recipe.data.min_chars)
    return {lang: int(n * factor) for lang, n in by_language.items()}


def _usable(record: Document | Example, min_chars: int) -> int:
    size = characters(record)
    return size if isinstance(record, Example) or size >= min_chars else 0


def _growth(paths: list[Path], sample: int, limit: int) -> float:
    """Bytes of the rows that a build reads over the bytes of the first `sample` rows."""
    row = first = read = 0
    for path in paths:
        for _, line in raw_lines(path):
            row += bool(line.strip())
            first += len(line) if row <= sample else 0
            read += len(line) if not limit or row <= limit else 0
    return read / max(first, 1)
