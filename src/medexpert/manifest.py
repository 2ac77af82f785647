"""How a finished piece of work is told from a half-written one, for every room.

A step writes its files, then `manifest.json` last. The manifest names the step's key (what it was
made from) and the size and SHA-256 of each file it vouches for. No manifest, or one that does not
match, means: not done. Single files are replaced atomically (written beside, synced, renamed).
Standard library only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from medexpert._version import __version__
from medexpert.records import UserError

MANIFEST = "manifest.json"
_CHUNK = 1 << 20
_PROVENANCE: ContextVar[Mapping[str, Any] | None] = ContextVar("provenance", default=None)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    state = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_CHUNK):
            state.update(block)
    return state.hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left' and 'read-only' into one clear line naming the path and what is free."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(_existing(path)).free / 2**20
            raise UserError(
                f"the disk is full ({free:.0f} MiB free); nothing half-written is kept: "
                "free some space and run the same command to continue",
                where=str(path),
            ) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(f"cannot write here ({error.strerror})", where=str(path)) from None
        raise


def _existing(path: Path) -> Path:
    for candidate in (path, *path.parents):
        if candidate.exists():
            return candidate
    return Path.cwd()


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing so that it appears whole or not at all (written beside, renamed)."""
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Replace `path` with `text` (UTF-8) atomically."""
    with atomic(path) as handle:
        handle.write(text.encode("utf-8", "backslashreplace"))  # a file name may be no UTF-8


def write_json(path: Path, value: Any) -> None:
    """Replace `path` with indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises UserError naming the place of the fault, never a traceback."""
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 (byte {error.start})", where=str(path)) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"not valid JSON: {error.msg} (column {error.colno})", where=f"{path}:{error.lineno}"
        ) from None


@contextmanager
def provenance(facts: Mapping[str, Any]) -> Iterator[None]:
    """Every manifest written inside the block also holds `facts`: the recipe and its hash."""
    token = _PROVENANCE.set(facts)
    try:
        yield
    finally:
        _PROVENANCE.reset(token)


def write_manifest(
    folder: Path, *, key: str, files: Iterable[Path], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write `folder/manifest.json`, last. `facts` is what a reader wants to know about the step."""
    entry = {
        "key": key,
        "files": {
            file.relative_to(folder).as_posix(): {
                "bytes": file.stat().st_size,
                "sha256": sha256_file(file),
            }
            for file in sorted(files)
        },
        **facts,
        **(_PROVENANCE.get() or {}),
        "versions": versions(),
    }
    write_json(folder / MANIFEST, entry)
    return entry


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder. Raises UserError when the folder is not finished."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError("not a finished folder: it has no manifest.json", where=str(folder))
    value = read_json(path)
    if not _is_manifest(value):
        raise UserError("not a manifest: an object with 'key' and 'files'", where=str(path))
    entry: dict[str, Any] = value
    return entry


def _is_manifest(value: Any) -> bool:
    if not isinstance(value, dict) or "key" not in value:
        return False
    files = value.get("files")
    return isinstance(files, dict) and all(
        isinstance(facts, dict) and {"bytes", "sha256"} <= set(facts) for facts in files.values()
    )


def verify(folder: Path, *, checksums: bool = True) -> dict[str, Any]:
    """The manifest, after checking each file it names. Raises UserError on the first fault."""
    entry = read_manifest(folder)
    for name, facts in entry["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(
                f"file {name} is missing, though the manifest lists it", where=str(folder)
            )
        if path.stat().st_size != facts["bytes"]:
            raise UserError(
                f"{path.stat().st_size} bytes, but the manifest says {facts['bytes']}",
                where=str(path),
            )
        if checksums and sha256_file(path) != facts["sha256"]:
            raise UserError("its SHA-256 differs from the manifest's", where=str(path))
    return entry


def is_finished(folder: Path) -> bool:
    """Whether `folder` holds finished work, whatever it was made from; contents are not read."""
    try:
        return bool(verify(folder, checksums=False))
    except UserError:
        return False


def is_complete(folder: Path, key: str) -> bool:
    """Whether `folder` holds finished work made from exactly `key`, with every file intact."""
    try:
        return bool(verify(folder)["key"] == key)
    except UserError:
        return False


def output_digest(folder: Path) -> str:
    """Digest of what a finished folder holds (file names and checksums, not how it was made)."""
    files = read_manifest(folder)["files"]
    return _digest_sums({name: files[name]["sha256"] for name in files})


def digest_files(paths: Iterable[Path]) -> str:
    """The same digest for files that no manifest vouches for, by name and content."""
    return _digest_sums({path.name: sha256_file(path) for path in paths})


def _digest_sums(sums: Mapping[str, str]) -> str:
    text = "".join(f"{name}={sums[name]}\n" for name in sorted(sums))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions that a number may depend on: ours, Python's, the libraries', the code's commit."""
    found = {"python": platform.python_version(), "commit": code_version()}
    found["medexpert"] = __version__  # an editable install's own record may be older
    for name in ("torch", "transformers", "peft", "tokenizers", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


@cache
def code_version() -> str:
    """Git commit of the source tree, '+changes' when files differ, 'unknown' without git.

    Looked up once: the code that runs is the code that was there when the process started.
    """
    import subprocess

    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed: a repository further up is somebody else's
        return "unknown"
    git = ["git", "--no-optional-locks", "-C", str(root)]
    run: Callable[..., Any] = subprocess.run
    try:
        head = run(
            [*git, "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
        )
        if head.returncode:
            return "unknown"
        state = run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return str(head.stdout).strip() + ("+changes" if str(state.stdout).strip() else "")
