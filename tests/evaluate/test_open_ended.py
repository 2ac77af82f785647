"""Open questions: overlap, grades of a judge, and a run that goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.__main__ import main
from medexpert.engines.base import Completion, PromptError
from medexpert.engines.scripted import ScriptedEngine
from medexpert.evaluate import open_ended
from medexpert.evaluate.open_ended import evaluate_open, scores, told
from medexpert.evaluate.overlap import rouge_l, token_f1, tokens
from medexpert.evaluate.tasks.open_tasks import open_task_named
from medexpert.evaluate_verbs import Opening
from medexpert.manifest import verify
from medexpert.prompt.judge import parse_grade
from medexpert.records import UserError

GOLDENS = json.loads(
    (Path(__file__).resolve().parents[1] / "reference" / "rouge_goldens.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", GOLDENS)
def test_rouge_l_is_rouge_scores(case: dict[str, Any]) -> None:
    assert rouge_l(case["answer"], case["reference"]) == pytest.approx(case["rouge_l"], abs=1e-12)
    # ROUGE-1's F is the F1 of shared tokens.
    assert token_f1(case["answer"], case["reference"]) == pytest.approx(case["rouge_1"], abs=1e-12)


@given(st.text(max_size=40), st.text(max_size=40))
def test_overlap_is_a_share_and_symmetric(one: str, other: str) -> None:
    for score in (rouge_l, token_f1):
        assert 0 <= score(one, other) <= 1
        assert score(one, other) == score(other, one)
        assert score(one, one) == (1.0 if tokens(one) else 0.0)
    assert rouge_l(one, other) <= token_f1(one, other)


def test_chinese_is_compared_by_character() -> None:
    assert tokens("服用aspirin 5毫克") == ["服", "用", "aspirin", "5", "毫", "克"]
    assert rouge_l("不要饮酒", "饮酒不要") == 0.5


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("3", 3), (" 4\n\nbecause", 4), ("Grade: 2", 2), ("grade 1", 1), ("Score: (3)", 3),
        ("评分：4", 4), ("Grade: 3. So, grade 3.", 3),
        ("Grade: 5", None), ("Grade: 2 or 3", None), ("Grade: 2. Grade: 3", None), ("", None),
        ("a good answer", None), ("1, 2, 3 or 4", None), ("Grade: 3.5", None), ("34", None),
        ("Grade: 1-4", None), ("Grade: 1 to 4", None), ("Grade: 1/2/3/4", None),
        ("Grade: 12, 3", None), ("Grade: 3.5, or 4", None), ("Grade: 2, or 3", None),
        ("评分：1到4", None), ("Grade: 4, since it is", 4), ("Grade: 4 - complete", 4),
        ("Grade: 3/4", 3),
    ],
)  # fmt: skip
def test_a_grade_is_stated_once_or_not_at_all(reply: str, grade: int | None) -> None:
    assert parse_grade(reply) == grade


@given(st.text(max_size=40))
def test_any_reply_has_a_grade_or_none(reply: str) -> None:
    assert parse_grade(reply) in (None, 1, 2, 3, 4)


def liveqa(root: Path, count: int = 3) -> Path:
    path = root / "eval" / "liveqa_med_test.jsonl"
    path.parent.mkdir(parents=True)
    rows = [
        {"id": f"q{k}", "subject": "", "message": f"What is drug {k}?", "paraphrase": "",
         "summary": "", "references": [{"answer": f"Drug {k} is a tablet."}, {"answer": "Ask."}]}
        for k in range(count)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def run(root: Path, out: Path, engine: ScriptedEngine, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"key": "k", "progress": lambda line: None} | changes
    return evaluate_open(engine, open_task_named("liveqa-med"), data=root, out=out, **settings)


def test_questions_keep_all_their_references(tmp_path: Path) -> None:
    asked = open_task_named("liveqa-med").load(liveqa(tmp_path))
    assert [q.id for q in asked] == ["q0", "q1", "q2"]
    assert asked[1].references == ("Drug 1 is a tablet.", "Ask.")
    with pytest.raises(UserError, match=r"did you mean 'liveqa-med'\?"):
        open_task_named("liveqa")


class Refusing(ScriptedEngine):
    """Refuses the prompts that hold a text."""

    def __init__(self, text: str) -> None:
        super().__init__(lambda prompt: "Grade: 4")
        self.text = text

    def complete(self, prompts: Sequence[str], **settings: Any) -> list[Completion]:
        for index, prompt in enumerate(prompts):
            if self.text in prompt:
                raise PromptError("refused (400): content_filter", index=index)
        return super().complete(prompts, **settings)


def test_a_refused_question_is_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    root = liveqa(tmp_path)
    judge = Refusing("drug 2?")
    result = run(root, tmp_path / "o", Refusing("drug 1?"), judge=judge)
    rows = [json.loads(line) for line in (tmp_path / "o" / "predictions.jsonl").open()]
    assert [row.get("refused") for row in rows] == [None, "refused (400): content_filter", None]
    assert [row["judge"]["grade"] for row in rows] == [4, None, None]
    assert rows[2]["judge"]["refused"] == "refused (400): content_filter"
    assert (result["n"], result["refused"], result["empty"]) == (3, 1, 0)
    assert rows[1]["overlap"] == {"token_f1": 0.0, "rouge_l": 0.0}
    assert ", refused 1" in told(result).splitlines()[0]
    grades = result["scores"]["judge"]
    assert (grades["average"], grades["unparsed"], grades["refused"]) == (1.0, 0, 1)
    assert told(result).endswith("; unparsed 0, refused 1")
    with pytest.raises(UserError, match=r"question q0: scripted refuses 3 questions in a row, so"):
        run(root, tmp_path / "all", Refusing("drug"))
    many = liveqa(tmp_path / "many", open_ended.BATCH + 1)  # the last batch is one question
    last = Refusing(f"drug {open_ended.BATCH}?")
    assert run(many, tmp_path / "last", last)["refused"] == 1


def test_a_broken_answer_is_no_refusal(tmp_path: Path) -> None:
    class Slips(Refusing):
        def complete(self, prompts: Sequence[str], **settings: Any) -> list[Completion]:
            try:
                return super().complete(prompts, **settings)
            except PromptError:
                self.text = "no more"
                raise

    result = run(liveqa(tmp_path), tmp_path / "o", Slips("drug 1?"), judge=Slips("drug 2?"))
    assert (result["refused"], result["scores"]["judge"]["refused"]) == (0, 0)
    assert result["scores"]["judge"]["average"] == 3.0


def test_overlap_and_grades_are_marked_as_such(tmp_path: Path) -> None:
    def answer(prompt: str) -> str:
        return "Drug 1 is a tablet" if "drug 1" in prompt else "I do not know"

    engine = ScriptedEngine(completions=answer)
    judge = ScriptedEngine(completions=lambda p: "4" if "is a tablet\n" in p else "no idea")
    found = run(liveqa(tmp_path), tmp_path / "out", engine, judge=judge)
    assert found["kind"] == "open"
    assert "accuracy" not in found
    assert found["scores"]["judge"] == {
        "average": pytest.approx(1.0), "at_least_2": pytest.approx(1 / 3),
        "at_least_3": pytest.approx(1 / 3), "at_least_4": pytest.approx(1 / 3), "unparsed": 2,
        "refused": 0, "interval": found["scores"]["judge"]["interval"],
    }  # fmt: skip
    assert 1 / 3 <= found["scores"]["overlap"]["rouge_l"]["mean"] < 0.5
    verify(tmp_path / "out")
    prompts = [prompt for call in engine.calls for prompt in call.prompts]
    assert not any("tablet" in prompt for prompt in prompts)  # no reference is shown
    graded = [prompt for call in judge.calls for prompt in call.prompts]
    assert len(graded) == 3
    assert all("Reference answer 2: Ask." in prompt for prompt in graded)


def test_without_a_judge_there_is_no_grade(tmp_path: Path) -> None:
    found = run(liveqa(tmp_path), tmp_path / "out", ScriptedEngine(completions=lambda p: ""))
    assert found["scores"]["judge"] is None
    assert found["empty"] == 3
    assert found["scores"]["overlap"]["token_f1"]["mean"] == 0


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    root, out = liveqa(tmp_path), tmp_path / "out"
    whole = run(root, out, ScriptedEngine(completions=lambda p: "tablet"))
    lines = (out / "predictions.jsonl").read_text().splitlines(True)
    (out / "predictions.jsonl").write_text(lines[0] + lines[1][:-5])
    (out / "manifest.json").unlink()
    again = ScriptedEngine(completions=lambda p: "tablet")
    assert run(root, out, again)["scores"] == whole["scores"]
    assert [len(call.prompts) for call in again.calls] == [2]


def test_other_work_in_the_folder_is_refused_not_replaced(tmp_path: Path) -> None:
    root, out = liveqa(tmp_path), tmp_path / "out"
    run(root, out, ScriptedEngine(completions=lambda p: "tablet"))
    before = (out / "predictions.jsonl").read_bytes()
    judge = ScriptedEngine(completions=lambda p: "4")
    for changes, why in (
        ({"key": "k2"}, "a finished evaluation of other settings .*other weights.* it is kept"),
        ({"judge": judge}, "judge none there, scripted now"),
        ({"limit": 2, "key": "k3"}, "limit 0 there, 2 now"),
    ):
        with pytest.raises(UserError, match=why):
            run(root, out, ScriptedEngine(completions=lambda p: "tablet"), **changes)
    assert (out / "predictions.jsonl").read_bytes() == before
    verify(out)


def test_another_template_is_another_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = liveqa(tmp_path), tmp_path / "out"
    run(root, out, ScriptedEngine(completions=lambda p: "tablet"))
    same = ScriptedEngine(completions=lambda p: "tablet")
    run(root, out, same)
    assert not same.calls
    monkeypatch.setattr(open_ended, "versioned", lambda own, names: "2+changed")
    other = ScriptedEngine(completions=lambda p: "tablet")
    with pytest.raises(UserError, match="of other settings"):
        run(root, out, other)
    run(root, tmp_path / "other", other)
    assert [len(call.prompts) for call in other.calls] == [3]


def test_an_unparsed_grade_is_no_point() -> None:
    overlap = {"token_f1": 0.5, "rouge_l": 0.5}
    rows = [{"overlap": overlap, "judge": {"grade": grade}} for grade in (4, None, 1, 2)]
    assert scores(rows, seed=0)["judge"]["average"] == pytest.approx(1.0)


def test_nothing_graded_is_no_average(tmp_path: Path) -> None:
    """An average of 0, from 0 to 0, would say that every answer is wrong, and surely so."""
    engine, judge = (ScriptedEngine(completions=lambda p: "a tablet") for _ in range(2))
    found = run(liveqa(tmp_path), tmp_path / "out", engine, judge=judge)
    assert found["scores"]["judge"] == {
        "average": None, "interval": None, "at_least_2": None, "at_least_3": None,
        "at_least_4": None, "unparsed": 3, "refused": 0,
    }  # fmt: skip
    assert "nothing graded; no reply states one grade (unparsed 3)" in told(found)
    assert "average" not in told(found)


class Opened:
    """Stands for the opening of models: notes what was opened, with which settings."""

    def __init__(self) -> None:
        self.of: list[tuple[str, str, tuple[str, ...]]] = []

    def __call__(self, opening: Opening, say: Any) -> tuple[ScriptedEngine, str]:
        self.of.append((opening.model, opening.base_url, opening.options))
        return ScriptedEngine(completions=lambda p: "Grade: 3"), "digest"


@pytest.mark.parametrize(
    ("options", "opened"),
    [
        ([], [("m", "http://a/v1", ("concurrency=2",))]),
        (["--judge", "m"], [("m", "http://a/v1", ("concurrency=2",))]),
        (["--judge", "m", "--judge-base-url", "http://a/v1", "--judge-option", "concurrency=2"],
         [("m", "http://a/v1", ("concurrency=2",))]),
        (["--judge", "j", "--judge-base-url", "http://b/v1", "--judge-option", "concurrency=4"],
         [("m", "http://a/v1", ("concurrency=2",)), ("j", "http://b/v1", ("concurrency=4",))]),
        (["--judge", "m", "--judge-base-url", "http://b/v1"],
         [("m", "http://a/v1", ("concurrency=2",)), ("m", "http://b/v1", ())]),
    ],
)  # fmt: skip
def test_answerer_and_judge_may_be_endpoints(
    options: list[str], opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found, out = Opened(), tmp_path / "out"
    monkeypatch.setattr(Opening, "open", lambda self, say: found(self, say))
    words = [f"openai:{word}" if word in ("m", "j") else word for word in options]
    command = ["free", "--model", "openai:m", "--base-url", "http://a/v1", "--engine-option",
               "concurrency=2", "--data", str(liveqa(tmp_path)), "--out", str(out)]  # fmt: skip
    assert main([*command, *words]) == 0
    assert found.of == [(f"openai:{model}", url, more) for model, url, more in opened]
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(out / "result.json")
    assert ("average 2.00 of 3" in lines[-2]) == bool(options)
    assert main([*command, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 3


def test_mistakes_about_the_judge_come_before_any_model(tmp_path: Path, capsys: Any) -> None:
    start = ["free", "--model", "/no/such/model", "--out", str(tmp_path / "out")]
    for options, why in (
        (["--judge-base-url", "http://b/v1"], "--judge-base-url without a judge; allowed: with"),
        (["--judge", "j", "--judge-base-url", "http://b/v1"], "the judge: "),
        (["--judge", "openai:j", "--judge-base-url", "http://b", "--judge-option", "concurency=4"],
         "did you mean 'concurrency'"),
    ):  # fmt: skip
        assert main([*start, *options]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), [("liveqa-med", 104), ("medicationqa-a", 328)])
def test_the_published_questions(name: str, count: int, real_data: Path) -> None:
    asked = open_task_named(name).load(real_data)
    assert len(asked) == count
    assert all(q.question.strip() and all(r.strip() for r in q.references) for q in asked)
