"""What every stage-2 reader builds: an Example, that is a template's name and its fields.

Each format's module keeps its own schema; here are the few shapes they end in (question and answer,
reasoning, task), names for rows that have none, and the readers of our own row shapes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.json_rows import json_object
from medexpert.data.readers.rows import (
    Change,
    Drop,
    Reader,
    id_of,
    ids_of,
    jsonl,
    kind_of,
    list_of,
    optional_text,
    text_of,
)
from medexpert.records import Example, UserError

Item = Example | Drop | Change

_NUMBER = re.compile(r"(\d+)\]?$")
_ENDINGS = re.compile(
    r"(\.(gz|bz2|xz|zip|jsonl|json|csv|tsv|xlsx|parquet|xml|txt))+$", re.IGNORECASE
)
_PUBMED = re.compile(r"ncbi\.nlm\.nih\.gov/(?:pubmed/)?(\d{1,9})(?!\d)", re.IGNORECASE)


def name_of(row: Mapping[str, Any], where: str, text: str, *keys: str, prefix: str = "") -> str:
    """The row's identifier from the first of `keys` that it has; without one, `numbered`.

    Raises UserError for an identifier that is neither a string nor a number.
    """
    for key in keys:
        value = row.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            what = f"field {key!r}: an identifier is expected, not {kind_of(value)}"
            raise UserError(what, where=where)
        return prefix + id_of({key: value}, where, key)
    return numbered(where, text, prefix=prefix)


def numbered(where: str, text: str, *, prefix: str = "") -> str:
    """A name for a row without one: file name, row number, 8 hex digits of its text.

    The folder is left out, so that the name is the same on every machine; the digits keep files of
    one name (`train.jsonl`) apart.
    """
    found = _NUMBER.search(where)
    number = found[1] if found else "0"
    path = where[: found.start(1)] if found else where
    path = re.sub(r"\s*\[[^\]]*$|:$", "", path)
    stem = _ENDINGS.sub("", re.split(r"[/\\!]|::", path)[-1]) or "row"
    digits = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{prefix}{stem}-{number}-{digits}"


def example(
    row: Mapping[str, Any],
    where: str,
    identifier: str,
    kind: str,
    template: str,
    fields: Mapping[str, Any],
    *,
    lang: str = "",
    ids: Mapping[str, str] | None = None,
) -> Example:
    """An Example with what the row itself says of its source, language, licence and PMID.

    Raises UserError for such a field of a wrong kind.
    """
    return Example(
        id=identifier,
        kind=kind,
        template=template,
        fields=fields,
        ids={**ids_of(row, where), **(ids or {})},
        source=optional_text(row, "source", where),
        lang=optional_text(row, "lang", where) or lang,
        licence=optional_text(row, "license", where) or optional_text(row, "licence", where),
    )


def blank(identifier: str, **fields: str) -> Drop | None:
    """A Drop naming the first empty field, so `no_answer`, `no_question`, ..."""
    for name, value in fields.items():
        if not value.strip():
            return Drop(identifier, f"no_{name}")
    return None


def answered(
    row: Mapping[str, Any],
    where: str,
    identifier: str,
    question: str,
    answer: str,
    *,
    lang: str = "",
    ids: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Example | Drop:
    """A `chat.qa` example, or a Drop when question or answer is empty.

    `extra` fields travel with the example; the template does not show them.
    """
    if (drop := blank(identifier, question=question, answer=answer)) is not None:
        return drop
    fields = {"question": question.strip(), "answer": answer.strip(), **(extra or {})}
    return example(row, where, identifier, "qa", "chat.qa", fields, lang=lang, ids=ids)


def reasoned(
    row: Mapping[str, Any],
    where: str,
    identifier: str,
    question: str,
    rationale: str,
    answer: str,
    *,
    lang: str = "",
) -> Example | Drop:
    """A `chat.reasoning` example, or a Drop when one of the three is empty."""
    given = {"question": question, "rationale": rationale, "answer": answer}
    if (drop := blank(identifier, **given)) is not None:
        return drop
    fields = {name: value.strip() for name, value in given.items()}
    return example(row, where, identifier, "reasoning", "chat.reasoning", fields, lang=lang)


def cited(*addresses: str) -> dict[str, str]:
    """{"pmid": "1 2"} of the PubMed addresses among these, for `Example.ids`; {} without one."""
    found = [number for address in addresses for number in _PUBMED.findall(address)]
    return {"pmid": " ".join(dict.fromkeys(found))} if found else {}


def strings_of(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """A list of strings that must be there. Raises UserError."""
    values = list_of(row, name, where)
    for position, value in enumerate(values):
        if not isinstance(value, str):
            what = f"{name}[{position}]: a string is expected, not {kind_of(value)}"
            raise UserError(what, where=where)
    return values


# -- our own row shapes --------------------------------------------------------------------------


def qa(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """`{id, question, answer}`. Raises UserError for a row that breaks the schema."""
    question, answer = text_of(row, "question", where), text_of(row, "answer", where)
    yield answered(row, where, id_of(row, where), question, answer)


def reasoning(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """`{id, question, rationale, answer}`; an open question and answer are preferred.

    Raises UserError for a row that breaks the schema.
    """
    prefix = "open_" if row.get("open_question") and row.get("open_answer") else ""
    question = text_of(row, f"{prefix}question", where)
    answer = text_of(row, f"{prefix}answer", where)
    rationale = text_of(row, "rationale", where)
    yield reasoned(row, where, id_of(row, where), question, rationale, answer)


def pqau(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """PQA-U's schema: a PMID (as `pmid`), QUESTION, CONTEXTS, LONG_ANSWER, no decision.

    A question with its conclusion is a question with an answer, so that is what it becomes; the
    contexts travel along unshown. yes, no or maybe is not made up here: whoever labels these items
    (the PQA-U builder) makes tasks of them. Raises UserError for a row that breaks the schema.
    """
    pmid = id_of(row, where, "pmid")
    if not (pmid.isascii() and pmid.isdigit()):
        raise UserError(f"key {pmid!r} is no PMID", where=where)
    contexts = strings_of(row, "CONTEXTS", where)
    ids = {"pmid": pmid}
    if pmcid := optional_text(row, "PMCID", where):
        ids["pmcid"] = pmcid
    question, answer = text_of(row, "QUESTION", where), text_of(row, "LONG_ANSWER", where)
    extra = {"contexts": [text for text in contexts if text.strip()]}
    yield answered(row, where, f"pqau-{pmid}", question, answer, ids=ids, extra=extra)


READERS: dict[str, Reader] = {
    "qa": Reader(jsonl, qa),
    "reasoning": Reader(jsonl, reasoning),
    "pqau": Reader(json_object("", "pmid"), pqau),
}
