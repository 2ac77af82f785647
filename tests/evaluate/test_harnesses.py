"""Each harness's rule and its trap, on texts made by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.engines.scripted import ScriptedEngine
from medexpert.evaluate.harness_rules import Read, helm, huatuo, meditron, mirage
from medexpert.evaluate.harnesses import (
    Answered,
    harnesses,
    markdown,
    said,
    spread,
    table,
    weighted_f1,
)
from medexpert.prompt.parse import parse_choice
from medexpert.prompt.strategies import get
from medexpert.records import NO_ANSWER, Prediction, Question, UserError

WORDS = ("yes", "no", "maybe")
OPTIONS = {"A": "aspirin", "B": "beta blocker", "C": "insulin", "D": "none of these"}


@pytest.mark.parametrize(
    ("text", "label"),
    [("A", "A"), (" B \nbecause", "B"), ("\nC", ""), ("D", ""), ("A.", ""), ("(A)", ""),
     ("A. yes", ""), ("yes", ""), ("a", ""), ("", "")],
)  # fmt: skip
def test_helm_takes_the_bare_letter_only(text: str, label: str) -> None:
    assert helm(text, 3) == Read(label, "read" if label else "unread")


@pytest.mark.parametrize(
    ("text", "label"),
    [("Yes.", "yes"), ("  NO ", "no"), ("yesno", "yes"), ("noyes", "no"), ("nono", "no"),
     ("A", "a"), ("x\n## Answer: yes\nmore", None), ("x\n##yes\nmore", "yes")],
)  # fmt: skip
def test_meditron_reads_whole_words(text: str, label: str | None) -> None:
    found = meditron(text, letters=False)
    assert found == (Read(label, "read") if label else Read("", "unread"))


@pytest.mark.parametrize("text", ["maybe", "Maybe.", "The answer is maybe", "yes, it does"])
def test_meditron_cannot_read_maybe_nor_a_sentence(text: str) -> None:
    assert meditron(text, letters=False).how == "unread"
    assert meditron("The answer is maybe", letters=False, reasoned=True).how == "unread"


def test_meditron_reads_behind_answer_is_when_reasoned_and_a_first_letter_of_anything() -> None:
    assert meditron("So the answer is: No, it", letters=False, reasoned=True).label == "no"
    assert meditron("because it is D", letters=True) == Read("b", "read")
    assert meditron("The answer is (C).", letters=True, reasoned=True).label == "c"
    assert meditron("The answer is C", letters=True).how == "unread"  # its first letter is t
    assert meditron("", letters=True, reasoned=True).how == "unread"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("The answer is B. No, the answer is C.", "B", "C"),
        ("## Final Response\n\nD", "D", "D"),
        ("B or, better, C", "B", "C"),
        ("A patient with fever needs B", "B", "B"),  # the article is no letter
        ("insulin, or perhaps aspirin", "A", "A"),  # the option named last, for both
        ("C B", "C", "C"),  # a blank between two letters serves one of them
        ("答案是C项", "C", "C"),
    ],
)
def test_huatuo_reads_first_and_last(text: str, first: str, last: str) -> None:
    assert huatuo(text, OPTIONS) == (Read(first, "read"), Read(last, "read"))


def test_huatuo_guesses_the_nearest_option_when_nothing_is_said() -> None:
    first, last = huatuo("i would give insuline-like drugs"[:14], OPTIONS)
    assert first == last
    assert first.how == "guessed"
    assert huatuo("", OPTIONS)[0] == Read("D", "guessed")  # all equally unlike: the last


@pytest.mark.parametrize(
    ("text", "label"),
    [("B", "B"), ("C or D", "C"), ("D, since", "D"), ('{"answer_choice": "C"}', "C"),
     ("I think option B fits", "B"), ("Answer: Based on this, D", "B"), ("D. none", "D"),
     ("The right one is D", "A"), ("maybe", "A"), ("", "A"), ("E", "A")],
)  # fmt: skip
def test_mirage_falls_back_to_a(text: str, label: str) -> None:
    assert mirage(text).label == label
    assert (mirage(text).how == "default") == (text in ("The right one is D", "maybe", "", "E"))


@given(st.text(max_size=60), st.booleans())
def test_no_text_breaks_a_rule(text: str, flag: bool) -> None:
    assert helm(text, 3).label in ("", "A", "B", "C")
    meditron(text, letters=flag, reasoned=not flag)
    assert all(read.label in "ABCD" for read in huatuo(text, OPTIONS))
    assert mirage(text).label in "ABCD"


def test_weighted_f1_takes_the_weights_of_the_predictions() -> None:
    truth, given = ["yes"] * 6 + ["no"] * 3 + ["maybe"], ["yes"] * 3 + ["no"] * 5 + ["x", "maybe"]
    # scikit-learn's f1_score(given, truth, average="weighted"); in the usual order it is 0.65.
    assert weighted_f1(truth, given) == pytest.approx(0.55)


def item(
    identity: str, gold: str, text: str | None, logprobs: Any = (), **changes: Any
) -> Answered:
    parsed = parse_choice(text or "", WORDS)
    return Answered(identity, WORDS, gold, parsed, text, logprobs, **changes)


def test_one_prediction_set_has_as_many_scores_as_harnesses() -> None:
    items = [
        item("1", "yes", "Yes", (-1.0, -2.0, -3.0)),
        item("2", "no", "no", (-1.0, -0.5, -3.0)),
        item("3", "maybe", "Maybe", (-2.0, -1.0, -0.1)),
        item("4", "yes", "A", (-0.1, -1.0, -2.0)),
        item("5", "no", "", (-0.1, -1.0, -2.0)),
    ]
    rows = {row.harness: row for row in table(items)}
    right = {name: round(5 * (row.accuracy or 0)) for name, row in rows.items()}
    assert right["medexpert"] == 4
    assert right["lm-eval"] == 4
    assert right["HELM"] == 1  # the letter alone
    assert right["Meditron"] == 2  # never maybe, and "a" is no word
    assert right["HuatuoGPT-o1"] == 4  # it guesses
    assert right["MIRAGE"] == 2  # the two yes, by the letter and by default
    assert (rows["MIRAGE"].read, rows["MIRAGE"].made_up) == (1, 4)
    assert spread(list(rows.values())) == pytest.approx(0.6)
    page = markdown(list(rows.values()), "a set")
    assert "| Meditron | 5 | 3 | 0 | 40.0 |" in page
    assert "Spread of accuracy: 60.0 points." in page


def test_helm_counts_the_rows_that_others_train_on() -> None:
    items = [item("1", "yes", "A"), item("2", "yes", "B", test=False)]
    rows = {row.harness: row for row in table(items)}
    assert (rows["HELM"].n, rows["HELM"].accuracy) == (2, 0.5)
    assert (rows["medexpert"].n, rows["medexpert"].accuracy) == (1, 1.0)
    assert rows["lm-eval"].accuracy is None
    assert "needs label log-probs" in rows["lm-eval"].note
    with pytest.raises(UserError, match="no test item"):
        table(items[1:])


def test_scored_answers_leave_text_rules_out() -> None:
    rows = table([item("1", "yes", None, (-1.0, -2.0, -3.0))])
    assert [row.accuracy for row in rows[2:]] == [None] * 5
    assert spread(rows) == 1.0  # ours reads no text either here


def test_a_model_that_wrote_nothing_is_read_by_every_rule() -> None:
    rows = {row.harness: row for row in table([item("1", "yes", ""), item("2", "no", " ")])}
    assert rows["HELM"].accuracy == rows["Meditron"].accuracy == 0
    assert (rows["MIRAGE"].accuracy, rows["MIRAGE"].made_up) == (0.5, 2)  # "A" for silence
    silent = Prediction("1", NO_ANSWER, "yes", {}, {"samples": [{"text": ""}]})
    assert said(silent) == ""
    assert said(Prediction("1", "yes", "yes", {"yes": 1.0}, {})) is None


def test_a_refused_question_is_wrong_by_every_rule_and_hides_none() -> None:
    lost = item("3", "yes", None, refused=True)
    scored = [item("1", "yes", None, (-1.0, -2.0, -3.0)), item("2", "no", None, (-1.0, -2.0, -3.0))]
    rows = {row.harness: row for row in table([*scored, lost])}
    assert (rows["lm-eval"].n, rows["lm-eval"].read) == (3, 2)
    assert rows["lm-eval"].accuracy == pytest.approx(1 / 3)
    assert rows["HELM"].accuracy is None  # still no text to read
    # Beside an answer that says nothing, which rules read, one that was refused is not read: not
    # even as MIRAGE's "A", which would be right here.
    rows = {row.harness: row for row in table([item("1", "yes", ""), lost])}
    assert (rows["MIRAGE"].accuracy, rows["MIRAGE"].made_up) == (0.5, 1)
    assert (rows["HuatuoGPT-o1"].read, rows["HuatuoGPT-o1"].made_up) == (0, 1)
    assert all(rows[name].accuracy == 0 for name in ("medexpert", "HELM", "Meditron"))
    # The silent answer has no log-probs either: then lm-eval's rule really lacks them.
    assert rows["lm-eval"].accuracy is None


def test_a_written_check_is_read_as_the_answer() -> None:
    question = Question("1", "Which?", ("aspirin", "warfarin"), "warfarin")
    engine = ScriptedEngine(lambda p: "The answer is B" if "Check:" in p else "So it is.",
                            has_logprobs=False)  # fmt: skip
    voc = get("voc:verdict=generated:permutations=cyclic")
    (made,) = voc.predict([question], engine, protocol="question-only", seed=0)
    assert said(made) == "The answer is B"
    rows = table([Answered("1", question.choices, made.answer, made.choice, said(made))])
    read = {row.harness: row.read for row in rows}
    assert (read["medexpert"], read["Meditron, reasoned"], read["HuatuoGPT-o1"]) == (1, 1, 1)


def test_letters_are_scored_as_letters() -> None:
    choices = ("5 %", "10 %", "5 % [C]")
    one = Answered("1", choices, "5 % [C]", "5 % [C]", "C", (-3.0, -2.0, -1.0))
    assert one.options == {"A": "5 %", "B": "10 %", "C": "5 %"}
    rows = {row.harness: row.accuracy for row in table([one])}
    assert set(rows.values()) == {1.0}


def test_from_a_folder(tmp_path: Path, evaluate: Callable[..., Any], fakes: Any) -> None:
    evaluate(tmp_path / "a")
    asked = fakes.questions(40)
    found = harnesses(tmp_path / "a", load=lambda task, split: asked)
    assert found["title"] == "toy, reasoning-required, direct, fake"
    assert found["rows"][0]["n"] == 40
    other = fakes.questions(40, "!")[:39]
    with pytest.raises(UserError, match="question q039 is not the task's own"):
        harnesses(tmp_path / "a", load=lambda task, split: other)
    with pytest.raises(UserError, match="allowed: another split of the same task"):
        harnesses(tmp_path / "a", load=lambda task, split: asked, more=[tmp_path / "a"])


def test_what_stands_beside_the_test_was_answered_alike(
    tmp_path: Path, evaluate: Callable[..., Any], fakes: Any
) -> None:
    def load(task: str, split: str) -> Any:
        return fakes.questions(40) if split == "test" else fakes.questions(60)[40:]

    task = replace(fakes.task(), load=lambda root, split: load("", split))
    evaluate(tmp_path / "a", task=task)
    for name, changes, told in (
        ("strategy", {"strategy": "voc"}, "strategy is 'voc', beside 'direct'"),
        ("model", {"engine": fakes.engine("other")}, "model is 'other', beside 'fake'"),
        ("protocol", {"protocol": "question-only"}, "protocol is 'question-only'"),
    ):
        evaluate(tmp_path / name, task=task, split="dev-0", **changes)
        with pytest.raises(UserError, match=told):
            harnesses(tmp_path / "a", load=load, more=[tmp_path / name])
    for name in ("dev-0", "dev-1"):
        evaluate(tmp_path / name, task=task, split=name)
    assert harnesses(tmp_path / "a", load=load, more=[tmp_path / "dev-0"])["rows"][0]["n"] == 40
    with pytest.raises(UserError, match="question q040 is there twice"):
        harnesses(tmp_path / "a", load=load, more=[tmp_path / "dev-0", tmp_path / "dev-1"])
