"""Where a file may lie: a local path or any fsspec URL (s3://, gs://, memory://), asked alike."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from medexpert.records import UserError


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a local path."""
    return "://" in place


def join(base: str, name: str) -> str:
    """A name inside a folder; an empty base leaves the name as it is."""
    if not base:
        return name
    return f"{base.rstrip('/')}/{name}" if is_url(base) else str(Path(base) / name)


def is_file(place: str) -> bool:
    """Whether a file is there. Raises UserError for a URL that cannot be asked."""
    if not is_url(place):
        return Path(place).is_file()
    system, path = _system(place)
    return bool(_asked(place, system.isfile, path))


def is_folder(place: str) -> bool:
    """Whether a folder is there. Raises UserError for a URL that cannot be asked."""
    if not is_url(place):
        return Path(place).is_dir()
    system, path = _system(place)
    return bool(_asked(place, system.isdir, path))


def matching(base: str, name: str) -> list[str]:
    """Files of `base` whose path matches `name`; `*` stands for anything but a slash. Sorted."""
    if not is_url(base or name):
        # only the pattern is one: a `[` in the folder's own name is a letter like any other
        pattern = join(glob.escape(base), name) if base else name
        return sorted(path for path in glob.glob(pattern) if Path(path).is_file())
    place = join(base, name)
    if "*" not in name:
        return [place] if is_file(place) else []
    system, path = _system(place)
    found = _asked(place, system.glob, path)
    return sorted(str(system.unstrip_protocol(one)) for one in found if not str(one).endswith("/"))


def _system(place: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot be opened: {_line(error)}", where=place) from None
    return system, path


def _asked(place: str, question: Any, path: str) -> Any:
    """The answer of a file system; a refusal or a dead connection is one line."""
    try:
        return question(path)
    except UserError:
        raise
    except Exception as error:  # every file system has its own errors
        raise UserError(f"cannot be reached: {_line(error)}", where=place) from None


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
