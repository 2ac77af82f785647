"""Solved multi-choice questions of any of our formats -> what Verification-of-Choice is taught on.

Rows taken: PubMedQA as published (JSON or parquet), Examples of `pubmedqa.lm_eval`,
`direct.choices`, `chat.mcq_label` and `chat.mcq_reason`, and plain
`{id, question, choices, answer, context?}` with the answer as text or place (from 0).

Of PubMedQA's labelled set no item may be used that a model is measured on: without a fold all
1,000 are out, with one the 500 test items and the fold's 50 dev items, told by PMID.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medexpert.data.construct.rejects import Reject
from medexpert.data.quarantine.ids import keys_of
from medexpert.data.readers.pubmedqa import CHOICES, official_split
from medexpert.data.readers.rows import ids_of, list_of, object_of, optional_text, text_of
from medexpert.records import UserError

NO_FOLD = -1
_MCQ = ("chat.mcq_label", "chat.mcq_reason")
_WORDED = ("pubmedqa.lm_eval", "pubmedqa.question_only")


@dataclass(frozen=True)
class Solved:
    """A question with its choices and the right one, of a training split."""

    id: str
    where: str
    question: str
    choices: tuple[str, ...]
    answer: str
    contexts: tuple[str, ...] = ()
    lang: str = "en"
    source: str = ""
    licence: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)


def solved(where: str, row: Mapping[str, Any], *, source: str, fold: int) -> Solved | Reject:
    """The item of a row, or why it may not be used. Raises UserError for a row of no known form."""
    if "fields" in row:
        item = _example(where, row)
    elif "QUESTION" in row or "final_decision" in row:
        item = _pubmedqa(where, row)
    else:
        item = _plain(where, row)
    item = Solved(**{**vars(item), "source": item.source or source})
    reason = held_out(item, fold)
    if reason:
        return Reject(item.id, where, reason, item.source)
    if not item.question.strip():
        return Reject(item.id, where, "no_question", item.source)
    _check(item)
    return item


def pmids_of(item: Solved) -> list[str]:
    """The PMIDs an item names: a bare number as id is one only where PubMedQA lists it."""
    named = {value for scheme, value in keys_of(item.id, item.ids) if scheme == "pmid"}
    if any(char.isalpha() for char in item.id) or named & official_split().everything():
        return sorted(named)
    return sorted(value for scheme, value in keys_of("", item.ids) if scheme == "pmid")


def held_out(item: Solved, fold: int) -> str:
    """Why an item may not be learned from: "pqal_item", "test_item", "dev_item", or ""."""
    pmids = {value for scheme, value in keys_of(item.id, item.ids) if scheme == "pmid"}
    split = official_split()
    if pmids & set(split.test):
        return "test_item"
    if fold == NO_FOLD:
        return "pqal_item" if pmids & split.everything() else ""
    return "dev_item" if pmids & set(split.folds[fold]) else ""


def _check(item: Solved) -> None:
    where = item.where
    if len(item.choices) < 2 or not all(choice.strip() for choice in item.choices):
        raise UserError("choices", where=where, allowed="two or more, none empty")
    if len(set(item.choices)) < len(item.choices):
        raise UserError("two choices are equal", where=where)
    if item.answer not in item.choices:
        raise UserError(
            f"answer {item.answer!r} is no choice", where=where, allowed=", ".join(item.choices)
        )


def _pubmedqa(where: str, row: Mapping[str, Any]) -> Solved:
    """PubMedQA's JSON object (upper case, its key under `id`) or the hub's parquet columns."""
    upper = "QUESTION" in row
    ids = ids_of(row, where)
    key = row.get("id", row.get("pubid"))
    identifier = str(key) if isinstance(key, int | str) and key != "" else ids.get("pmid", "")
    if not identifier:
        raise UserError("no id, PMID or key", where=where)
    if identifier.isdigit():
        ids.setdefault("pmid", identifier)
    nested = row.get("context")
    holder = nested if not upper and isinstance(nested, Mapping) else row
    return Solved(
        id=identifier,
        where=where,
        question=text_of(row, "QUESTION" if upper else "question", where),
        choices=CHOICES,
        answer=text_of(row, "final_decision", where),
        contexts=_strings(list_of(holder, "CONTEXTS" if upper else "contexts", where), where),
        lang=optional_text(row, "lang", where) or "en",
        source=optional_text(row, "source", where),
        licence=optional_text(row, "license", where) or optional_text(row, "licence", where),
        ids=ids,
    )


def _example(where: str, row: Mapping[str, Any]) -> Solved:
    fields = object_of(row["fields"], "field 'fields'", where)
    template = text_of(row, "template", where)
    ids = row.get("ids") or {}
    if not isinstance(ids, Mapping) or not all(isinstance(v, str) for v in ids.values()):
        raise UserError("field 'ids': an object of strings is expected", where=where)
    contexts: tuple[str, ...] = ()
    choices: tuple[str, ...]
    if template in _WORDED:
        choices, answer = CHOICES, text_of(fields, "answer", where)
        contexts = _strings(list_of(fields, "contexts", where), where)
        if text_of(row, "id", where).isdigit():
            ids = {"pmid": str(row["id"]), **ids}
    elif template in (*_MCQ, "direct.choices"):
        label = text_of(fields, "answer_idx" if template in _MCQ else "answer", where)
        options = object_of(fields.get("options"), "field 'options'", where)
        choices = _strings(list(options.values()), where)
        answer = str(options.get(label, label))
        evidence = optional_text(fields, "evidence", where)
        contexts = (evidence,) if evidence else ()
    else:
        allowed = ", ".join((*_WORDED, *_MCQ, "direct.choices"))
        raise UserError(f"an Example of template {template!r}", where=where, allowed=allowed)
    return Solved(
        id=text_of(row, "id", where),
        where=where,
        question=text_of(fields, "question", where),
        choices=choices,
        answer=answer,
        contexts=contexts,
        lang=optional_text(row, "lang", where) or "en",
        source=optional_text(row, "source", where),
        licence=optional_text(row, "licence", where),
        ids=dict(ids),
    )


def _plain(where: str, row: Mapping[str, Any]) -> Solved:
    choices = _strings(list_of(row, "choices", where), where)
    answer = row.get("answer")
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise UserError(f"answer {answer}", where=where, allowed=f"0 to {len(choices) - 1}")
        answer = choices[answer]
    if not isinstance(answer, str):
        raise UserError("field 'answer': a choice or its place is expected", where=where)
    context = optional_text(row, "context", where)
    given = object_of(row["ids"], "field 'ids'", where) if row.get("ids") else {}
    return Solved(
        id=str(row["id"]) if isinstance(row.get("id"), int) else text_of(row, "id", where),
        where=where,
        question=text_of(row, "question", where),
        choices=choices,
        answer=answer,
        contexts=(context,) if context else (),
        lang=optional_text(row, "lang", where) or "en",
        source=optional_text(row, "source", where),
        licence=optional_text(row, "licence", where) or optional_text(row, "license", where),
        ids=ids_of(row, where) | {str(key): str(value) for key, value in given.items()},
    )


def _strings(values: list[Any], where: str) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise UserError("contexts or choices: strings are expected", where=where)
    return tuple(values)
