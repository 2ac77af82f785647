"""Benchmarks found under a data folder -> an index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medexpert.data.quarantine.ids import LISTS
from medexpert.data.quarantine.index import Builder, Index, Item, save
from medexpert.records import UserError

ALL = "all"
FILE = "file:"
"""Prefix of a benchmark that is a JSONL file of the user's own."""

Facts = dict[str, dict[str, Any]]


def prepare(names: Sequence[str], root: str, file: str) -> Facts:
    """Write the index of the named benchmarks to `file`; returns facts by benchmark.

    `names` are benchmarks of the catalogue, `file:PATH` for a JSONL file of one's own, or "all":
    every one whose files are under `root`; those that are not are in the facts with `checked`
    False. PubMedQA's PMIDs ship with us, so it is checked by id (`text` False) without any file.
    Facts: `checked`, `ids`, `items`, `text`, `texts`, `texts_too_short` (no text match),
    `tokens`, `boilerplate_tokens`, `files` (path under root -> SHA-256).
    Raises UserError for an unknown name, a named benchmark without files, a file that breaks its
    schema: half a benchmark read is a quarantine half closed.
    """
    index, missing = index_of(names, root)
    save(index, file)
    return all_facts(index, missing)


def all_facts(index: Index, missing: dict[str, str]) -> Facts:
    """The facts of `prepare`."""
    absent = {"checked": False, "ids": 0, "items": 0, "text": False, "files": {}}
    facts = {name: {"checked": True, **value} for name, value in index.facts.items()}
    return facts | {name: {**absent, "why": why} for name, why in missing.items()}


def index_of(
    names: Sequence[str], root: str, *, say: Callable[[str], None] | None = None
) -> tuple[Index, dict[str, str]]:
    """(index, benchmark -> why it is not checked). Raises as `prepare`."""
    from medexpert.data.catalogue import BENCHMARKS, find_benchmark

    builder = Builder()
    missing: dict[str, str] = {}
    every = ALL in names
    wanted = [name for name in names if name != ALL]
    wanted += [name for name in BENCHMARKS if every and name not in wanted]
    for name in dict.fromkeys(wanted):
        if name.startswith(FILE):
            path = name.removeprefix(FILE)
            _add(builder, name, "file", [path], root)
            continue
        entry = find_benchmark(name, where="data.quarantine")
        try:
            paths = _located(entry, root)
        except UserError as error:
            if name in LISTS:
                paths = []
            elif every and name not in names:
                missing[name] = str(error)
                continue
            else:
                raise
        _add(builder, name, entry.reader, paths, root)
        if say is not None:
            facts = builder.facts[name]
            say(f"benchmark {name}: {facts['items']:,} items" + ("" if paths else ", by id only"))
    return builder.index(), missing


def _located(entry: Any, root: str) -> list[str]:
    from medexpert.data.catalogue import locate

    if not root:
        raise UserError("no data folder given", where=f"benchmark {entry.name!r}")
    paths: list[str] = []
    for path in map(str, locate(entry, root, "")):
        paths += _inside(path) if "://" not in path and Path(path).is_dir() else [path]
    if not paths:
        raise UserError("no file found", where=f"benchmark {entry.name!r}")
    return paths


def _inside(folder: str) -> list[str]:
    """PubMedQA's file in its folder: all items where there, else the half without test items."""
    for pattern in ("ori_pqal.json", "*.parquet", "pqa_labeled/*.parquet", "pqal_train_dev.json"):
        found = sorted(Path(folder).glob(pattern))
        if found:
            return [str(path) for path in found]
    return []


def _add(builder: Builder, name: str, reader: str, paths: list[str], root: str) -> None:
    from medexpert.data.readers.benchmarks import BENCHMARK_READERS

    items: list[Item] = list(BENCHMARK_READERS[reader](paths)) if paths else []
    if paths and not items:
        raise UserError(f"benchmark {name!r} has no item", where=", ".join(paths))
    listed = {pmid: pmid for pmid in sorted(LISTS[name]())} if name in LISTS else {}
    files = {_relative(path, root): _sha256(path) for path in paths}
    builder.add(name, items, listed=listed, files=files)


def _relative(path: str, root: str) -> str:
    """The path under the root: facts are the same wherever the data lies."""
    base = root.rstrip("/") + "/"
    return path.removeprefix(base) if root and path.startswith(base) else Path(path).name


def _sha256(path: str) -> str:
    from medexpert.data.readers.streams import open_raw

    total = hashlib.sha256()
    with open_raw(path) as handle:
        while block := handle.read(1 << 20):
            total.update(block)
    return total.hexdigest()
