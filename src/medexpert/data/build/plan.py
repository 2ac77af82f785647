"""Recipe -> shards: which rows of which files one task reads. Depends on the files alone.

The plan is the same for one worker and for a thousand, so the built data is too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medexpert.data import catalogue
from medexpert.data.build.use import check_use
from medexpert.data.catalogue import SourceEntry
from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Part
from medexpert.recipe import Run, StageName, restore
from medexpert.recipe_data import Source
from medexpert.records import UserError

SHARD_BYTES = 16 << 20
PACKED_BYTES = 4 << 20  # of a packed file, whose text is about four times as long
MAX_PARTS = 32  # a slice reads the whole file and parses its share: 32 cost about a tenth more
MAX_PACKED_PARTS = 8  # and unpacks it
PACKED = (".gz", ".bz2", ".xz", ".parquet", ".zip", ".tgz")


@dataclass(frozen=True)
class Shard:
    """The parts that one cleaning task reads. `of` is the source that a builder builds from."""

    number: int
    stage: StageName
    source: str
    parts: tuple[Part, ...]
    of: str = ""


@dataclass(frozen=True)
class Job:
    """All that a task on any machine needs; kept as `job.json` in the work folder."""

    recipe: Run
    key: str
    work: str
    shards: tuple[Shard, ...]
    quarantine: str

    def to_json(self) -> str:
        """The job as JSON."""
        return json.dumps(
            {
                "recipe": self.recipe.model_dump(mode="json"),
                "key": self.key,
                "work": self.work,
                "shards": [asdict(shard) for shard in self.shards],
                "quarantine": self.quarantine,
            }
        )

    @staticmethod
    def from_json(text: str | bytes) -> Job:
        """The job back from JSON."""
        value: dict[str, Any] = json.loads(text)
        shards = tuple(
            Shard(**{**row, "parts": tuple(Part(**part) for part in row["parts"])})
            for row in value["shards"]
        )
        recipe = restore(value["recipe"])
        return Job(recipe, value["key"], value["work"], shards, value["quarantine"])

    def source(self, shard: Shard) -> Source:
        """The recipe's settings of a shard's source."""
        return next(s for s in self.recipe.sources(shard.stage) if s.source == shard.source)

    def of_stage(self, stage: StageName) -> list[Shard]:
        """The shards of one stage, in order."""
        return [shard for shard in self.shards if shard.stage == stage]


def plan(recipe: Run) -> tuple[Shard, ...]:
    """Every shard of a build, numbered from 0. Raises UserError for a source that is not there."""
    shards: list[Shard] = []
    for stage in recipe.stages():
        for source in recipe.sources(stage):
            entry = catalogue.find(source.source, where=f"data.{stage}")
            check_use(stage, source, entry)
            for of, parts in _groups(recipe, source, entry):
                shards.append(Shard(len(shards), stage, source.source, tuple(parts), of))
    return tuple(shards)


def _groups(recipe: Run, source: Source, entry: SourceEntry) -> Iterator[tuple[str, list[Part]]]:
    """(builder's source, parts) of each shard of a source."""
    for name in source.of or ("",):
        origin = catalogue.find(name, where=f"source {entry.name!r}: of") if name else entry
        files = files_of(origin, recipe.data.root, source.path)
        if source.limit or not files:
            yield name, [Part(file) for file in files]
            continue
        splits = origin.reader in READERS and READERS[origin.reader].splits
        for parts in group(((file, size_of(file)) for file in files), splits=splits):
            yield name, parts


def group(files: Iterable[tuple[str, int]], *, splits: bool) -> Iterator[list[Part]]:
    """Files (path, bytes) as shards: a large file in several, small neighbours in one."""
    held: list[Part] = []
    room = 0.0
    for file, size in files:
        share = size / (PACKED_BYTES if file.endswith(PACKED) else SHARD_BYTES)
        most = MAX_PACKED_PARTS if file.endswith(PACKED) else MAX_PARTS
        pieces = min(most, max(1, round(share))) if splits else 1
        if pieces > 1 or share >= 1:
            if held:
                yield held
                held, room = [], 0.0
            yield from ([Part(file, index, pieces)] for index in range(pieces))
            continue
        if room + share > 1 and held:
            yield held
            held, room = [], 0.0
        held.append(Part(file))
        room += share
    if held:
        yield held


def files_of(entry: SourceEntry, root: str, path: str) -> list[str]:
    """The files of a source, in order; none for a generated one. Raises UserError."""
    if entry.reader == "local-text":
        from medexpert.data.readers import local

        if not path:
            raise UserError(
                f"source {entry.name!r} needs path = the folder or file of your own text"
            )
        found: list[str] = local.files(path)
        return found
    return [str(file) for file in catalogue.locate(entry, root, path)]


def size_of(file: str) -> int:
    """Bytes of a local file or URL. Raises UserError."""
    try:
        if "://" not in file:
            return Path(file).stat().st_size
        import fsspec

        fs, place = fsspec.core.url_to_fs(file)
        return int(fs.size(place) or 0)
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror or error})", where=file) from None
