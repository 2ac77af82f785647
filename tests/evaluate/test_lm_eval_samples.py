"""Samples as lm-evaluation-harness logs them -> questions and predictions; hand-made texts, and
lines that the harness itself wrote (`tests/reference/make_lm_eval_goldens.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import lm_eval_rows
from medexpert.evaluate.lm_eval_samples import convert, main, predictions, rows
from medexpert.evaluate.tasks import task_named
from medexpert.records import UserError

PUBMEDQA = {
    "QUESTION": "Does walking help?", "CONTEXTS": ["Half of 90 adults walked.", "They improved."],
    "LONG_ANSWER": "It does.", "final_decision": "no",
}  # fmt: skip
FOUR = {"ending0": "rest", "ending1": "ice", "ending2": "heat", "ending3": "walks"}
DOCS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (PUBMEDQA, {
        "question": "Does walking help?", "context": "Half of 90 adults walked.\nThey improved.",
        "choices": ["yes", "no", "maybe"], "answer": 1,
    }),
    ({"question": "Does it?", "context": {"contexts": ["So.", "Yes."], "labels": ["A", "B"]},
      "long_answer": "x", "final_decision": "maybe"},
     {"question": "Does it?", "context": "So.\nYes.", "choices": ["yes", "no", "maybe"],
      "answer": 2}),
    ({"id": "t", "sent1": "A man falls. What next?", "sent2": "", **FOUR, "label": 3},
     {"question": "A man falls. What next?", "choices": list(FOUR.values()), "answer": 3}),
    ({"question": "Which?", "opa": "a1", "opb": "b1", "opc": "c1", "opd": "d1", "cop": 0},
     {"question": "Which?", "choices": ["a1", "b1", "c1", "d1"], "answer": 0}),
    ({"question": "Where?", "subject": "anatomy", "choices": ["x", "y"], "answer": 1},
     {"question": "Where?", "choices": ["x", "y"], "answer": 1}),
    ({"question": "Why?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
     {"question": "Why?", "choices": ["x", "y"], "answer": 1}),
]  # fmt: skip


def sample(number: int, doc: dict[str, Any], resps: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "doc_id": number, "doc": doc, "target": "1", "resps": [[r] for r in resps],
        "filtered_resps": resps, "filter": "none", "metrics": ["acc"], "acc": 0.0,
        "arguments": {f"gen_args_{n}": {"arg_0": "p", "arg_1": " x"} for n, _ in enumerate(resps)},
        "doc_hash": "d", "prompt_hash": "p", "target_hash": "t", **more,
    }  # fmt: skip


def written(path: Path, *samples: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in samples))
    return path


@pytest.mark.parametrize(("doc", "row"), DOCS)
def test_docs_of_its_medical_tasks(tmp_path: Path, doc: Any, row: Any) -> None:
    assert rows(written(tmp_path / "s.jsonl", sample(4, doc, []))) == [{"id": "4", **row}]


REFERENCE = Path(__file__).resolve().parents[1] / "reference"
LOGGED = json.loads((REFERENCE / "lm_eval_samples.json").read_text("utf-8"))
GOLDENS = json.loads((REFERENCE / "lm_eval_goldens.json").read_text("utf-8"))


@pytest.mark.parametrize("task", sorted(LOGGED))
def test_what_the_harness_itself_logs(tmp_path: Path, task: str) -> None:
    path = tmp_path / f"samples_{task}.jsonl"
    path.write_text("".join(line + "\n" for line in LOGGED[task]), "utf-8")
    asked = [lm_eval_rows.invented()[task][0][at] for at in (0, -1)]
    items = [GOLDENS[task]["items"][at] for at in (0, -1)]
    found = rows(path)
    for row, question in zip(found, asked, strict=True):
        assert row["question"] == question.question
        assert tuple(row["choices"]) == question.choices
        assert row["choices"][row["answer"]] == question.answer
        assert row.get("context", "") == "\n".join(question.contexts)
    for prediction, item, question in zip(predictions(path), items, asked, strict=True):
        assert question.choices.index(prediction.choice) == item["predicted"]
        assert prediction.correct == bool(item["acc"])
        held = [prediction.trace["logprobs"][choice] for choice in question.choices]
        assert held == pytest.approx(item["logprobs"], abs=1e-4)
    assert convert(path, tmp_path / "q.jsonl") == 2
    assert len(task_named(f"file:{tmp_path / 'q.jsonl'}").load(tmp_path, "test")) == 2


def test_the_conclusion_is_never_in_a_question(tmp_path: Path) -> None:
    out = tmp_path / "q.jsonl"
    assert convert(written(tmp_path / "s.jsonl", sample(0, PUBMEDQA, [])), out) == 1
    assert "It does." not in out.read_text()
    assert json.loads(out.read_text())["answer"] == 1


@pytest.mark.parametrize("kind", [float, str])
def test_predictions_are_its_argmax(tmp_path: Path, kind: Any) -> None:
    def scored(number: int, *values: float) -> dict[str, Any]:
        return sample(number, PUBMEDQA, [[kind(value), "False"] for value in values])

    first, second = scored(0, -2.0, -1.0, -9.5), scored(1, -1.0, -1.0, -9.5)
    found = predictions(written(tmp_path / "s.jsonl", first, second))
    assert [(p.id, p.choice, p.answer) for p in found] == [("0", "no", "no"), ("1", "yes", "no")]
    assert sum(found[0].probabilities.values()) == pytest.approx(1.0)


def test_a_text_may_hold_any_line_end(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    doc = {**DOCS[4][0], "question": "One\u2028two\x85three?"}
    lines = [json.dumps(sample(n, doc, []), ensure_ascii=False) for n in range(2)]
    path.write_text("\n".join(lines) + "\r\n\n", "utf-8")
    assert [row["question"] for row in rows(path)] == [doc["question"]] * 2


def test_two_choices_of_one_text_stay_two(tmp_path: Path) -> None:
    doc = {"question": "How much?", "choices": ["5 %", "9 %", "5 % ", "1 %"], "answer": 2}
    scored = sample(0, doc, [[-3.0, False], [-2.0, False], [-1.0, False], [-4.0, False]])
    path = written(tmp_path / "s.jsonl", scored)
    (found,) = predictions(path)
    assert found.correct
    assert len(found.probabilities) == 4
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert convert(path, tmp_path / "q.jsonl") == 1
    (asked,) = task_named(f"file:{tmp_path / 'q.jsonl'}").load(tmp_path, "test")
    assert (asked.choices, asked.answer) == (("5 %", "9 %", "5 % [C]", "1 %"), "5 % [C]")
    with pytest.raises(UserError, match=r"s\.jsonl:1: doc of shape question, choices, answer: "):
        rows(written(path, sample(0, {**doc, "choices": ["a", None]}, [])))


def test_a_second_filter_is_the_same_question(tmp_path: Path) -> None:
    both = [sample(0, PUBMEDQA, []), sample(0, PUBMEDQA, [], filter="other")]
    assert len(rows(written(tmp_path / "s.jsonl", *both))) == 1


def test_refused(tmp_path: Path) -> None:
    def told(*samples: Any) -> str:
        with pytest.raises(UserError) as error:
            predictions(written(tmp_path / "s.jsonl", *samples))
        return str(error.value)

    assert "s.jsonl:1: a doc with text; allowed: QUESTION CONTEXTS final_decision |" in told(
        sample(0, {"text": "x"}, [])
    )
    assert "s.jsonl:2: doc_id 0 is there twice" in told(
        *[sample(0, PUBMEDQA, [[-1, True]] * 3)] * 2
    )
    assert "final_decision: 'perhaps' is not in list" in told(
        sample(0, {**PUBMEDQA, "final_decision": "perhaps"}, [])
    )
    assert "answer 7 is no choice" in told(sample(0, {**DOCS[4][0], "answer": 7}, []))
    assert "not one log-probability a choice" in told(sample(0, PUBMEDQA, ["yes"]))
    assert "no sample of lm-evaluation-harness" in told([1])
    assert "no samples in it" in told()
    (tmp_path / "t.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"t\.jsonl:1: not a JSON line"):
        rows(tmp_path / "t.jsonl")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = written(tmp_path / "s.jsonl", sample(0, PUBMEDQA, [])), tmp_path / "q.jsonl"
    assert main([str(source), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 1 questions\n"
    assert main([str(tmp_path / "none"), str(out)]) == 2
    assert capsys.readouterr().err.endswith("no such file\n")
    assert main([]) == 2
