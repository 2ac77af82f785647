"""Every source a recipe may name and every benchmark kept out of them: licence, files, reader.

The entries are in `catalogue.toml`. Published files are looked for under the recipe's `data.root`
(or a source's own `path`), a local folder or any fsspec URL; the starter corpus is inside the
package; `trialgen` is generated. `fetch` is what brings published files here.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from medexpert.data import places
from medexpert.records import UserError, unknown_name

OWN = "this package's licence"
STAGES = ("knowledge", "instruct", "adapt")
FREE = ("MIT", "Apache-2.0", "CC BY 4.0", "CC BY 2.5", "CC0", "public domain", OWN)
"""Licences whose text may enter the default mix; a list is joined by "; " and needs all of them."""

GENERATED = ("trialgen", "pqa_builder", "evidence_builder")
"""Readers of sources that are made here and have no file of their own."""
JSONL = ("own_examples", "text_jsonl")
"""Readers of a user's own rows: of a folder they take every .jsonl, gzip'd or not, but REJECTS."""
REJECTS = ".rejects.jsonl"
"""What `data construct` writes beside its examples: rows that are not to be learned from."""


@dataclass(frozen=True)
class Origin:
    """One published file: a `url`, or `path` in the hub data set `hub` at `revision`, or the
    `member` of a zip `archive` that an origin before this one brings.

    `file` is where it goes under the data folder. Known checksums are its `sha256`, its `md5` and
    `blob`, the id that git gives it; "" and 0 `bytes` mean unknown, and then the first fetch
    records what it measures and later ones must equal it. A `url` whose last part holds `*` stands
    for the files that the server lists in that folder; `md5_suffix` is what to add to a file's
    address to get its published MD5 (MEDLINE: ".md5").
    """

    file: str
    url: str = ""
    hub: str = ""
    path: str = ""
    revision: str = "main"
    archive: str = ""
    member: str = ""
    sha256: str = ""
    blob: str = ""
    md5: str = ""
    bytes: int = 0
    md5_suffix: str = ""


@dataclass(frozen=True)
class SourceEntry:
    """One source. `licence` is what upstream states, `default_mix` whether we may ship it in a mix.

    `default_mix` is true only for the licences in `FREE`; naming another source in a recipe is the
    opt-in, and the data card shows its licence. `stage` is the first stage that can use it:
    `knowledge` sources give documents, the others examples. `files` are the paths (or patterns)
    looked for under `data.root`, empty for what is inside the package (`builtin`), generated, or
    always named by the recipe's `path`. `ids` says what identifies a row; `pmid` rows can be
    checked against a benchmark's list. `size` is what is stated or measured, "" where unknown.
    """

    name: str
    stage: str
    lang: str
    licence: str
    reader: str
    default_mix: bool = False
    files: tuple[str, ...] = ()
    builtin: tuple[str, ...] = ()
    ids: str = "id"
    size: str = ""
    url: str = ""
    citation: str = ""
    note: str = ""
    origin: tuple[Origin, ...] = ()


@dataclass(frozen=True)
class BenchmarkEntry:
    """A test set whose items are kept out of all training data; `reader` is a benchmark reader."""

    name: str
    lang: str
    licence: str
    reader: str
    files: tuple[str, ...] = ()
    ids: str = "id"
    size: str = ""
    url: str = ""
    citation: str = ""
    note: str = ""
    origin: tuple[Origin, ...] = ()


Entry = SourceEntry | BenchmarkEntry
E_ = TypeVar("E_", SourceEntry, BenchmarkEntry, Origin)


def load(text: str, *, where: str) -> tuple[dict[str, SourceEntry], dict[str, BenchmarkEntry]]:
    """(sources, benchmarks) of a catalogue in TOML, by name, in file order.

    Raises UserError naming the entry: a missing, unknown or mistyped key, a name that occurs
    twice, a stage that does not exist, a default mix that the licence does not allow.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not TOML ({error})", where=where) from None
    for key in tables:
        if key not in ("source", "benchmark"):
            raise unknown_name("table", key, ("source", "benchmark"), where=where)
    sources = _named(SourceEntry, tables.get("source", []), where, "source")
    for entry in sources.values():
        _check_source(entry, f"{where}: source {entry.name!r}")
    return sources, _named(BenchmarkEntry, tables.get("benchmark", []), where, "benchmark")


