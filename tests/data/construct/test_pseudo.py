"""Pseudo-labels: which rows are labelled, how views become a label, what is left out and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data.construct.pseudo import (
    CHOICES,
    LABEL,
    PseudoSettings,
    label,
    over_the_cap,
    pooled,
    unlabelled,
    yes_no,
)
from medexpert.data.construct.rejects import REASONS, Reject
from medexpert.data.construct.teacher import Chosen, Fields, Refusal, Written
from medexpert.data.readers.pubmedqa import official_split
from medexpert.records import Example, UserError

ROW: dict[str, Any] = {
    "id": "99000001",
    "QUESTION": "Does rest shorten the cough?",
    "CONTEXTS": ["Forty adults rested.", "They coughed for 3 days."],
    "LABELS": ["METHODS", "RESULTS"],
    "MESHES": [],
    "YEAR": "2020",
    "LONG_ANSWER": "Rest shortened the cough.",
}
Answers = Callable[[str, Fields, Sequence[str]], Sequence[float] | str]


class Scripted:
    """A teacher whose probabilities come from a function; a text is a refusal."""

    name = "scripted"
    identity = "scripted 1"

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Fields, tuple[str, ...], str]] = []

    def template_id(self, template: str, lang: str) -> str:
        return f"{template}@{lang}"

    def write(self, *_: Any, **__: Any) -> list[Written | Refusal]:
        raise AssertionError("labels are not written")

    def choose(
        self, template: str, fields: Sequence[Fields], choices: Sequence[str], *, lang: str
    ) -> list[Chosen | Refusal]:
        out: list[Chosen | Refusal] = []
        for row in fields:
            self.asked.append((template, row, tuple(choices), lang))
            found = self.answers(template, row, choices)
            out.append(Refusal(found) if isinstance(found, str) else Chosen(tuple(found), "h"))
        return out


def says(word: str, p: float = 0.96) -> Answers:
    rest = (1 - p) / 2
    return lambda _template, _row, choices: [p if c == word else rest for c in choices]


def item(**changes: Any) -> Any:
    return unlabelled("f:1", {**ROW, **changes}, source="pqau")


def one(answers: Answers, settings: PseudoSettings | None = None, **changes: Any) -> Any:
    (out,) = label([item(**changes)], Scripted(answers), settings or PseudoSettings(), seed=3)
    return out


def test_a_sure_label_becomes_an_example_that_names_its_teacher() -> None:
    made = one(says("no"))
    assert isinstance(made, Example)
    assert (made.kind, made.template, made.id) == ("task", "pubmedqa.lm_eval", "pqau-99000001")
    assert made.fields == {
        "question": ROW["QUESTION"],
        "contexts": ROW["CONTEXTS"],
        "answer": "no",
        "long_answer": ROW["LONG_ANSWER"],
    }
    wanted = {"pmid": "99000001", "teacher": "scripted", "confidence": "0.9600", "seed": "3"}
    assert wanted.items() <= made.ids.items()
    assert made.ids["label_template"] == "construct.label@en"


def test_the_teacher_reads_the_conclusion_in_every_order_of_the_choices() -> None:
    teacher = Scripted(says("yes"))
    label([item()], teacher, PseudoSettings(), seed=0)
    assert [row[0] for row in teacher.asked] == ["pubmedqa.reasoning_free", LABEL, LABEL, LABEL]
    assert {row[1]["evidence"] for row in teacher.asked} == {ROW["LONG_ANSWER"]}
    shown = [row[2] for row in teacher.asked[1:]]
    assert [order[0] for order in shown] == list(CHOICES)


def test_the_abstract_instead_when_asked_for() -> None:
    teacher = Scripted(says("yes"))
    label([item(LONG_ANSWER="")], teacher, PseudoSettings(sees="abstract"), seed=0)
    assert teacher.asked[0][0] == "pubmedqa.lm_eval"
    assert teacher.asked[1][1]["evidence"] == "\n".join(ROW["CONTEXTS"])


def test_a_verdict_by_place_is_left_out() -> None:
    made = one(lambda _t, _r, _c: [0.98, 0.01, 0.01], PseudoSettings(min_confidence=0))
    assert isinstance(made, Reject)
    assert made.reason == "views_disagree"
    assert made.detail["agreement"] == "0.50"


def test_an_unsure_label_is_left_out() -> None:
    made = one(says("maybe", 0.5))
    assert isinstance(made, Reject)
    assert made.reason == "low_confidence"
    assert made.detail["label"] == "maybe"
    assert made.detail["views"][0] == {"yes": 0.25, "no": 0.25, "maybe": 0.5}


def test_a_prompt_the_teacher_refuses() -> None:
    made = one(lambda *_: "too long")
    assert isinstance(made, Reject)
    assert (made.reason, made.detail["why"]) == ("teacher_refused", "too long")


def test_order_is_kept_among_languages_and_rejects() -> None:
    zh = {"QUESTION": "休息能否缩短病程？", "lang": "zh"}
    items = [item(id="1"), item(id="2", LONG_ANSWER=" "), item(id="3", **zh), item(id="4")]
    teacher = Scripted(says("yes"))
    out = label(items, teacher, PseudoSettings(), seed=0)
    assert [o.id for o in out] == ["pqau-1", "pqau-2", "pqau-3", "pqau-4"]
    assert isinstance(out[1], Reject)
    assert out[1].reason == "no_conclusion"
    assert {row[3] for row in teacher.asked} == {"en", "zh"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"QUESTION": " "}, "no_question"),
        ({"CONTEXTS": [""]}, "no_context"),
        ({"QUESTION": "Which drug works best?"}, "not_yes_no"),
        ({"final_decision": "yes"}, "has_decision"),
        ({"id": next(iter(sorted(official_split().everything())))}, "pqal_item"),
    ],
)
def test_rows_that_are_not_labelled(changes: dict[str, Any], reason: str) -> None:
    found = item(**changes)
    assert isinstance(found, Reject)
    assert found.reason == reason
    assert reason in REASONS


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"CONTEXTS": "text"}, "list is expected"),
        ({"CONTEXTS": [1]}, "list of strings"),
        ({"id": ""}, "no id, PMID or key"),
        ({"fields": {}, "template": "chat.qa"}, "template pubmedqa.lm_eval is expected"),
        ({"fields": {}, "template": "pubmedqa.lm_eval", "ids": ["1"]}, "'ids'"),
        ({"fields": {}, "template": "pubmedqa.lm_eval", "id": ""}, "'id' is empty"),
    ],
)
def test_rows_that_break_the_format(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        item(**changes)


def test_the_hubs_parquet_row_and_our_own_example() -> None:
    row = {
        "pubid": 99000002, "question": "Is it?", "context": {"contexts": ["A."], "labels": []},
        "long_answer": "It is.",
    }  # fmt: skip
    found = unlabelled("f [row 1]", row, source="hub")
    assert (found.id, found.ids, found.source) == ("pqau-99000002", {"pmid": "99000002"}, "hub")
    example = {
        "id": "x", "source": "built", "kind": "task", "template": "pubmedqa.lm_eval",
        "fields": {"question": "Is it?", "contexts": ["A."], "long_answer": "It is."},
        "lang": "en", "licence": "CC0", "ids": {"pmcid": "PMC1"},
    }  # fmt: skip
    again = unlabelled("f:1", example, source="file")
    assert not isinstance(again, Reject)
    assert (again.id, again.source, again.licence, again.conclusion) == (
        "x", "built", "CC0", "It is.",
    )  # fmt: skip


@pytest.mark.parametrize(
    "question",
    ["Does it?", "Hernias- Is it a defect?", "X--are there any?", "‘Are smokers deserving?",
     "A marker: a cause of disease?", "Don’t they help?"],
)  # fmt: skip
def test_yes_no_questions(question: str) -> None:
    assert yes_no(question, "en")


@pytest.mark.parametrize(
    "question", ["Who wants it?", "For whom does it work?", "A: early or late?", "Treatment of X?"]
)
def test_other_questions(question: str) -> None:
    assert not yes_no(question, "en")


def test_chinese_yes_no_questions() -> None:
    assert yes_no("二甲双胍是否有效？", "zh")
    assert not yes_no("二甲双胍如何起效？", "zh")


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_pooled_is_a_probability_whatever_the_order_of_the_views(rows: list[list[float]]) -> None:
    views = [dict(zip(CHOICES, row, strict=True)) for row in rows]
    found, p = pooled(views)
    assert found in CHOICES
    assert 1 / 3 - 1e-9 <= p <= 1 + 1e-9
    assert math.isclose(pooled(views[::-1])[1], p, rel_tol=1e-9)


def maybes(*confidences: float) -> list[Mapping[str, Any]]:
    return [
        {"id": f"i{k}", "fields": {"answer": "maybe"}, "ids": {"confidence": f"{p:.4f}"}}
        for k, p in enumerate(confidences)
    ]


def test_the_most_confident_maybes_stay() -> None:
    rows = [*maybes(0.81, 0.95, 0.9), {"id": "y", "fields": {"answer": "yes"}, "ids": {}}]
    assert over_the_cap(iter(rows), PseudoSettings(max_maybe=2)) == {"i0": "maybe_cap"}
    assert set(over_the_cap(iter(rows), PseudoSettings(max_maybe=0))) == {"i0", "i1", "i2"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sees": "conclusions"}, "did you mean 'conclusion'"),
        ({"min_confidence": 1.5}, "min_confidence = 1.5"),
        ({"min_agreement": -1.0}, "min_agreement = -1.0"),
        ({"max_maybe": -1}, "max_maybe = -1"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        PseudoSettings(**values)
