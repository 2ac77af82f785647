"""Passages -> questions: strict parsing, every check without a model, and the second pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import grams
from medexpert.data.construct.passages import (
    UNRELATED,
    Passage,
    PassageSettings,
    ask,
    fault,
    found_share,
    numbers,
    parse,
    passages,
)
from medexpert.data.construct.rejects import REASONS, Reject
from medexpert.data.construct.teacher import Chosen, Fields, Refusal, Written
from medexpert.data.readers.pubmedqa import official_split
from medexpert.records import Example, UserError

TEXT = (
    "Velorin is an invented drug for dry cough. Adults take 5 mg of velorin each evening for 10 "
    "days. It is swallowed with water, and it may cause a headache in the first week of use."
)
GOOD = "Question: What dose of velorin do adults take?\nAnswer: Adults take 5 mg each evening."
ZH_TEXT = "维洛林是一种虚构的止咳药。成人每晚服用5毫克，连续10天，用水送服。首周可能出现头痛。"
ZH_GOOD = "问题：成人每晚服用多少维洛林？\n答案：成人每晚服用5毫克。"


class Scripted:
    """Writes one text for everything; supports answers by whether the passage is the real one."""

    name = "scripted"
    identity = "scripted 1"

    def __init__(
        self, text: str = GOOD, *, here: float = 0.95, elsewhere: float = 0.05, finish: str = "stop"
    ) -> None:
        self.text, self.here, self.elsewhere, self.finish = text, here, elsewhere, finish
        self.checked: list[Fields] = []
        self.refuse_write = self.refuse_check = False

    def template_id(self, template: str, lang: str) -> str:
        return f"{template}@{lang}"

    def write(
        self, template: str, fields: Sequence[Fields], **settings: Any
    ) -> list[Written | Refusal]:
        assert template == "construct.passage_qa"
        if self.refuse_write:
            return [Refusal("too long") for _ in fields]
        return [Written(self.text, 9, self.finish, "w") for _ in fields]

    def choose(
        self, template: str, fields: Sequence[Fields], choices: Sequence[str], *, lang: str
    ) -> list[Chosen | Refusal]:
        assert template == "construct.supported"
        assert tuple(choices) == ("true", "false")
        self.checked += fields
        out: list[Chosen | Refusal] = []
        for row in fields:
            p = self.elsewhere if row["evidence"] in UNRELATED.values() else self.here
            out.append(Refusal("too long") if self.refuse_check else Chosen((p, 1 - p), "c"))
        return out


def passage(text: str = TEXT, lang: str = "en") -> Passage:
    return Passage("d#1", "f:1", text, "d", lang, "src", "CC0", {"pmid": "99"})


def one(teacher: Scripted, item: Passage | None = None) -> Any:
    (out,) = ask([item or passage()], teacher, PassageSettings(), seed=5)
    return out


@pytest.mark.parametrize(
    ("text", "written", "lang"), [(TEXT, GOOD, "en"), (ZH_TEXT, ZH_GOOD, "zh")]
)
def test_a_verified_pair_becomes_an_example(text: str, written: str, lang: str) -> None:
    teacher = Scripted(written)
    made = one(teacher, passage(text, lang))
    assert isinstance(made, Example)
    assert (made.kind, made.template, made.licence) == ("qa", "chat.qa", "CC0")
    assert set(made.fields) == {"question", "answer"}
    wanted = {"teacher": "scripted", "prompt": "w", "check_prompts": "c,c", "seed": "5",
              "document": "d", "pmid": "99"}  # fmt: skip
    assert wanted.items() <= made.ids.items()
    assert made.ids["template"] == f"construct.passage_qa@{lang}"
    assert [row["evidence"] for row in teacher.checked] == [text, UNRELATED[lang]]


def test_not_supported() -> None:
    made = one(Scripted(here=0.5))
    assert isinstance(made, Reject)
    assert made.reason == "not_supported"
    assert made.detail["margin"] == "0.0000"


def test_a_teacher_that_says_yes_to_everything_verifies_nothing() -> None:
    made = one(Scripted(here=0.99, elsewhere=0.99))
    assert isinstance(made, Reject)
    assert made.reason == "supported_without_passage"


def test_refusals_and_unfinished_texts() -> None:
    teacher = Scripted()
    teacher.refuse_write = True
    assert one(teacher).reason == "teacher_refused"
    teacher = Scripted()
    teacher.refuse_check = True
    assert one(teacher).reason == "teacher_refused"
    made = one(Scripted(finish="length"))
    assert made.reason == "cut_off"
    assert made.detail["written"] == GOOD
    assert made.detail["passage"] == TEXT


def test_order_is_kept() -> None:
    items = [passage(), passage(ZH_TEXT, "zh"), passage()]
    out = ask(items, Scripted(), PassageSettings(), seed=0)
    assert [type(o) for o in out] == [Example, Reject, Example]


@pytest.mark.parametrize(
    "text",
    [
        "", "Question: A?", "Answer: B", "Sure! " + GOOD, GOOD + "\nQuestion: again?",
        GOOD + "\nmore", "Question:\nAnswer: x", "Question: A?\n\nAnswer:",
    ],
)  # fmt: skip
def test_only_one_question_and_one_answer_are_parsed(text: str) -> None:
    assert parse(text) is None
    made = one(Scripted(text))
    assert isinstance(made, Reject)
    assert made.reason == "unparsed"


def test_blank_lines_around_the_pair_do_not_matter() -> None:
    assert parse("\n Question:  A b?\n\nAnswer: c d. \n") == ("A b?", "c d.")
    assert parse(ZH_GOOD) == ("成人每晚服用多少维洛林？", "成人每晚服用5毫克。")


@given(st.text())
def test_parse_takes_any_text(text: str) -> None:
    found = parse(text)
    assert found is None or all(part and "\n" not in part for part in found)


Q = "What dose of velorin do adults take?"


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("The dose of velorin.", "5 mg.", "no_question_mark"),
        ("Why so?", "Dry cough.", "question_length"),
        ("What " + "very " * 80 + "long?", "Dry cough.", "question_length"),
        (Q, "...", "answer_length"),
        (Q, TEXT + " " + TEXT, "answer_length"),
        (Q, TEXT.rstrip("."), "answer_is_passage"),
        (Q, "What dose of velorin do adults take", "answer_is_question"),
        ("What does the passage say about velorin?", "Dry cough.", "refers_to_text"),
        (Q, "The authors say 5 mg.", "refers_to_text"),
        (Q, "成人每晚服用5毫克", "wrong_language"),
        (Q, "Adults take 50 mg.", "number_not_found"),
        ("What does 7.5 mg velorin do?", "It may cause a headache.", "number_not_found"),
        (Q, "Penguins prefer antarctic glaciers.", "words_not_found"),
        (Q, "Adults take 5 mg each evening.", None),
    ],
)
def test_checks_without_a_model(question: str, answer: str, reason: str | None) -> None:
    assert fault(question, answer, TEXT, lang="en", min_found=0.8) == reason
    assert reason is None or reason in REASONS


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("文中的维洛林怎么服用？", "用水送服。", "refers_to_text"),
        ("维洛林怎么服用？", "企鹅喜欢南极冰川。", "words_not_found"),
        ("How is velorin taken?", "用水送服。", "wrong_language"),
        ("维洛林怎么服用？", "用水送服。", None),
    ],
)
def test_checks_in_chinese(question: str, answer: str, reason: str | None) -> None:
    assert fault(question, answer, ZH_TEXT, lang="zh", min_found=0.8) == reason


def test_numbers_are_compared_as_written() -> None:
    assert numbers("1,200 of 3 400; 5.0 and ５") == {"1200", "3", "400", "5.0", "5"}
    assert not numbers("5 mg") & numbers("10 mg, 0.5 mg")


def test_share_of_words_found() -> None:
    text = grams.tokens(TEXT)
    assert found_share(grams.tokens("headaches"), text) == 1.0
    assert found_share(grams.tokens("yes"), text) == 1.0
    assert found_share(grams.tokens("velorin glaciers"), text) == 0.5


def rows(row: dict[str, Any], **settings: Any) -> list[Any]:
    return list(passages("f:1", row, PassageSettings(**settings), source="file", seed=0))


def test_a_document_is_cut_and_pieces_are_drawn() -> None:
    text = "\n\n".join(f"Paragraph {k}. " + "word " * 50 for k in range(6))
    row = {"id": "d", "text": text, "source": "s", "ids": {"pmid": "99"}, "licence": "CC0"}
    found = rows(row, max_chars=400, min_chars=100, per_document=2)
    assert [p.document for p in found] == ["d", "d"]
    assert len({p.id for p in found}) == 2
    assert all(100 <= len(p.text) <= 400 for p in found)
    assert found == rows(row, max_chars=400, min_chars=100, per_document=2)
    assert len(rows(row, max_chars=400, min_chars=100, per_document=99)) < 99


def test_sections_are_joined_and_short_documents_left_out() -> None:
    row = {"id": "d", "sections": [{"label": "METHODS", "text": TEXT}, {"text": TEXT}]}
    (found,) = rows(row)
    assert found.text.startswith("METHODS\n")
    (short,) = rows({"id": "d", "text": "Short."})
    assert short.reason == "too_short"
    pmid = min(official_split().everything())
    for row in ({"id": "d", "pmid": pmid}, {"id": pmid}, {"id": f"pmid:{pmid}"}):
        (held,) = rows({**row, "text": TEXT})
        assert held.reason == "pqal_item"


@pytest.mark.parametrize(
    ("row", "told"),
    [({"text": TEXT}, "no id"), ({"id": "d"}, "'text' is missing"),
     ({"id": "d", "text": 3}, "a string is expected"),
     ({"id": "d", "sections": ["x"]}, "a section: an object"),
     ({"id": "d", "text": TEXT, "ids": [1]}, "ids: an object")],
)  # fmt: skip
def test_rows_that_break_the_format(row: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        rows(row)


@pytest.mark.parametrize(
    ("values", "told"),
    [({"min_chars": 0}, "min_chars = 0"), ({"max_chars": 10}, "max_chars = 10"),
     ({"per_document": 0}, "per_document = 0"), ({"min_found": 2.0}, "min_found = 2.0")],
)  # fmt: skip
def test_settings_out_of_range(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        PassageSettings(**values)
