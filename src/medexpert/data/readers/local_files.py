"""Which files a user's folder holds, and the path of each inside it. Links may not lead out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from medexpert.records import UserError

MARK = "/./"


def files(path: str) -> list[str]:
    """Every file of a folder in the order of its path, each as FOLDER/./PATH, or the one file.

    Hidden files and folders, links inside the folder and unknown kinds are listed too: reading one
    gives a Drop with the reason, so that they are counted. Raises UserError for a missing path, an
    empty folder, and a symbolic link that leaves the folder.
    """
    if "://" in path:
        return _remote(path.rstrip("/"))
    root = Path(path)
    if not root.exists():
        raise UserError("no such file or folder", where=path)
    if not root.is_dir():
        return [path]
    found = sorted(_walk(root, ""))
    if not found:
        raise UserError("the folder holds no file", where=path)
    return [f"{root}{MARK}{name}" for name in found]


def _walk(root: Path, inner: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(root / inner))
    except OSError as error:
        what = f"cannot be listed ({error.strerror})"
        raise UserError(what, where=str(root / inner)) from None
    for entry in entries:
        name = f"{inner}{entry.name}"
        if entry.is_symlink():
            check_inside(str(root), name)
            yield name
        elif entry.is_dir() and not entry.name.startswith("."):
            yield from _walk(root, f"{name}/")
        else:
            yield name


def check_inside(root: str, name: str) -> None:
    """Raises UserError when a path of the folder leads to a place outside it."""
    real, base = os.path.realpath(os.path.join(root, name)), os.path.realpath(root)
    if real != base and not real.startswith(base.rstrip(os.sep) + os.sep):
        raise UserError(
            "leads out of the folder (a symbolic link); copy the file or remove the link",
            where=f"{root}/{name}",
        )


def _remote(url: str) -> list[str]:
    try:
        import fsspec

        system, root = fsspec.core.url_to_fs(url)
        if system.isdir(root):
            found = sorted(system.find(root))
            if not found:
                raise UserError("the folder holds no file", where=url)
            return [f"{url}{MARK}{name[len(root) :].lstrip('/')}" for name in found]
        if not system.exists(root):
            raise UserError("no such file or folder", where=url)
    except ImportError as error:
        raise UserError(f"this kind of URL needs another package ({error})", where=url) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be listed ({error})", where=url) from None
    return [url]


def split_path(path: str) -> tuple[str, str]:
    """(path to open, id inside the folder); a path without the mark has its last part as id."""
    root, mark, inner = path.rpartition(MARK)
    if not mark:
        return path, _name(path.rstrip("/").rsplit("/", 1)[-1])
    return f"{root}/{inner}", _name(inner)


def _name(inner: str) -> str:
    """A path as an id: what cannot be printed or encoded is written as an escape."""
    inner = inner.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in inner)
