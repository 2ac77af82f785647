"""What a row of any schema, of whoever's training file, is asked for; `opened` reads the rows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from medexpert.data import grams
from medexpert.data.filters import strings
from medexpert.data.quarantine.ids import keys_of
from medexpert.data.quarantine.match import Probe, bare_prints, question_prints

_TAIL = re.compile(r"(\d+)\]?$")
_IDS = ("pmid", "pubmed", "pubmed_id", "pubid", "pmcid", "pmc", "doi", "qid", "question_id",
        "questionid", "uid", "uuid", "url")  # fmt: skip
_QUESTIONS = ("question", "qtext", "stem", "query", "instruction", "prompt", "input", "body")
_TURNS = ("messages", "conversations", "conversation", "turns", "utterances", "dialogue")
_OPTIONS = ("options", "option", "choices", "answers", "candidates")
_SPREAD = (("opa", "opb", "opc", "opd", "ope"), ("a", "b", "c", "d", "e", "f"),
           ("ending0", "ending1", "ending2", "ending3", "ending4"))  # fmt: skip


def line_of(where: str) -> int:
    """The line or record number at the end of a place; 0 where there is none."""
    match = _TAIL.search(where)
    return int(match.group(1)) if match else 0


def name_of(row: Mapping[str, Any]) -> str:
    """A row's own id as text, "" where it has none."""
    for key in ("id", "_id", "ID", "qid", "pmid", "PMID", "pubid"):
        value = row.get(key)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value).strip()[:200]
    return ""


def probe_of(row: Mapping[str, Any]) -> Probe:
    """What a row of any schema is asked for: all its strings, its ids, its question and options."""
    ids: dict[str, str] = {}
    for part in (row, row.get("ids"), row.get("meta"), row.get("metadata")):
        if isinstance(part, Mapping):
            for key, value in part.items():
                name = str(key).lower()
                if name in _IDS and isinstance(value, str | int) and not isinstance(value, bool):
                    ids.setdefault(name, str(value))
    if "pmc" in ids:
        ids.setdefault("pmcid", ids.pop("pmc"))
    text = "\n".join(strings(dict(row)))
    own = row.get("id")
    name = str(own) if isinstance(own, str | int) and not isinstance(own, bool) else ""
    return Probe(frozenset(keys_of(name, ids)), _prints(row), grams.hashes(text))


def _prints(row: Mapping[str, Any]) -> tuple[int, ...]:
    """Fingerprints of each field that may be a question, with the row's options and without, and of
    each turn of a conversation."""
    inner = row.get("fields")
    if isinstance(inner, Mapping):
        return _prints(inner)
    low = {str(key).lower(): value for key, value in row.items()}
    options = _options(low)
    found: list[int] = []
    for key in _QUESTIONS:
        found += question_prints(low.get(key), options) if options else ()
        found += bare_prints(low.get(key))
    for key in _TURNS:
        turns = low.get(key)
        for turn in turns if isinstance(turns, list) else ():
            for text in turn.values() if isinstance(turn, Mapping) else (turn,):
                found += bare_prints(text)
    return tuple(dict.fromkeys(found))


def _options(row: Mapping[str, Any]) -> object:
    for key in _OPTIONS:
        value = row.get(key)
        if isinstance(value, Mapping):
            return value.get("text", value)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return [text for one in value for text in strings(one)]
        if isinstance(value, list | str) and value:
            return value
    for names in _SPREAD:
        if all(isinstance(row.get(name), str) for name in names[:2]):
            return [row[name] for name in names if isinstance(row.get(name), str)]
    return None
