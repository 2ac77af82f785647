"""Questions of ours in the schemas of the data sets that lm-eval's tasks read."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medexpert.prompt.options import LETTERS, letter_of, printed
from medexpert.records import Question


def pubmedqa(question: Question) -> dict[str, Any]:
    """bigbio/pubmed_qa, fold0_source."""
    return {
        "QUESTION": question.question,
        "CONTEXTS": list(question.contexts),
        "final_decision": question.answer,
    }


def medqa(question: Question) -> dict[str, Any]:
    """GBaker/MedQA-USMLE-4-options-hf."""
    texts = printed(question.choices)
    return {
        "sent1": question.question,
        **{f"ending{k}": text for k, text in enumerate(texts)},
        "label": question.choices.index(question.answer),
    }


def medmcqa(question: Question) -> dict[str, Any]:
    """openlifescienceai/medmcqa."""
    texts = dict(zip(("opa", "opb", "opc", "opd"), printed(question.choices), strict=True))
    return {
        "question": question.question, **texts, "cop": question.choices.index(question.answer),
    }  # fmt: skip


def mmlu(question: Question) -> dict[str, Any]:
    """cais/mmlu."""
    return {
        "question": question.question,
        "choices": list(printed(question.choices)),
        "answer": question.choices.index(question.answer),
    }


def starter(count: int, benchmark: str) -> list[Question]:
    """Multi-choice questions written for this project, as if they were of that benchmark."""
    from medexpert.prompt.options import distinct
    from tiny import STARTER

    rows = [json.loads(line) for line in (STARTER / "mcq_en.jsonl").read_text("utf-8").splitlines()]
    asked = []
    for row in [row for row in rows if list(row["options"]) == list("ABCD")][:count]:
        choices = distinct(list(row["options"].values()))
        asked.append(
            Question(
                id=row["id"], question=row["question"], choices=choices,
                answer=choices[LETTERS.index(row["answer_idx"])],
                ids={"benchmark": benchmark, "subject": "anatomy"},
            )
        )  # fmt: skip
    # One text under two letters, the later one right: what a scorer by text gets wrong.
    twice = distinct(("about 5 %", "about 10 %", "about 5 %", "about 20 %"))
    return [
        *asked,
        Question(
            id="twice", question="How much?", choices=twice, answer=twice[2],
            ids={"benchmark": benchmark, "subject": "anatomy"},
        ),
    ]  # fmt: skip


def imaginary(count: int) -> list[Question]:
    """Yes/no/maybe questions of trialgen."""
    from medexpert.evaluate.tasks import task_named

    return task_named("trialgen").load(Path(), "test")[:count]


def invented(count: int = 12) -> dict[str, tuple[list[Question], list[dict[str, Any]]]]:
    """lm-eval's task name -> (our questions, its rows), without any published data."""
    asked = {
        "pubmedqa": (imaginary(count), pubmedqa),
        "medqa_4options": (starter(count, "medqa"), medqa),
        "medmcqa": (starter(count, "medmcqa"), medmcqa),
        "mmlu_anatomy": (starter(count, "mmlu"), mmlu),
    }
    return {name: (found, [row(q) for q in found]) for name, (found, row) in asked.items()}


def published(data: Path, limit: int) -> dict[str, tuple[list[Question], Sequence[dict[str, Any]]]]:
    """As `invented`, on the real files; the rows are read from the raw files, not from ours."""
    from medexpert.evaluate.tasks import TASKS

    def ours(name: str) -> list[Question]:
        return TASKS[name].load(data, "test")[: limit or None]

    found: dict[str, tuple[list[Question], Sequence[dict[str, Any]]]] = {}
    asked = ours("pubmedqa")
    pqal = json.loads((data / "stage3/pubmedqa/ori_pqal.json").read_text("utf-8"))
    found["pubmedqa"] = (asked, [pqal[q.id] | {"YEAR": "", "MESHES": []} for q in asked])
    asked = ours("medqa-us")
    rows = _lines(data / "eval/medqa_us_4_options_test.jsonl", len(asked))
    found["medqa_4options"] = (asked, [_medqa(row) for row in rows])
    asked = ours("medmcqa-a")
    rows = _lines(data / "eval/medmcqa_dev_a.jsonl", len(asked))
    keys = ("question", "opa", "opb", "opc", "opd")
    found["medmcqa"] = (
        asked,
        [{**{k: row[k] for k in keys}, "cop": row["cop"] - 1} for row in rows],
    )
    for subject in ("anatomy", "college_medicine", "professional_medicine", "human_sexuality"):
        asked = ours(f"mmlu-{subject}")
        with (data / f"eval/mmlu_medical/{subject}_test.csv").open(encoding="utf-8") as handle:
            table = list(csv.reader(handle))[: len(asked)]
        found[f"mmlu_{subject}"] = (
            asked,
            [
                {"question": q, "choices": options, "answer": LETTERS.index(right)}
                for q, *options, right in table
            ],
        )
    return found


def _lines(path: Path, count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()[:count]]


def _medqa(row: dict[str, Any]) -> dict[str, Any]:
    endings = {f"ending{k}": text for k, text in enumerate(row["options"].values())}
    return {"sent1": row["question"], **endings, "label": LETTERS.index(row["answer_idx"])}


def place(answer: str, question: Question) -> int:
    """The index of an answer among the choices."""
    return LETTERS.index(letter_of(answer, question.choices))
