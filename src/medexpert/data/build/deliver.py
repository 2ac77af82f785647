"""A finished data folder, copied to any fsspec URL; its manifest last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medexpert.data.build.store import Store
from medexpert.manifest import MANIFEST, verify

_CHUNK = 1 << 20


def deliver(folder: Path, url: str, *, say: Callable[[str], None]) -> None:
    """Copy what the folder's manifest vouches for. Raises UserError for an unfinished folder."""
    names = [*verify(folder)["files"], MANIFEST]
    target = Store(url)
    target.delete(MANIFEST)
    for name in names:
        with (folder / name).open("rb") as source, target.writer(name) as out:
            while block := source.read(_CHUNK):
                out.write(block)
        say(f"data: {name} copied to {url}")
