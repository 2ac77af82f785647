"""The work of the evaluation benchmark: a model and questions, the same for all systems."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from train_work import model_folder

PROTOCOL = "reasoning-required"
LABELS = (" yes", " no", " maybe")


def make_work(args: argparse.Namespace, part: str) -> Path:
    """The JSON file that every system's script of a part reads; same arguments, same bytes."""
    found = questions(args.data, args.items[part])
    work: dict[str, Any] = {
        "part": part,
        "model": str(model_folder(args.model, args.cache)),
        "source": "PubMedQA test" if args.data else "trialgen test",
        "questions": [asdict(question) for question in found],
        "max_tokens": args.max_tokens,
    }
    if part == "direct":
        work |= {"prompts": [prompt(question) for question in found], "labels": LABELS}
    if part == "growth":
        work |= {"choices": args.choices, "lengths": args.lengths}
    path: Path = args.cache / f"evaluate-{part}.json"
    path.write_text(json.dumps(work) + "\n", "utf-8")
    return path


def questions(data: Path | None, limit: int) -> list[Any]:
    """The first `limit` test questions of PubMedQA files, or generated ones."""
    from medexpert.evaluate.tasks import task_named

    task = task_named("pubmedqa" if data else "trialgen")
    return list(task.load(data or Path(), "test"))[:limit]


def prompt(question: Any) -> str:
    """The direct prompt, which is lm-eval's own; no chat format is put around it."""
    from medexpert.prompt.asking import direct_prompt
    from medexpert.prompt.template import ChatFormat

    return direct_prompt(question, PROTOCOL, ChatFormat("", "", "")).prompt


def read_questions(work: dict[str, Any]) -> list[Any]:
    """The questions of a work file."""
    from medexpert.records import Question

    lists = ("choices", "contexts", "context_labels")
    return [
        Question(**{k: tuple(v) if k in lists else v for k, v in row.items()})
        for row in work["questions"]
    ]


def with_choices(question: Any, count: int) -> Any:
    """The question with `count` choices, the verdicts first and then invented others."""
    import dataclasses

    names = ("yes", "no", "maybe", "rarely", "often", "seldom", "usually", "never", "always",
             "sometimes")  # fmt: skip
    return dataclasses.replace(question, choices=names[:count], answer="yes")
