"""BioASQ task B golden files -> Example.

`{"questions": [{id, body, type, documents, snippets: [{text, document, ...}], exact_answer,
ideal_answer}]}`. A yes/no question with its snippets is a task in PubMedQA's shape; the other types
are a question with its ideal answer. The PubMed documents go into the ids, so that an item built on
a benchmark's abstract is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.examples import Item, answered, cited, example, strings_of
from medexpert.data.readers.json_rows import json_array
from medexpert.data.readers.rows import (
    Change,
    Drop,
    Reader,
    id_of,
    kind_of,
    list_of,
    object_of,
    optional_text,
    text_of,
)
from medexpert.records import UserError

TYPES = ("yesno", "factoid", "list", "summary")
CHOICES = ("yes", "no")


def bioasq(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """One question. Raises UserError for a row that breaks the schema."""
    identifier = id_of(row, where)
    name = f"bioasq-{identifier}"
    question = text_of(row, "body", where).strip()
    kind = text_of(row, "type", where)
    if kind not in TYPES:
        raise UserError(f"unknown question type {kind!r}", where=where, allowed=", ".join(TYPES))
    contexts = snippets_of(row, where)
    ids = {"qid": identifier, **cited(*documents_of(row, where))}
    ideal = ideal_answers(row, where)
    if kind != "yesno":
        if len(ideal) > 1:
            yield Change(name, "other_answers_left_out")
        extra = {"contexts": contexts}
        answer = ideal[0] if ideal else ""
        yield answered({}, where, name, question, answer, lang="en", ids=ids, extra=extra)
        return
    written = text_of(row, "exact_answer", where)
    answer = written.strip().lower().rstrip(".")
    if answer not in CHOICES:
        raise UserError(f"exact_answer {written!r}", where=where, allowed=", ".join(CHOICES))
    if not question:
        yield Drop(name, "no_question")
    elif not contexts:
        yield Drop(name, "no_context")
    else:
        if answer != written:
            yield Change(name, "label_normalised")
        fields = {"question": question, "contexts": contexts, "answer": answer}
        if ideal:
            fields["long_answer"] = ideal[0]
        template = "pubmedqa.lm_eval"
        yield example({}, where, name, "task", template, fields, lang="en", ids=ids)


def snippets_of(row: Mapping[str, Any], where: str) -> list[str]:
    """The snippets' texts, each once. Raises UserError; a question may have none."""
    if row.get("snippets") is None:
        return []
    texts = []
    for position, raw in enumerate(list_of(row, "snippets", where)):
        snippet = object_of(raw, f"snippets[{position}]", where)
        texts.append(text_of(snippet, "text", where).strip())
    return list(dict.fromkeys(filter(None, texts)))


def documents_of(row: Mapping[str, Any], where: str) -> list[str]:
    """Addresses of the documents, also those only a snippet names. Raises UserError."""
    found = [] if row.get("documents") is None else strings_of(row, "documents", where)
    for raw in row.get("snippets") or []:
        found.append(optional_text(raw, "document", where))
    return found


def ideal_answers(row: Mapping[str, Any], where: str) -> list[str]:
    """The ideal answers, none empty; older files hold one string. Raises UserError."""
    value = row.get("ideal_answer")
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        what = f"field 'ideal_answer': strings are expected, not {kind_of(value)}"
        raise UserError(what, where=where)
    return [text.strip() for text in value if text.strip()]


READERS: dict[str, Reader] = {"bioasq": Reader(json_array("questions"), bioasq)}
