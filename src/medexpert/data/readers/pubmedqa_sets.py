"""PubMedQA's artificial (PQA-A) and unlabelled (PQA-U) sets -> Example; streamed, not held.

Either the published JSON (an object PMID -> `{QUESTION, CONTEXTS, LABELS, MESHES, LONG_ANSWER,
final_decision}`; PQA-U has no decision) or the hub's parquet (`pubid, question, context{contexts,
labels, meshes}, long_answer, final_decision`), told by the file's first bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from medexpert.data.readers.json_rows import json_object
from medexpert.data.readers.pubmedqa import CHOICES
from medexpert.data.readers.rows import (
    Change,
    Drop,
    Fault,
    Part,
    Reader,
    Row,
    list_of,
    text_of,
)
from medexpert.data.readers.streams import open_raw
from medexpert.data.readers.tables import parquet_rows
from medexpert.records import Example, UserError

_objects = json_object(key="pmid")
_parquet = parquet_rows(("pubid", "question", "context", "long_answer"), ("final_decision",))

Converted = Iterator[Example | Drop | Change]


def rows(part: Part) -> Iterator[Row | Fault]:
    """Rows in the shape of the JSON file, the PMID under `pmid`."""
    with open_raw(part.path) as handle:
        parquet = handle.read(4) == b"PAR1"
    if not parquet:
        yield from _objects(part)
        return
    for found in _parquet(part):
        if isinstance(found, Fault):
            yield found
            continue
        where, row = found
        context = row["context"] if isinstance(row["context"], dict) else {}
        yield (
            where,
            {
                "pmid": str(row["pubid"]),
                "QUESTION": row["question"],
                "CONTEXTS": context.get("contexts"),
                "LABELS": context.get("labels"),
                "LONG_ANSWER": row["long_answer"],
                "final_decision": row.get("final_decision"),
            },
        )


def _converter(labelled: bool) -> Callable[[str, Mapping[str, Any]], Converted]:
    def convert(where: str, row: Mapping[str, Any]) -> Converted:
        pmid = row["pmid"]
        if not (pmid.isascii() and pmid.isdigit()):
            raise UserError(f"key {pmid[:40]!r} is no PMID", where=where)
        contexts = list_of(row, "CONTEXTS", where)
        if not contexts or not all(isinstance(text, str) for text in contexts):
            raise UserError("field 'CONTEXTS': a list of strings is expected", where=where)
        question = text_of(row, "QUESTION", where).strip()
        answer = ""
        if labelled:
            written = text_of(row, "final_decision", where)
            answer = written.strip().lower()
            if answer not in CHOICES:
                what = f"final_decision {written[:40]!r}"
                raise UserError(what, where=where, allowed=", ".join(CHOICES))
            if answer != written:
                yield Change(pmid, "label_in_lower_case")
        if not question:
            yield Drop(pmid, "no_question")
            return
        fields: dict[str, Any] = {"question": question, "contexts": contexts, "answer": answer}
        if row.get("LONG_ANSWER") is not None:
            fields["long_answer"] = text_of(row, "LONG_ANSWER", where).strip()
        yield Example(
            id=pmid,
            source="",
            kind="task",
            template="pubmedqa.lm_eval",
            fields=fields,
            lang="en",
            ids={"pmid": pmid},
        )

    return convert


READERS: dict[str, Reader] = {
    "pubmedqa_a": Reader(rows, _converter(labelled=True)),
    "pubmedqa_u": Reader(rows, _converter(labelled=False)),
}
