"""Instruction formats -> Example: Alpaca, ChatDoctor's three sets, PromptCBLUE, medical-o1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.conversations import list_or_lines
from medexpert.data.readers.examples import Item, answered, name_of, reasoned
from medexpert.data.readers.mcq import is_parquet
from medexpert.data.readers.rows import Fault, Part, Reader, Row, jsonl, optional_text, text_of
from medexpert.data.readers.tables import parquet_rows


def alpaca(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """Alpaca and MedInstruct: `{instruction, input, output}`; the input follows the instruction."""
    instruction, given = text_of(row, "instruction", where), optional_text(row, "input", where)
    question = "\n".join(filter(None, (instruction.strip(), given.strip())))
    identifier = name_of(row, where, question, "id")
    yield answered(row, where, identifier, question, text_of(row, "output", where))


def chatdoctor(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """ChatDoctor's sets. HealthCareMagic and GenMedGPT: `{instruction, input, output}`, where the
    instruction is the same request in every row and the patient's words are the input. iCliniq:
    `{input, answer_icliniq, answer_chatgpt, answer_chatdoctor}`; only the doctor's is taken."""
    human = "answer_icliniq" in row
    answer = text_of(row, "answer_icliniq" if human else "output", where)
    question = text_of(row, "input", where)
    if not human and not question.strip():
        question = text_of(row, "instruction", where)
    identifier = name_of(row, where, question, "id")
    yield answered(row, where, identifier, question, answer, lang="en")


def promptcblue(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """PromptCBLUE: `{input, target, answer_choices, task_type, task_dataset, sample_id}`.

    The input is the whole prompt, the target the answer in words; older files name the task `type`.
    """
    question, answer = text_of(row, "input", where), text_of(row, "target", where)
    for name in ("task_type", "type", "task_dataset"):
        optional_text(row, name, where)
    identifier = name_of(row, where, question, "id", prefix="" if "id" in row else "promptcblue-")
    ids = {}
    if row.get("sample_id") is not None:
        ids["qid"] = name_of(row, where, question, "sample_id")
    yield answered(row, where, identifier, question, answer, lang="zh", ids=ids)


def medical_o1(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """medical-o1-reasoning: `{Question, Complex_CoT, Response}`."""
    question = text_of(row, "Question", where)
    rationale, answer = text_of(row, "Complex_CoT", where), text_of(row, "Response", where)
    identifier = name_of(row, where, question, prefix="o1-")
    yield reasoned(row, where, identifier, question, rationale, answer)


def _o1_rows(part: Part) -> Iterator[Row | Fault]:
    if is_parquet(part):
        yield from parquet_rows(("Question", "Complex_CoT", "Response"))(part)
    else:
        yield from list_or_lines(part)


def _alpaca_rows(part: Part) -> Iterator[Row | Fault]:
    if is_parquet(part):
        yield from parquet_rows(("instruction", "output"), ("input", "id"))(part)
    else:
        yield from list_or_lines(part)


def _chatdoctor_rows(part: Part) -> Iterator[Row | Fault]:
    if is_parquet(part):
        optional = ("instruction", "output", "answer_icliniq")
        yield from parquet_rows(("input",), optional)(part)
    else:
        yield from list_or_lines(part)


READERS: dict[str, Reader] = {
    "alpaca": Reader(_alpaca_rows, alpaca),
    "chatdoctor": Reader(_chatdoctor_rows, chatdoctor),
    "promptcblue": Reader(jsonl, promptcblue),
    "medical_o1": Reader(_o1_rows, medical_o1),
}
