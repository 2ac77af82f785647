"""Folders that appear whole or not at all, the model cache, and its lock.

A folder is filled under a hidden name beside its place and renamed when everything is on disk. What
a killed process leaves behind keeps the hidden name, is never taken for finished work, and is
swept by the next writer of the same folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medexpert.manifest import MANIFEST, disk_errors, verify
from medexpert.records import UserError

CACHE_VARIABLE = "MEDEXPERT_CACHE"

Progress = Callable[[str], None]


def silent(line: str) -> None:
    """The progress function that says nothing."""


def cache_root(cache: Path | None = None) -> Path:
    """The cache folder: the one given, else $MEDEXPERT_CACHE, else ~/.cache/medexpert."""
    root = (cache or Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/medexpert")).expanduser()
    if root.exists() and not root.is_dir():
        raise UserError("the model cache must be a folder", where=str(root))
    return root


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder` when the block ends without an error.

    One writer per `folder` is assumed (the cache holds a lock; a run folder has one process). An
    existing `folder` is replaced only if it is empty or one of ours (it holds `manifest.json`).

    Raises UserError when the disk is full, the place cannot be written, or it holds other files.
    """
    with disk_errors(folder), _disk_full_in_safetensors():
        _refuse_foreign(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f".{folder.name}.partial-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = folder.parent / f".{folder.name}.partial-{secrets.token_hex(4)}"
        try:
            temporary.mkdir()
            yield temporary
            _sync(temporary)
            _swap(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def _refuse_foreign(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UserError(
            "this folder holds files that medexpert did not write; nothing was replaced: "
            "name another folder, or empty this one",
            where=str(folder),
        )
    if folder.exists() and not folder.is_dir():
        raise UserError("a folder is expected here, but it is a file", where=str(folder))


def _sync(folder: Path) -> None:
    """Flush the files to disk, so that the rename cannot outlive their contents."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as handle:
            os.fsync(handle.fileno())


def _swap(temporary: Path, folder: Path) -> None:
    """Put `temporary` in the place of `folder`. A folder cannot be renamed over a full one."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = folder.parent / f".{folder.name}.partial-old-{secrets.token_hex(4)}"
    folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _disk_full_in_safetensors() -> Iterator[None]:
    """safetensors reports a full disk as its own error type with the code in the text."""
    try:
        yield
    except Exception as error:
        text = str(error)
        if type(error).__name__ == "SafetensorError" and (
            "StorageFull" in text or "code: 28" in text or "No space left" in text
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        raise


@contextmanager
def locked(folder: Path, progress: Progress = silent) -> Iterator[None]:
    """Hold the lock file of a cached folder; a second process waits and then finds it ready."""
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        handle = (folder.parent / f".{folder.name}.lock").open("a")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another process is preparing {folder.name}; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build_once(
    folder: Path, key: str, fill: Callable[[Path], None], progress: Progress = silent
) -> Path:
    """`folder`, if it is finished work made from `key`; else it is built by `fill(temporary)`.

    `fill` writes the files and, last, a manifest with that key. Sizes and checksums are verified
    on every call; a damaged folder is told and built again.
    """
    if _intact(folder, key, progress):
        return folder
    with locked(folder, progress):
        if not _intact(folder, key, silent):
            with staged(folder) as temporary:
                fill(temporary)
    return folder


def _intact(folder: Path, key: str, progress: Progress) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    try:
        if verify(folder)["key"] == key:
            return True
        progress(f"the cached {folder.name} was made from another source: building it again")
    except UserError as fault:
        progress(f"the cached {folder.name} is damaged ({fault}): building it again")
    return False
