"""The numbers of a data file, in one pass and bounded memory."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medexpert.data import opened
from medexpert.data.readers.rows import Fault, Ids
from medexpert.data.show import columns, safe
from medexpert.records import UserError

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
GROUPS = ("source", "kind", "lang", "licence", "template", "reason")
MOST_NAMES = 1000
FIRST_BAD = 5
OTHERS = "(others)"
_EXACT = 10_000
_SAY_EVERY = 5.0  # seconds
_CJK = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f]"
)


@dataclass
class _Tally:
    records: int = 0
    bad: int = 0
    first_bad: list[dict[str, str]] = field(default_factory=list)
    characters: int = 0
    words: int = 0
    cjk: int = 0
    groups: dict[str, Counter[str]] = field(default_factory=dict)
    group_characters: dict[str, Counter[str]] = field(default_factory=dict)
    lengths: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    ids: Counter[str] = field(default_factory=Counter)
    mcq: int = 0
    explained: int = 0
    reasoned: int = 0
    duplicates: int = 0
    same_id: int = 0


def stats(file: str | Path, *, say: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Counts of a file's records; `as_text` prints them, and they are ready for JSON.

    Lengths are characters of a record's text (a document's text, the strings of an example's
    fields); above 10,000 they are counted to three digits. Tokens are words between blanks and
    Chinese, Japanese and Korean characters, not a model's. Exact duplicates = equal text whatever
    case and blanks, told by 8-byte hashes. Raises UserError for a file that cannot be read.
    """
    tally = _Tally(
        groups={name: Counter() for name in GROUPS},
        group_characters={name: Counter() for name in GROUPS},
    )
    contents, names = Ids("text"), Ids("id")
    last = start = time.monotonic()
    for found in opened.rows(file):
        if isinstance(found, Fault):
            tally.bad += 1
            if len(tally.first_bad) < FIRST_BAD:
                tally.first_bad.append({"where": found.where, "what": found.what})
        else:
            _add(tally, opened.facts(found[1]), contents, names)
        now = time.monotonic()
        if say is not None and now - last >= _SAY_EVERY:
            last, rows = now, tally.records + tally.bad
            say(f"{file}: {rows:,} records, {rows / (now - start):,.0f}/s")
    return _result(file, tally)


def _add(tally: _Tally, facts: opened.Facts, contents: Ids, names: Ids) -> None:
    parts = list(opened.texts(facts.body))
    text = "\n".join(parts)
    size = sum(map(len, parts))
    cjk = 0 if text.isascii() else len(_CJK.findall(text))
    tally.records += 1
    tally.characters += size
    tally.cjk += cjk
    tally.words += len((_CJK.sub(" ", text) if cjk else text).split())
    tally.lengths[_rounded(size)] += 1
    for name in GROUPS:
        value = getattr(facts, name)
        if value or name not in ("template", "reason"):
            _count(tally.groups[name], value or "(none)")
            _count(tally.group_characters[name], value or "(none)", size)
    for scheme in facts.ids:
        _count(tally.ids, scheme)
    _fields(tally, facts)
    # Records without text (drops, for one) are no duplicates of each other.
    if text.strip() and _came_before(contents, " ".join(text.casefold().split())):
        tally.duplicates += 1
    if facts.id and _came_before(names, facts.id):
        tally.same_id += 1


def _fields(tally: _Tally, facts: opened.Facts) -> None:
    for name in ("id", "source", "licence"):
        if facts.kind not in ("drop", "reject") and not getattr(facts, name):
            tally.empty[name] += 1
    for name, value in facts.body.items():
        if value is None or value in ("", [], {}) or (isinstance(value, str) and value.isspace()):
            _count(tally.empty, str(name))
    if facts.kind == "mcq":
        tally.mcq += 1
        tally.explained += _filled(facts.body.get("explanation"))
    elif facts.kind == "reasoning":
        tally.reasoned += _filled(facts.body.get("rationale"))
    elif facts.kind == "task":
        answer = facts.body.get("answer", facts.body.get("final_decision"))
        if isinstance(answer, str) and len(answer) <= 40:
            _count(tally.labels, answer or "(none)")
    turns = facts.body.get("messages")
    if facts.kind == "conversation" and isinstance(turns, list):
        tally.turns[min(len(turns), MOST_NAMES)] += 1


def _filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _count(counter: Counter[str], name: str, by: int = 1) -> None:
    if name not in counter and len(counter) >= MOST_NAMES:
        name = OTHERS
    counter[name] += by


def _rounded(size: int) -> int:
    if size < _EXACT:
        return size
    step: int = 10 ** (len(str(size)) - 3)
    return size // step * step


def _came_before(seen: Ids, text: str) -> bool:
    try:
        seen.check(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest(), "")
    except UserError:
        return True
    return False


# -- results -----------------------------------------------------------------------------------


