"""Heads of published files under a data folder, to break; and all seeds together.

A seed holds at most the first rows of a file and is read anew each time; nothing of it is written
anywhere but to a scratch folder.
"""

from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path
from typing import Any

from formats import Seed, own

HEAD_ROWS = 12
HEAD_BYTES = 60_000


def _shorter(value: Any, depth: int = 0) -> Any:
    """The first members of the object and of every list of objects in a JSON value."""
    if isinstance(value, dict):
        kept = list(value.items())[: HEAD_ROWS if depth == 0 else None]
        return {name: _shorter(held, depth + 1) for name, held in kept}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_shorter(held, depth + 1) for held in value[:HEAD_ROWS]]
    return value


def head_of(path: Path) -> tuple[str, bytes] | None:
    """(name, first rows) of a published file, unpacked; None for one that has no rows."""
    name = path.name.removesuffix(".gz")
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
        if name.endswith(".json"):
            start = handle.read(1 << 26)
            try:
                return name, _dumped(_shorter(json.loads(start)))
            except ValueError:
                lines = start.splitlines(keepends=True)
        else:
            lines = [handle.readline() for _ in range(HEAD_ROWS)]
    held: list[bytes] = []
    for line in lines[:HEAD_ROWS]:
        if sum(map(len, held)) + len(line) <= HEAD_BYTES:
            held.append(line)
    return (name, b"".join(held)) if held else None


@functools.cache
def real(root: str) -> tuple[Seed, ...]:
    """Heads of the published files under `root`, each with its catalogue reader; none: empty."""
    from medexpert.data.catalogue import BENCHMARKS, SOURCES
    from medexpert.data.readers import READERS
    from medexpert.data.readers.abstracts import ABSTRACT_READERS

    seeds: list[Seed] = []
    folder = Path(root)
    tables = [("reader", entry) for entry in SOURCES.values()]
    tables += [("benchmark", entry) for entry in BENCHMARKS.values()]
    for family, entry in tables:
        found = [path for pattern in entry.files for path in _found(folder, pattern)]
        head = head_of(found[0]) if root and found else None
        if head is None:
            continue
        if family == "benchmark" or entry.reader in READERS:
            seeds.append(Seed(family, entry.reader, *head, real=True))
        if family == "reader" and entry.reader in ABSTRACT_READERS:
            seeds.append(Seed("abstract", entry.reader, *head, real=True))
        if family == "reader" and entry.reader == "evidence_inference":
            seeds.append(Seed("evidence", "rows", *head, real=True))
    return tuple(dict.fromkeys(seeds))


def _found(folder: Path, pattern: str) -> list[Path]:
    for one in (pattern, pattern.removesuffix(".gz"), f"{pattern}.gz"):
        if found := sorted(path for path in folder.glob(one) if path.is_file()):
            return found
    return []


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def seeds(root: str = "") -> tuple[Seed, ...]:
    """Every file to break: our own, and the published heads where the data folder is there."""
    return own() + (real(root) if root else ())
