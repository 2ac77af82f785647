"""A finished data folder, copied to any fsspec URL; its manifest last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medexpert.data.build.store import Store
from medexpert.manifest import MANIFEST, verify
from medexpert.records import UserError

_CHUNK = 1 << 20


def check_target(folder: Path, url: str) -> None:
    """Raise UserError when `url` lies in `folder`: a copy there would destroy what it copies."""
    target = Store(url).local_folder()
    if target is None:
        return
    own = folder.resolve()
    if target.resolve() == own or own in target.resolve().parents:
        raise UserError(
            "this is the run's own data folder, where the data already is",
            where=f"--out {url}",
            allowed="another folder or an fsspec URL",
        )


def deliver(folder: Path, url: str, *, say: Callable[[str], None]) -> None:
    """Copy what the folder's manifest vouches for.

    Raises UserError for an unfinished folder and for a target inside it.
    """
    check_target(folder, url)
    names = [*verify(folder)["files"], MANIFEST]
    target = Store(url)
    target.delete(MANIFEST)
    for name in names:
        with (folder / name).open("rb") as source, target.writer(name) as out:
            while block := source.read(_CHUNK):
                out.write(block)
        say(f"data: {name} copied to {url}")
