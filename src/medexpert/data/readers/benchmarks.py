"""Benchmarks as a quarantine sees them: the identifiers and every text of each item.

A benchmark reader takes the paths of its files and yields every item, answers included, whether or
not a training example could be made of it: an item that needs a picture still must not be trained
on. Nothing here reaches a prompt. A row that breaks its schema is a UserError, since a benchmark
half read is a quarantine half closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medexpert.data.readers import bioasq as golden
from medexpert.data.readers import mcq, questions
from medexpert.data.readers.examples import name_of, numbered, strings_of
from medexpert.data.readers.json_rows import json_array, json_object
from medexpert.data.readers.rows import (
    Fault,
    Ids,
    Part,
    Row,
    fault,
    id_of,
    jsonl,
    kind_of,
    object_of,
    optional_text,
    text_of,
)
from medexpert.data.readers.tables import csv_rows, parquet_rows
from medexpert.records import UserError

_APOLLO_ANSWER = re.compile(r"\(?([A-J]+)\)?")
# The columns of MedInstruct's test file that hold models' reference answers.
_MEDINSTRUCT_ANSWERS = (
    "output",
    "gpt-4-answer",
    "claude-2",
    "gpt-3.5-turbo-answer",
    "text-davinci-003-answer",
)


@dataclass(frozen=True)
class BenchmarkItem:
    """One item. `id` is unique within its benchmark; `ids` name it elsewhere, by scheme.

    `texts` by role: "question" (question and options in order, a line each), "question_2", ... (the
    same in other words), "context" (contexts, a line each), "answer", "answer_2", ... (long
    answers, explanations, reference answers). A role that is empty is left out. What an item merely
    cites is not among its `ids`.
    """

    id: str
    ids: Mapping[str, str]
    texts: Mapping[str, str]


BenchmarkReader = Callable[[Sequence[str]], Iterator[BenchmarkItem]]
_Rows = Callable[[Part], Iterator[Row | Fault]]
_Convert = Callable[[str, Mapping[str, Any]], Iterable[BenchmarkItem]]


def item(
    identifier: str,
    question: str,
    *,
    options: Iterable[str] = (),
    contexts: Iterable[str] = (),
    answers: Iterable[str] = (),
    ids: Mapping[str, str] | None = None,
) -> BenchmarkItem:
    """An item with its texts under their roles; equal answers are kept once."""
    texts = {
        "question": "\n".join(filter(None, (text.strip() for text in (question, *options)))),
        "context": "\n".join(filter(None, (text.strip() for text in contexts))),
    }
    kept = dict.fromkeys(filter(None, (text.strip() for text in answers)))
    for number, answer in enumerate(kept, 1):
        texts["answer" if number == 1 else f"answer_{number}"] = answer
    told = {role: text for role, text in texts.items() if text}
    return BenchmarkItem(identifier, dict(ids or {}), told)


def _reader(rows: _Rows, convert: _Convert) -> BenchmarkReader:
    def read(paths: Sequence[str]) -> Iterator[BenchmarkItem]:
        seen = Ids("id")
        for path in paths:
            for found in rows(Part(str(path))):
                if isinstance(found, Fault):
                    raise UserError(found.what, where=found.where)
                where, row = found
                try:
                    items = list(convert(where, row))
                    for one in items:
                        seen.check(one.id, where)
                except UserError as error:
                    bad = fault(error, where)  # on one line, whatever is in the row
                    raise UserError(bad.what, where=bad.where) from None
                yield from items

    return read


# -- one function a schema -----------------------------------------------------------------------


def _pubmedqa(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    """PQA-L: every item, train and test halves, with its long answer."""
    if "pubid" in row:
        context = object_of(row.get("context"), "field 'context'", where)
        told = {"pmid": str(row["pubid"]), "QUESTION": row["question"]}
        row = {**told, "CONTEXTS": context.get("contexts"), "LONG_ANSWER": row["long_answer"]}
    pmid = id_of(row, where, "pmid")
    if not (pmid.isascii() and pmid.isdigit()):
        raise UserError(f"key {pmid!r} is no PMID", where=where)
    yield item(
        pmid,
        text_of(row, "QUESTION", where),
        contexts=strings_of(row, "CONTEXTS", where),
        answers=[text_of(row, "LONG_ANSWER", where)],
        ids={"pmid": pmid},
    )


def _pubmedqa_rows(part: Part) -> Iterator[Row | Fault]:
    if mcq.is_parquet(part):
        yield from parquet_rows(("pubid", "question", "context", "long_answer"))(part)
    else:
        yield from json_object("", "pmid")(part)


def _medqa(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    question = text_of(row, "question", where)
    options = mcq.options_of(row, "options", where)
    yield item(name_of(row, where, question, "id"), question, options=options.values())


def _medmcqa(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    identifier = id_of(row, where)
    options = [text_of(row, f"op{x}", where) for x in "abcd"]
    answers = [optional_text(row, "exp", where)]
    question = text_of(row, "question", where)
    ids = {"qid": identifier}
    yield item(identifier, question, options=options, answers=answers, ids=ids)


def _mmlu(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    question = text_of(row, "question", where)
    if "choices" in row:
        prefix = f"{optional_text(row, 'subject', where) or 'any'}-"
        options = strings_of(row, "choices", where)
    else:
        prefix, options = "", [text_of(row, letter, where) for letter in "ABCD"]
    yield item(numbered(where, question, prefix=prefix), question, options=options)


def _cmmlu(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    question = text_of(row, "Question", where)
    options = [text_of(row, letter, where) for letter in "ABCD"]
    yield item(numbered(where, question), question, options=options)


def _headqa(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    identifier = mcq.headqa_id(where, row)
    options, _ = mcq.headqa_options(where, row)
    question = text_of(row, "qtext", where)
    yield item(identifier, question, options=options.values(), ids={"qid": identifier})


def _apollo(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    """Apollo's rows: options as one text of lines `(A) ...`, answer `(D)`, no id."""
    question = text_of(row, "question", where)
    options = mcq.option_lines(text_of(row, "options", where), where)
    answer = text_of(row, "answer", where).strip()
    if not _APOLLO_ANSWER.fullmatch(answer):
        raise UserError(f"field 'answer': {answer[:40]!r}", where=where, allowed="(A), (BD), ...")
    yield item(name_of(row, where, question, "id"), question, options=options.values())


