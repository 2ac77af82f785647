"""PubMedQA, PQA-L: the official 500 test questions, or the dev part of one of the ten folds.

Splits "test" and "dev-0" to "dev-9". The dev folds are for choosing prompts, steps and weights;
the test split is for the one number at the end.
"""

from __future__ import annotations

import re
from pathlib import Path

from medexpert.evaluate.tasks.task import Task
from medexpert.records import Question, UserError

CHOICES = ("yes", "no", "maybe")
SPLITS = ("test", *(f"dev-{fold}" for fold in range(10)))


def load(root: Path, split: str) -> list[Question]:
    """Questions of a split in official order. Raises UserError for a split that does not exist."""
    from medexpert.data.readers import pubmedqa as reader

    if split == "test":
        return reader.test_questions(root)
    fold = re.fullmatch(r"dev-(\d)", split)
    if fold is None:
        raise UserError(f"pubmedqa has no split {split!r}", allowed=", ".join(SPLITS))
    return list(reader.fold_questions(root, int(fold.group(1)))[1])


TASK = Task(
    name="pubmedqa",
    version="1",
    protocols=("reasoning-required", "question-only"),
    choices=CHOICES,
    load=load,
    official=True,
    note="PubMedQA PQA-L, yes/no/maybe from question and abstract without its conclusion",
    withheld=(
        ("reasoning-free", "it shows the conclusion, which the reader withholds from test items"),
    ),
)
