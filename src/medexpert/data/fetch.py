"""Bring a source's published files here: resumed, verified, remembered.

Files go where their catalogue entry says under one data folder (a recipe's `data.root`). A file is
held to every checksum that is known (the catalogue's, its publisher's, the one recorded at the
first fetch in `sources.lock.json`); one that fails is moved aside and never used.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from medexpert.data import catalogue
from medexpert.data.catalogue import Entry, Origin, SourceEntry
from medexpert.data.checksums import LOCK, Lock, Measured, alone, copy, measure, member
from medexpert.data.download import (
    Answer,
    Patience,
    Say,
    download,
    forget,
    hub_address,
    size_text,
    small_file,
)
from medexpert.manifest import disk_errors
from medexpert.records import UserError

_INDEX_LIMIT = 64 << 20


def fetch(
    name: str,
    folder: str | Path,
    *,
    local: str | Path | None = None,
    only: str = "",
    say: Say = print,
    patience: Patience | None = None,
) -> list[Path]:
    """The files of a source or benchmark, in `folder` (the recipe's data.root), in order.

    `local` is a copy (a file, or a folder that holds the files) used instead of the network and
    verified like a download. `only` is a pattern for file names, for a source of many files.
    Files that are here already are verified and not fetched again.

    Raises UserError: unknown name, nothing to fetch, no network, no such file, wrong checksum
    (expected and found), another fetch at work, full disk.
    """
    entry = _entry(name)
    base = Path(folder).expanduser()
    free = catalogue.is_free(entry.licence)
    say(f"{name}: licence: {entry.licence}" + ("" if free else " (outside the default mix)"))
    inside = isinstance(entry, SourceEntry) and entry.builtin
    if inside or entry.reader in catalogue.GENERATED:
        raise UserError(f"source {name!r} comes with the program: there is nothing to fetch")
    with alone(base):
        work = _Fetch(entry, base, Lock(base), say, patience or Patience())
        if local is not None:
            return work.from_copy(Path(local).expanduser(), only)
        return work.from_network(only)


def _entry(name: str) -> Entry:
    """The source of that name, with the files of a benchmark of the same name; or the benchmark."""
    if name not in catalogue.BENCHMARKS:
        return catalogue.find(name)
    benchmark = catalogue.find_benchmark(name)
    if name not in catalogue.SOURCES:
        return benchmark
    source = catalogue.find(name)
    return replace(source, origin=tuple(dict.fromkeys((*source.origin, *benchmark.origin))))


@dataclass
class _Fetch:
    entry: Entry
    folder: Path
    lock: Lock
    say: Say
    patience: Patience

    def from_network(self, only: str) -> list[Path]:
        entry = self.entry
        if not entry.origin:
            raise UserError(
                f"no file of {entry.name!r} can be fetched by name; get a copy by hand"
                + (f" (see {entry.url})" if entry.url else ""),
                allowed=f"medexpert data fetch {entry.name} --from PATH",
            )
        wanted = [o for origin in entry.origin for o in _expand(origin, self.patience)]
        wanted = _chosen(wanted, only, entry.name)
        return [self._one(origin, number, len(wanted)) for number, origin in enumerate(wanted, 1)]

    def _one(self, origin: Origin, number: int, total: int) -> Path:
        target = self.folder / origin.file
        if target.is_file():
            found, new = measure(target), not self.lock.sha256(origin.file)
            if new:
                origin = _with_md5(origin, self.patience)
            self._check(origin, found, target, "delete it to fetch it again", aside=None)
            self.lock.record(origin.file, found, {"from": "found here"})
            state = _standing(origin) if new else "unchanged"
            self.say(f"{origin.file}: here already, {state}")
            return target
        if origin.archive:
            return self._unpacked(origin, target)
        label = f"{origin.file} ({number} of {total})" if total > 1 else origin.file
        address = _address(origin)
        origin = _with_md5(origin, self.patience)
        partial, answer = download(
            address,
            target,
            label=label,
            expected=origin.bytes if origin.sha256 or origin.blob else 0,
            verified=bool(origin.sha256 or origin.blob or origin.md5),
            say=self.say,
            patience=self.patience,
        )
        found = measure(partial)
        origin = _with_hub(origin, answer)
        self._check(origin, found, target, "kept aside as {bad}", aside=partial)
        with disk_errors(target):
            partial.replace(target)
            forget(target)
        facts = {"from": address} | ({"commit": answer.commit} if answer.commit else {})
        self.lock.record(origin.file, found, facts)
        self.say(f"{label}: {size_text(found.bytes)}, {_standing(origin)}")
        return target

    def _unpacked(self, origin: Origin, target: Path) -> Path:
        """Take one member out of an archive that is in the data folder."""
        archive = self.folder / origin.archive
        if not archive.is_file():
            raise UserError(f"{origin.file} is taken out of it: fetch it too", where=str(archive))
        member(archive, origin.member, target)
        found = measure(target)
        self._check(origin, found, target, "kept aside as {bad}", aside=target)
        self.lock.record(origin.file, found, {"from": f"{origin.archive}: {origin.member}"})
        self.say(f"{origin.file}: {size_text(found.bytes)}, from {archive.name}")
        return target

    def _check(
        self, origin: Origin, found: Measured, target: Path, then: str, aside: Path | None
    ) -> None:
        """Compare with every checksum that is known; a wrong download is moved to FILE.bad."""
        known = [
            ("SHA-256", origin.sha256, found.sha256),
            ("MD5", origin.md5, found.md5),
            ("git blob id", origin.blob, found.blob),
            (f"SHA-256 recorded in {LOCK}", self.lock.sha256(origin.file), found.sha256),
        ]
        for kind, expected, got in known:
            if expected and expected != got:
                bad = target.with_name(target.name + ".bad")
                if aside is not None:
                    aside.replace(bad)
                    forget(target)
                raise UserError(
                    f"wrong {kind}: expected {expected}, got {got}; {then.format(bad=bad.name)}",
                    where=str(target),
                )

    def from_copy(self, local: Path, only: str) -> list[Path]:
        """Take the files from a local copy; a gzip'd copy of an unpacked file counts too."""
        if not local.exists():
            raise UserError("no such file or folder", where=str(local))
        parts = {o.archive for o in self.entry.origin}
        origins = [o for o in self.entry.origin if "*" not in o.file and o.file not in parts]
        patterns = [o.file for o in self.entry.origin if "*" in o.file]
        if not self.entry.origin:
            patterns = list(self.entry.files)
        for pattern in patterns:
            parent = PurePosixPath(pattern).parent
            for found in _matching(local, pattern):
                origins.append(Origin(file=str(parent / found.name), url="local"))
        if not origins:
            raise UserError(
                f"no file of {self.entry.name!r} here",
                where=str(local),
                allowed=", ".join(patterns) or "a source with named files",
            )
        return [self._copied(o, local) for o in _chosen(origins, only, self.entry.name)]

    def _copied(self, origin: Origin, local: Path) -> Path:
        name = PurePosixPath(origin.file).name
        places = [local] if local.is_file() else [
            base / f"{file}{end}"
            for base in (local,) for file in (origin.file, name) for end in ("", ".gz")
        ]  # fmt: skip
        source = next((place for place in places if place.is_file()), None)
        if source is None:
            raise UserError(
                f"{name} is not here", where=str(local), allowed=", ".join(map(str, places))
            )
        unpack = source.suffix == ".gz" and not name.endswith(".gz")
        target = self.folder / origin.file
        found = measure(source, unpack=unpack)
        self._check(origin, found, source, "it was not used", aside=None)
        if not (target.is_file() and measure(target).sha256 == found.sha256):
            copy(source, target, unpack=unpack)
        self.lock.record(origin.file, found, {"from": "a local copy"})
        self.say(f"{origin.file}: {size_text(found.bytes)}, {_standing(origin)}")
        return target


def _matching(local: Path, pattern: str) -> list[Path]:
    name = PurePosixPath(pattern).name
    if local.is_file():
        return [local] if fnmatch.fnmatch(local.name, name) else []
    for folder in (local / PurePosixPath(pattern).parent, local):
        if found := sorted(folder.glob(name)):
            return found
    return []


def _chosen(origins: list[Origin], only: str, name: str) -> list[Origin]:
    if not only:
        return origins
    chosen = [o for o in origins if fnmatch.fnmatch(PurePosixPath(o.file).name, only)]
    if not chosen:
        names = [PurePosixPath(origin.file).name for origin in origins]
        raise UserError(
            f"no file of {name!r} matches {only!r}", allowed=f"{names[0]} to {names[-1]}"
        )
    return chosen


def _standing(origin: Origin) -> str:
    """What a file was checked against."""
    kinds = [("SHA-256", origin.sha256), ("MD5", origin.md5), ("git blob id", origin.blob)]
    known = [kind for kind, value in kinds if value]
    return f"verified ({known[0]})" if known else f"checksum unknown, recorded in {LOCK}"


def _address(origin: Origin) -> str:
    return hub_address(origin.hub, origin.revision, origin.path) if origin.hub else origin.url


def _with_hub(origin: Origin, answer: Answer) -> Origin:
    """The origin with the checksum that the hub publishes, where the catalogue has none."""
    if not origin.hub or origin.sha256 or origin.blob:
        return origin
    if re.fullmatch("[0-9a-f]{64}", answer.linked):
        return replace(origin, sha256=answer.linked)
    tag = answer.linked or answer.etag.removeprefix("W/").strip('"')
    return replace(origin, blob=tag) if re.fullmatch("[0-9a-f]{40}", tag) else origin


def _with_md5(origin: Origin, patience: Patience) -> Origin:
    """The origin with the MD5 that is published at its address plus `md5_suffix`."""
    if not origin.md5_suffix:
        return origin
    address = origin.url + origin.md5_suffix
    text = small_file(address, patience, 4096).decode("ascii", "replace")
    found = re.search(r"\b[0-9a-fA-F]{32}\b", text)
    if not found:
        raise UserError("holds no MD5", where=address)
    return replace(origin, md5=found[0].lower())


def _expand(origin: Origin, patience: Patience) -> Iterator[Origin]:
    """The origin, or one for each file of a server's folder that its `*` matches."""
    base, _, pattern = origin.url.rpartition("/")
    if "*" not in pattern:
        yield origin
        return
    page = small_file(f"{base}/", patience, _INDEX_LIMIT).decode("utf-8", "replace")
    links = set(re.findall(r"""href\s*=\s*["']([^"'#?/]+)["'?#]""", page, re.I))
    names = sorted(link for link in links if fnmatch.fnmatch(link, pattern))
    if not names:
        raise UserError(f"no file {pattern} is listed here", where=f"{base}/")
    for name in names:
        file = str(PurePosixPath(origin.file).parent / name)
        yield replace(origin, url=f"{base}/{name}", file=file)
