"""SHA-256 of a recipe's input files: what a build's key depends on.

A file that has kept its size and modification time is not read again: the sums are remembered in
one file of the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medexpert.data import catalogue
from medexpert.data.build.plan import files_of
from medexpert.data.readers.streams import open_raw
from medexpert.manifest import write_text
from medexpert.recipe import Run
from medexpert.records import UserError

_CHUNK = 1 << 20
_KEPT = 100_000
_REMOTE: dict[tuple[str, str], str] = {}
"""SHA-256 by URL and what its server tells of the file: each is read once a process."""


def cache_file() -> Path:
    """Where sums are remembered: MEDEXPERT_CACHE, else the user's cache folder."""
    base = os.environ.get("MEDEXPERT_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "medexpert") / "sha256.json"


class Sums:
    """SHA-256 by path, size and modification time; remembered across runs where that can be."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file or cache_file()
        self._known: dict[str, list[Any]] = {}
        self._new = False
        try:
            held = json.loads(self._file.read_text("utf-8"))
            self._known = {k: v for k, v in held.items() if isinstance(v, list) and len(v) == 3}
        except (OSError, ValueError, AttributeError):
            pass  # no memory: every file is read

    def of(self, path: str) -> str:
        """Hex SHA-256 of a file's bytes. Raises UserError when it cannot be read."""
        if "://" in path:
            return _remote(path)
        try:
            state = os.stat(path)
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", where=path) from None
        mark = [state.st_size, state.st_mtime_ns]
        place = os.path.abspath(path)
        held = self._known.get(place)
        if held is not None and held[:2] == mark:
            return str(held[2])
        value = _sum(path)
        self._known[place] = [*mark, value]
        self._new = True
        return value

    def save(self) -> None:
        """Remember; a cache folder that cannot be written costs time only."""
        if self._new and len(self._known) <= _KEPT:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._file, json.dumps(self._known))
            except (OSError, UserError):
                return


def _sum(path: str) -> str:
    state = hashlib.sha256()
    with open_raw(path) as handle:
        while block := handle.read(_CHUNK):
            state.update(block)
    return state.hexdigest()


def _remote(url: str) -> str:
    import fsspec

    try:
        fs, place = fsspec.core.url_to_fs(url)
        told = str(sorted(fs.info(place).items(), key=lambda pair: str(pair[0])))
    except Exception:  # whatever a file system raises, opening the file tells it better
        return _sum(url)
    if (url, told) not in _REMOTE:
        _REMOTE[url, told] = _sum(url)
    return _REMOTE[url, told]


def source_digests(recipe: Run) -> dict[str, dict[str, str]]:
    """ "stage/source" -> {path: SHA-256}: the raw data that a build's key depends on.

    Holds only the stages that are switched on. Paths are as short as tells them apart. Raises
    UserError for a source that is not there.
    """
    return {name: shortened(sums) for name, sums in source_sums(recipe).items()}


def source_sums(recipe: Run) -> dict[str, dict[str, str]]:
    """As :func:`source_digests`, by the paths as they are."""
    sums = Sums()
    found: dict[str, dict[str, str]] = {}
    for stage in recipe.stages():
        for source in recipe.sources(stage):
            entry = catalogue.find(source.source, where=f"data.{stage}")
            files: list[str] = []
            for origin in [catalogue.find(name) for name in source.of] or [entry]:
                for place in files_of(origin, recipe.data.root, source.path):
                    files += _inside(place)
            found[f"{stage}/{entry.name}"] = {file: sums.of(file) for file in files}
    sums.save()
    return found


def _inside(place: str) -> list[str]:
    """PubMedQA's place may be a folder: the files that its reader looks at."""
    if "://" in place or not Path(place).is_dir():
        return [place]
    return sorted(
        str(file) for file in Path(place).rglob("*") if file.suffix in (".json", ".parquet")
    )


def shortened(sums: Mapping[str, str]) -> dict[str, str]:
    """The same sums by paths without their common folder."""
    names = short_names(sums)
    return {names[path]: value for path, value in sums.items()}


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Path or URL -> what is left of it without the folder that all share."""
    # A URL's // stays one separator and the mark of a user's folder, /./, is none.
    split = {path: [step for step in path.split("/") if step != "."] for path in paths}
    cut = 0
    for names in zip(*(steps[:-1] for steps in split.values()), strict=False):
        if len(set(names)) > 1:
            break
        cut += 1
    return {path: "/".join(steps[cut:]) for path, steps in split.items()}


def benchmark_digests(recipe: Run) -> dict[str, dict[str, str]]:
    """Benchmark -> {path: SHA-256} of the quarantine's benchmarks; empty for one not found."""
    names = recipe.data.quarantine
    wanted = [*catalogue.BENCHMARKS] if "all" in names else []
    wanted += [name for name in names if name not in ("all", *wanted)]
    sums = Sums()
    found: dict[str, dict[str, str]] = {}
    for name in wanted:
        files = benchmark_files(name, recipe.data.root)
        found[name] = shortened({file: sums.of(file) for file in files})
    sums.save()
    return found


def benchmark_files(name: str, root: str) -> list[str]:
    """The files of a benchmark of the catalogue or of `file:PATH`; none when they are not there.

    Raises UserError for an unknown name.
    """
    if name.startswith("file:"):
        return [name.removeprefix("file:")]
    entry = catalogue.find_benchmark(name, where="data.quarantine")
    try:
        places = [str(place) for place in catalogue.locate(entry, root)] if root else []
    except UserError:
        return []
    return [file for place in places for file in _inside(place)]