def _named(kind: type[E_], rows: list[Any], where: str, what: str) -> dict[str, E_]:
    found: dict[str, Any] = {}
    for number, row in enumerate(rows, 1):
        at = f"{where}: {what} {row.get('name', number)!r}"
        entry: Any = _entry(kind, row, at)
        if entry.name in found:
            raise UserError("the name occurs twice", where=at)
        found[entry.name] = entry
    return found


def _entry(kind: type[E_], row: Any, where: str) -> E_:
    """A checked entry from a TOML table; lists become tuples, `origin` tables become Origins."""
    if not isinstance(row, Mapping):
        raise UserError(f"must be a table, not {row!r}", where=where)
    known = {part.name: part for part in fields(kind)}
    for key in row:
        if key not in known:
            raise unknown_name("key", key, known, where=where)
    for name, part in known.items():
        if part.default is MISSING and not row.get(name):
            raise UserError(f"needs {name!r}", where=where)
    values: dict[str, Any] = {}
    for key, value in row.items():
        wanted = {"bool": bool, "int": int, "str": str}.get(str(known[key].type), list)
        if type(value) is not wanted:
            raise UserError(f"{key} must be {wanted.__name__}, not {value!r}", where=where)
        if key == "origin":
            value = [_origin(table, where) for table in row[key]]
        elif wanted is list and not all(isinstance(part, str) for part in row[key]):
            raise UserError(f"{key} must be a list of texts, not {value!r}", where=where)
        values[key] = tuple(value) if isinstance(value, list) else value
    build: Callable[..., E_] = kind
    return build(**values)


def _origin(table: Any, where: str) -> Origin:
    origin = _entry(Origin, table, f"{where}, origin")
    pairs = ((origin.hub, origin.path), (origin.archive, origin.member))
    given = [origin.url, *(first for first, _ in pairs)]
    if sum(map(bool, given)) != 1 or any(bool(a) != bool(b) for a, b in pairs):
        raise UserError(
            f"origin {origin.file!r} needs one of url, hub and path, archive and member",
            where=where,
        )
    for name, length in (("sha256", 64), ("blob", 40), ("md5", 32)):
        value = getattr(origin, name)
        if value and not re.fullmatch(f"[0-9a-f]{{{length}}}", value):
            raise UserError(f"origin {origin.file!r}: {name} is {length} hex digits", where=where)
    if origin.url and not origin.url.startswith(("https://", "http://")):
        raise UserError(f"origin {origin.file!r}: url must be http or https", where=where)
    inside = PurePosixPath(origin.file)
    if inside.is_absolute() or ".." in inside.parts:
        raise UserError(f"origin {origin.file!r} leaves the data folder", where=where)
    return origin


def _check_source(entry: SourceEntry, where: str) -> None:
    if entry.stage not in STAGES:
        raise unknown_name("stage", entry.stage, STAGES, where=where)
    if entry.files and entry.builtin:
        raise UserError("has both files and builtin", where=where)
    if entry.default_mix and not is_free(entry.licence):
        raise UserError(
            f"licence {entry.licence!r} is not one for the default mix",
            where=where,
            allowed=", ".join(FREE),
        )


def is_free(licence: str) -> bool:
    """Whether every part of a licence ("A; B") is one of `FREE`."""
    return all(part.strip() in FREE for part in licence.split(";"))


@cache
def _catalogue() -> tuple[dict[str, SourceEntry], dict[str, BenchmarkEntry]]:
    file = resources.files("medexpert.data") / "catalogue.toml"
    return load(file.read_text("utf-8"), where="catalogue.toml")


SOURCES: dict[str, SourceEntry] = _catalogue()[0]
BENCHMARKS: dict[str, BenchmarkEntry] = _catalogue()[1]