def _result(file: str | Path, tally: _Tally) -> dict[str, Any]:
    groups = {
        name: {
            value: {"records": n, "characters": tally.group_characters[name][value]}
            for value, n in tally.groups[name].most_common()
        }
        for name in GROUPS
        if tally.groups[name]
    }
    return {
        "file": str(file),
        "records": tally.records,
        "bad_rows": {"count": tally.bad, "first": tally.first_bad},
        "characters": tally.characters,
        "tokens": {"words": tally.words, "cjk_characters": tally.cjk},
        "by": groups,
        "length": _lengths(tally),
        "duplicates": {"text": tally.duplicates, "id": tally.same_id},
        "ids": {name: tally.ids[name] for name in dict.fromkeys(("pmid", "pmcid", *tally.ids))},
        "empty_fields": dict(tally.empty.most_common()),
        "mcq": {"records": tally.mcq, "with_explanation": tally.explained},
        "reasoning": {"with_rationale": tally.reasoned},
        "turns": {str(n): tally.turns[n] for n in sorted(tally.turns)},
        "labels": dict(tally.labels.most_common()),
    }


def _lengths(tally: _Tally) -> dict[str, Any]:
    if not tally.records:
        return {}
    ordered = sorted(tally.lengths.items())
    histogram: Counter[int] = Counter()
    for size, n in ordered:
        histogram[size.bit_length()] += n
    return {
        "mean": round(tally.characters / tally.records, 1),
        "min": ordered[0][0],
        "max": ordered[-1][0],
        "percentiles": {str(p): _percentile(ordered, tally.records, p) for p in PERCENTILES},
        "histogram": [
            {"from": 1 << (bits - 1) if bits else 0, "to": (1 << bits) - 1, "records": n}
            for bits, n in sorted(histogram.items())
        ],
    }


def _percentile(ordered: list[tuple[int, int]], total: int, share: int) -> int:
    """The smallest length that at least `share` % of the records do not exceed."""
    done = 0
    for size, n in ordered:
        done += n
        if 100 * done >= share * total:
            return size
    return ordered[-1][0]


def as_text(found: Mapping[str, Any], *, most: int = 12) -> str:
    """The numbers for reading; of each group the `most` largest members."""
    return "\n".join(_text_lines(found, most))


def as_json(found: Mapping[str, Any]) -> str:
    """The numbers as indented JSON."""
    return json.dumps(found, ensure_ascii=False, indent=2)


def _text_lines(found: Mapping[str, Any], most: int) -> Iterator[str]:
    n = found["records"]
    tokens = found["tokens"]
    yield safe(found["file"])
    yield (
        f"{n:,} records · {found['characters']:,} characters · {tokens['words']:,} words ·"
        f" {tokens['cjk_characters']:,} Chinese, Japanese or Korean characters"
    )
    bad = found["bad_rows"]
    if bad["count"]:
        yield f"{bad['count']:,} rows cannot be read, first:"
        yield from (safe(f"  {row['where']}: {row['what']}") for row in bad["first"])
    for name, members in found["by"].items():
        yield from _group(name, members, n, most, bool(found["characters"]))
    if found["characters"]:
        yield from _length_lines(found["length"], n)
    same = found["duplicates"]
    yield f"exact duplicates: {_of(same['text'], n)} · ids that occur again: {_of(same['id'], n)}"
    yield "ids: " + " · ".join(safe(f"{name} {_of(k, n)}") for name, k in found["ids"].items())
    if found["empty_fields"]:
        yield "empty: " + " · ".join(
            safe(f"{name} {_of(k, n)}") for name, k in list(found["empty_fields"].items())[:most]
        )
    if found["mcq"]["records"]:
        yield "explained: " + _of(found["mcq"]["with_explanation"], found["mcq"]["records"])
    if found["turns"]:
        yield "messages a conversation: " + " · ".join(
            f"{turns}: {k:,}" for turns, k in list(found["turns"].items())[: 2 * most]
        )
    if found["labels"]:
        yield "labels: " + " · ".join(
            safe(f"{name} {_of(k, n)}") for name, k in list(found["labels"].items())[:most]
        )


def _of(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / max(whole, 1):.1f} %)"


def _group(
    name: str, members: Mapping[str, Any], total: int, most: int, sizes: bool
) -> Iterator[str]:
    yield f"by {name}:"
    shown = [(safe(value).replace("\n", " ")[:60], held) for value, held in members.items()][:most]
    width = max((columns(value) for value, _ in shown), default=0)
    for value, held in shown:
        pad = " " * (width - columns(value))
        size = f", {held['characters']:,} characters" if sizes else ""
        yield f"  {value}{pad}  {_of(held['records'], total)}{size}"
    if len(members) > most:
        yield f"  and {len(members) - most} more"


def _length_lines(length: Mapping[str, Any], total: int) -> Iterator[str]:
    told = [f"min {length['min']:,}"]
    told += [f"{p} % {value:,}" for p, value in length["percentiles"].items()]
    told += [f"max {length['max']:,}", f"mean {length['mean']:,}"]
    yield "characters a record: " + " · ".join(told)
    bars = length["histogram"]
    top = max(bar["records"] for bar in bars)
    width = max(len(f"{bar['to']:,}") for bar in bars)
    for bar in bars:
        length_of_bar = round(40 * bar["records"] / top)
        drawn = "#" * length_of_bar if length_of_bar else "."
        span = f"{bar['from']:>{width},} - {bar['to']:>{width},}"
        yield f"  {span}  {drawn} {_of(bar['records'], total)}"
