"""Examples in our own format, checked field by field: what a template needs, a row must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.rows import id_of, kind_of, list_of, object_of, optional_text, text_of
from medexpert.records import Example, UserError, from_mapping, unknown_name

_ASKED = {"question": str, "answer": str}
_LABEL = {"question": str, "options": dict, "answer_idx": str}
_TASK = {"question": str, "contexts": list, "answer": str}
_VERDICT = {"evidence": str, "question": str, "options": dict}
_SIDES = {**_VERDICT, "rationales": list, "answer": str}
SHAPES: dict[str, tuple[str, Mapping[str, type]]] = {
    "chat.qa": ("qa", _ASKED),
    "chat.reasoning": ("reasoning", {**_ASKED, "rationale": str}),
    "chat.mcq_label": ("mcq", _LABEL),
    "chat.mcq_reason": ("mcq", {**_LABEL, "explanation": str}),
    "chat.conversation": ("conversation", {"messages": list}),
    "pubmedqa.lm_eval": ("task", _TASK),
    "pubmedqa.question_only": ("task", _TASK),
    "pubmedqa.reasoning_free": ("task", {**_ASKED, "long_answer": str}),
    "direct.choices": ("task", {**_VERDICT, "answer": str}),
    "cot.reason": ("task", {**_VERDICT, "rationale": str, "answer": str}),
    "cot.refine": ("task", {**_VERDICT, "reasonings": list, "rationale": str, "answer": str}),
    "cot.answer": ("task", {"before": str, "answer": str}),
    "cot.conclusion": ("task", {**_VERDICT, "conclusion": str, "answer": str}),
    "voc.hypothesise": ("task", {**_VERDICT, "choice": str, "rationale": str}),
    "voc.verify": ("task", _SIDES),
    "voc.check": ("task", {**_SIDES, "check": str}),
    "voc.ptrue": ("task", {**_VERDICT, "choice": str, "rationale": str, "answer": str}),
}
"""Template -> the kind of its examples and the fields that it needs.

All templates with something to learn; voc.contradict only asks.
"""
TEXTS = ("contexts", "reasonings")
"""Lists of strings."""
ROLES = ("user", "assistant", "system")


def own_example(where: str, row: Mapping[str, Any]) -> Iterator[Example]:
    """The example of one row. Raises UserError for a field that is missing or of another type."""
    id_of(row, where)
    for name in ("source", "kind", "template"):
        text_of(row, name, where)
    for name in ("lang", "licence"):
        optional_text(row, name, where)
    fields = object_of(row.get("fields"), "field 'fields'", where)
    if row["template"] not in SHAPES:
        raise unknown_name("template", row["template"], SHAPES, where=where)
    kind, needed = SHAPES[row["template"]]
    if row["kind"] != kind:
        raise UserError(f"kind {row['kind']!r} with this template", where=where, allowed=kind)
    for name, wanted in needed.items():
        _check(fields, name, wanted, where)
    if kind == "conversation":
        for turn in fields["messages"]:
            _turn(turn, where)
    if kind == "mcq":
        _answer(fields, where)
    if "rejected" in fields:
        _rejected(fields, needed, where)
    ids = object_of(row.get("ids", {}), "field 'ids'", where)
    texts = {str(name): str(value) for name, value in ids.items()}
    yield from_mapping(Example, {**row, "fields": dict(fields), "ids": texts}, where=where)


def _check(fields: Mapping[str, Any], name: str, wanted: type, where: str) -> None:
    if wanted is str:
        text_of(fields, name, where)
    elif wanted is list:
        items = list_of(fields, name, where)
        if name in TEXTS and not all(isinstance(item, str) for item in items):
            raise UserError(f"{name}: a list of strings is expected", where=where)
        if name == "rationales" and not all(map(_is_pair, items)):
            raise UserError(f"{name}: a list of [choice, rationale] is expected", where=where)
    else:
        options = object_of(fields.get(name), f"field {name!r}", where)
        wrong = next((value for value in options.values() if not isinstance(value, str)), None)
        if wrong is not None:
            raise UserError(f"{name}: strings are expected, not {kind_of(wrong)}", where=where)


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and all(isinstance(part, str) for part in item)


def _rejected(fields: Mapping[str, Any], needed: Mapping[str, type], where: str) -> None:
    """A preference pair: `rejected` is a text in place of the answer, or an object of fields."""
    rejected = fields["rejected"]
    if isinstance(rejected, str):
        place = next((name for name in ("answer", "answer_idx") if name in needed), "")
        other = {**fields, place: rejected}
    elif isinstance(rejected, dict) and rejected:
        for name in rejected:
            if name not in needed:
                raise unknown_name("field in 'rejected'", name, needed, where=where)
            _check(rejected, name, needed[name], where)
        other = {**fields, **rejected}
    else:
        found = "an empty object" if rejected == {} else kind_of(rejected)
        raise UserError(
            f"field 'rejected': {found}", where=where, allowed="a string, or an object of fields"
        )
    for turn in other.get("messages", ()):
        _turn(turn, where)
    if "answer_idx" in needed:
        _answer(other, where)


def _turn(turn: Any, where: str) -> None:
    message = object_of(turn, "a message", where)
    text_of(message, "content", where)
    if text_of(message, "role", where) not in ROLES:
        raise unknown_name("role", message["role"], ROLES, where=where)


def _answer(fields: Mapping[str, Any], where: str) -> None:
    if not set(fields["answer_idx"]) <= set(fields["options"]) or not fields["answer_idx"]:
        raise UserError(
            f"answer_idx {fields['answer_idx']!r} names no option",
            where=where,
            allowed=", ".join(fields["options"]),
        )