def find(name: str, *, where: str = "") -> SourceEntry:
    """The source of that name. Raises UserError with the nearest name."""
    if name not in SOURCES:
        raise unknown_name("source", name, SOURCES, where=where)
    return SOURCES[name]


def find_benchmark(name: str, *, where: str = "") -> BenchmarkEntry:
    """The benchmark of that name. Raises UserError with the nearest name."""
    if name not in BENCHMARKS:
        raise unknown_name("benchmark", name, BENCHMARKS, where=where)
    return BENCHMARKS[name]


def locate(entry: Entry, root: str | Path, path: str | Path = "") -> list[str]:
    """Files of a source or benchmark, sorted; empty for a generated one.

    `root` (the recipe's data.root) and `path` are local or any fsspec URL. `path` wins over
    `root`: a file, a pattern with `*`, or a folder in which the entry's files are looked for (of
    the readers in JSONL: all .jsonl); other sources without files take it as it is. PQA-L may be a
    folder. A file counts packed (.gz) or not, in its own folder or directly in `root`. A name
    without `*` must be there, and one match at least for those with.

    Raises UserError naming each place that was tried.
    """
    if entry.reader in GENERATED:
        return []
    what, builtin = _what(entry), entry.builtin if isinstance(entry, SourceEntry) else ()
    if builtin and not path:
        folder = Path(str(resources.files("medexpert.data"))) / "starter"
        return [str(folder / name) for name in builtin]
    if not (path or (root and entry.files)):
        wanted = "data.root = folder of the published files, or " if entry.files else ""
        raise UserError(
            f"{what} is not inside the package: it needs a local copy",
            allowed=f"{wanted}path = this source's file",
        )
    base = _expanded(path or root)
    if entry.reader == "pubmedqa" and isinstance(entry, SourceEntry) and not places.is_url(base):
        from medexpert.data.readers.pubmedqa import find_pubmedqa

        return [str(find_pubmedqa(Path(base)))]
    if path:
        if entry.reader in JSONL and places.is_folder(base):
            there = _located(what, base, ("*.jsonl",))
            kept = [name for name in there if not name.removesuffix(".gz").endswith(REJECTS)]
            if not kept:
                raise UserError(f"{what}: only *{REJECTS} files are there", where=base)
            return kept
        if places.is_file(base) or (not entry.files and not builtin and places.is_folder(base)):
            return [base]
        if "*" in base and (found := places.matching("", base)):
            return found
        if not places.is_folder(base):
            raise UserError(f"{what}: no such file", where=base)
    return _located(what, base, builtin or entry.files)


def _what(entry: Entry) -> str:
    return f"{'source' if isinstance(entry, SourceEntry) else 'benchmark'} {entry.name!r}"


def _expanded(path: str | Path) -> str:
    return str(path) if places.is_url(str(path)) else str(Path(path).expanduser())


def _located(what: str, base: str, names: Iterable[str]) -> list[str]:
    found: set[str] = set()
    tried: list[str] = []
    matched = False
    for name in names:
        candidates = dict.fromkeys((name, PurePosixPath(name).name))
        here = next((hit for n in candidates if (hit := _packed_or_not(base, n))), [])
        found |= set(here)
        matched = matched or bool(here)
        tried += [places.join(base, form) for n in candidates for form in _forms(n)]
        if not here and "*" not in name:
            raise UserError(f"{what}: file not found", allowed=", ".join(tried))
    if not matched:
        raise UserError(f"{what}: file not found", allowed=", ".join(tried))
    return sorted(found)


def _forms(name: str) -> tuple[str, str]:
    """A name packed and unpacked, the catalogue's form first."""
    return (name, name.removesuffix(".gz")) if name.endswith(".gz") else (name, f"{name}.gz")


def _packed_or_not(base: str, name: str) -> list[str]:
    """Matches of a name in either form; of a file that is there in both, the catalogue's form."""
    first, second = (places.matching(base, form) for form in _forms(name))
    seen = {path.removesuffix(".gz") for path in first}
    return [*first, *(path for path in second if path.removesuffix(".gz") not in seen)]
