"""The catalogue as text for a reader: a table of what matches, or one entry in full."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from medexpert.data.catalogue import BENCHMARKS, SOURCES, Entry, Origin, SourceEntry
from medexpert.records import unknown_name

COLUMNS = ("name", "stage", "lang", "licence", "default mix", "size", "ids")
_WIDTH = 44  # characters; a longer licence or size is cut in the table, never in the full view


def rows(search: str = "") -> list[dict[str, Any]]:
    """Entries that hold every word of `search` in name, stage, language, licence or note.

    A benchmark has the stage "benchmark". An exact name gives that entry (and the benchmark of
    that name) only. Raises UserError with the nearest name when nothing matches.
    """
    entries: list[Entry] = [*SOURCES.values(), *BENCHMARKS.values()]
    found = [entry for entry in entries if entry.name == search] or [
        entry for entry in entries if all(word in _text(entry) for word in search.lower().split())
    ]
    if not found:
        raise unknown_name("source", search, [*SOURCES, *BENCHMARKS])
    return [_row(entry) for entry in found]


def listing(search: str = "") -> str:
    """What `medexpert data sources SEARCH` prints: a table, or an entry in full for its name."""
    found = rows(search)
    if all(row["name"] == search for row in found):
        return "\n\n".join(_full(row) for row in found)
    table = [COLUMNS, *(_cells(row) for row in found)]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
    kinds = [row["stage"] == "benchmark" for row in found]
    lines.append(f"{kinds.count(False)} sources, {kinds.count(True)} benchmarks")
    return "\n".join(lines)


def _stage(entry: Entry) -> str:
    return entry.stage if isinstance(entry, SourceEntry) else "benchmark"


def _text(entry: Entry) -> str:
    return " ".join((entry.name, _stage(entry), entry.lang, entry.licence, entry.note)).lower()


def _row(entry: Entry) -> dict[str, Any]:
    """An entry as JSON-ready values; `stage` and `default_mix` are there for a benchmark too."""
    row: dict[str, Any] = asdict(entry)
    origin = [
        {key: value for key, value in asdict(one).items() if value} | {"known": _known(one)}
        for one in entry.origin
    ]
    return {**row, "stage": _stage(entry), "default_mix": row.get("default_mix", False)} | {
        "origin": origin
    }


def _known(origin: Origin) -> str:
    """What a fetched file is checked against, "unknown" where that is only measured."""
    kinds = (
        ("sha256", origin.sha256),
        ("git blob id", origin.blob),
        ("md5", origin.md5 or origin.md5_suffix),
        ("as the hub states it", origin.hub),
        ("by its archive", origin.archive),
    )
    return next((kind for kind, value in kinds if value), "unknown")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    mix = "" if row["stage"] == "benchmark" else ("yes" if row["default_mix"] else "no")
    return (
        row["name"], row["stage"], row["lang"], _cut(row["licence"]), mix,
        _cut(row["size"] or "unknown"), _cut(row["ids"]),
    )  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _full(row: dict[str, Any]) -> str:
    places = row["files"] or row.get("builtin") or ("path in the recipe",)
    facts = {
        "stage": row["stage"],
        "language": row["lang"],
        "licence": row["licence"],
        "default mix": "yes" if row["default_mix"] else "no",
        "size": row["size"] or "unknown",
        "ids": row["ids"],
        "reader": row["reader"],
        "files": ", ".join(places),
        "url": row["url"] or "none",
        "citation": row["citation"] or "none",
        "note": row["note"] or "none",
    }
    if row["stage"] == "benchmark":
        del facts["default mix"]
    lines = [row["name"], *(f"  {key:<12}{value}" for key, value in facts.items())]
    origin = row["origin"]
    lines.append(f"  {'fetched':<12}" + (f"{len(origin)} files" if origin else "by hand"))
    for one in origin[:20]:
        where = one.get("url") or one.get("archive") or f"hub {one.get('hub')}"
        lines.append(f"    {one['file']}  from {where}; checksum: {one['known']}")
    if len(origin) > 20:
        lines.append(f"    and {len(origin) - 20} more")
    return "\n".join(lines)