def _cmexam(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    """CMExam's own csv; rows with `options` as an object or as lines are read too."""
    if "Question" not in row:
        yield from (_apollo if isinstance(row.get("options"), str) else _chosen)(where, row)
        return
    question = text_of(row, "Question", where)
    options = mcq.option_lines(text_of(row, "Options", where), where)
    explanation = optional_text(row, "Explanation", where)
    answers = [] if explanation.strip().lower() == "nan" else [explanation]
    identifier = numbered(where, question)
    yield item(identifier, question, options=options.values(), answers=answers)


def _chosen(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    options = mcq.options_of(row, "options", where)
    answers = [optional_text(row, "explanation", where)]
    question = text_of(row, "question", where)
    yield item(id_of(row, where), question, options=options.values(), answers=answers)


def _cmexam_rows(part: Part) -> Iterator[Row | Fault]:
    yield from (csv_rows() if ".csv" in part.path.lower() else jsonl)(part)


def _cmb(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    if isinstance(row.get("options"), str):
        yield from _apollo(where, row)
        return
    question = text_of(row, "question", where)
    options = mcq.options_of(row, "option", where)
    answers = [optional_text(row, "explanation", where)]
    identifier = name_of(row, where, question, "id")
    yield item(identifier, question, options=options.values(), answers=answers)


def _cmb_rows(part: Part) -> Iterator[Row | Fault]:
    from medexpert.data.readers.conversations import list_or_lines

    yield from list_or_lines(part)


def _liveqa(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    found = questions.liveqa_item(where, row)
    answers = [answer for answer, _ in found.answers]
    one = item(found.id, found.asked, answers=answers, ids={"qid": found.id})
    # The paraphrase and the summary are the same question in other words.
    others = (text for text in dict.fromkeys(found.others) if text and text != found.asked)
    told = {f"question_{number}": text for number, text in enumerate(others, 2)}
    yield BenchmarkItem(one.id, one.ids, {**one.texts, **told})


def _medicationqa(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    question = optional_text(row, "Question" if "Question" in row else "question", where)
    answer = optional_text(row, "Answer" if "Answer" in row else "answer", where)
    yield item(name_of(row, where, question, "id"), question, answers=[answer])


def _medinstruct(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    question = text_of(row, "instruction", where)
    given = [optional_text(row, "input", where)]
    answers = [optional_text(row, name, where) for name in _MEDINSTRUCT_ANSWERS]
    identifier = name_of(row, where, question, "id", prefix="medinstruct-")
    yield item(identifier, question, options=given, answers=answers)


def _bioasq(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    """The documents are cited, so they name no item: only BioASQ's own id does."""
    identifier = id_of(row, where)
    yield item(
        identifier,
        text_of(row, "body", where),
        contexts=golden.snippets_of(row, where),
        answers=golden.ideal_answers(row, where),
        ids={"qid": identifier},
    )


def _file(where: str, row: Mapping[str, Any]) -> Iterator[BenchmarkItem]:
    """`{id, question, choices: [...], answer: index, context?, explanation?, pmid?, qid?}`."""
    choices = strings_of(row, "choices", where) if row.get("choices") is not None else []
    answer = row.get("answer")
    right: list[str] = []
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            allowed = f"0 to {len(choices) - 1}"
            raise UserError(f"field 'answer': {answer}", where=where, allowed=allowed)
    elif isinstance(answer, str):
        right = [] if answer in choices else [answer]
    elif answer is not None:
        what = f"field 'answer': an index of choices is expected, not {kind_of(answer)}"
        raise UserError(what, where=where)
    context = row.get("context")
    contexts = [context] if isinstance(context, str) else None
    if contexts is None:
        contexts = [] if context is None else strings_of(row, "context", where)
    ids = {}
    for scheme in ("pmid", "pmcid", "qid", "doi"):
        if row.get(scheme) is not None:
            ids[scheme] = name_of(row, where, "", scheme)
    question = text_of(row, "question", where)
    yield item(
        name_of(row, where, question, "id"),
        question,
        options=choices,
        contexts=contexts,
        answers=[*right, optional_text(row, "explanation", where)],
        ids=ids,
    )


BENCHMARK_READERS: dict[str, BenchmarkReader] = {
    "pubmedqa": _reader(_pubmedqa_rows, _pubmedqa),
    "medqa": _reader(jsonl, _medqa),
    "medmcqa": _reader(mcq.medmcqa_rows, _medmcqa),
    "mmlu": _reader(mcq.mmlu_rows, _mmlu),
    "cmmlu": _reader(csv_rows(), _cmmlu),
    "headqa": _reader(mcq.headqa_rows, _headqa),
    "apollo": _reader(jsonl, _apollo),
    "cmexam": _reader(_cmexam_rows, _cmexam),
    "cmb": _reader(_cmb_rows, _cmb),
    "liveqa": _reader(questions.liveqa_rows, _liveqa),
    "medicationqa": _reader(questions.medicationqa_rows, _medicationqa),
    "medinstruct": _reader(jsonl, _medinstruct),
    "bioasq": _reader(json_array("questions"), _bioasq),
    "file": _reader(jsonl, _file),
}
