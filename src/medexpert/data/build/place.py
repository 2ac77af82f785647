"""Where a build keeps its intermediate files, and that one build at a time works there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from medexpert.manifest import disk_errors
from medexpert.recipe import Run
from medexpert.records import UserError

OWN = ".work"
_NAMED = 12


def work_place(recipe: Run, folder: Path) -> str:
    """The path or URL of a build's own work folder: nothing else is ever written or removed.

    In the data folder, or a sub-folder of `data.work` that is named by the recipe and by the
    run folder, so that builds of other runs and the user's files beside it stay as they are.
    Raises UserError for a place that the executor's processes cannot share.
    """
    settings = recipe.data
    base = settings.work
    if not base:
        return str(folder.resolve() / OWN)
    if "://" not in base:
        if settings.executor != "local" and not os.path.isabs(base):
            raise UserError(
                "must be an absolute path or a URL that every node sees", where="data.work"
            )
        base = str(Path(base).resolve())
    elif _scheme(base) == "memory" and (settings.executor != "local" or settings.workers != 1):
        raise UserError(
            "memory:// is seen by one process alone",
            where="data.work",
            allowed='workers = 1 with executor = "local", or a place that every process sees',
        )
    run = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:_NAMED]
    return f"{base}{'' if base.endswith('/') else '/'}medexpert-{recipe.name}-{run}"


def _scheme(url: str) -> str:
    """Of the file system that a URL ends in: memory for simplecache::memory://x."""
    return url.partition("://")[0].rpartition("::")[2]


@contextmanager
def sole_builder(place: str, folder: Path) -> Iterator[None]:
    """Hold a work folder; a second build of the same run is refused. A kill ends the lock.

    A folder left in the data folder by a build that was killed and now works elsewhere is removed.
    """
    remote = "://" in place
    file = folder / f"{OWN}.lock" if remote else Path(f"{place}.lock")
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(file)
    try:
        own = folder.resolve() / OWN
        if place != str(own):
            shutil.rmtree(own, ignore_errors=True)
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is still held
        handle.close()


def _locked(file: Path) -> IO[str]:
    while True:
        handle = file.open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "?"
            handle.close()
            raise UserError(
                f"another build (process {holder}) works here",
                where=str(file.with_suffix("")),
            ) from None
        try:
            same = os.path.samestat(os.fstat(handle.fileno()), file.stat())
        except FileNotFoundError:
            same = False
        if same:
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            return handle
        handle.close()  # its holder removed it between our opening and locking it: another try
