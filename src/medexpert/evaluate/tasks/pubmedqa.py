"""PubMedQA, PQA-L: the official 500 test questions, or the dev part of one of the ten folds.

Splits "test" and "dev-0" to "dev-9". The dev folds are for choosing prompts, steps and weights;
the test split is for the one number at the end. What a strategy may show are training items of fold
0, so no test item and none of dev-0.

`pubmedqa-reasoning-free` is another task: its prompts show the conclusion, which states the answer.
It measures how well a model reads a verdict, an upper bound, and is never a PubMedQA number.
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
    return list(reader.fold_questions(root, _fold(split, "pubmedqa"))[1])


def with_conclusions(root: Path, split: str) -> list[Question]:
    """As :func:`load`, each question with its conclusion; for the diagnostic task alone."""
    from medexpert.data.readers import pubmedqa as reader

    if split == "test":
        return reader.test_questions(root, keep_long_answer=True)
    return list(reader.fold_questions(root, _fold(split, "pubmedqa-reasoning-free"))[1])


def examples(root: Path) -> list[Question]:
    """The 450 training items of fold 0, conclusions included."""
    from medexpert.data.readers import pubmedqa as reader

    return list(reader.fold_questions(root, 0)[0])


def lacks(root: Path, split: str) -> str:
    """The catalogue's name of PQA-L when it is not under `root`."""
    from medexpert.data.readers.pubmedqa import find_pubmedqa

    try:
        find_pubmedqa(root)
    except UserError:
        return "pubmedqa"
    return ""


def _fold(split: str, name: str) -> int:
    fold = re.fullmatch(r"dev-(\d)", split)
    if fold is None:
        raise UserError(f"{name} has no split {split!r}", allowed=", ".join(SPLITS))
    return int(fold.group(1))


TASK = Task(
    name="pubmedqa",
    version="1",
    protocols=("reasoning-required", "question-only"),
    choices=CHOICES,
    load=load,
    official=True,
    note="PubMedQA PQA-L, yes/no/maybe from question and abstract without its conclusion",
    withheld=(
        (
            "reasoning-free",
            "it shows the conclusion, which the reader withholds from test items; the diagnostic "
            "task pubmedqa-reasoning-free measures that",
        ),
    ),
    examples=examples,
    splits=SPLITS,
    lacks=lacks,
)
REASONING_FREE = Task(
    name="pubmedqa-reasoning-free",
    version="1",
    protocols=("reasoning-free",),
    choices=CHOICES,
    load=with_conclusions,
    official=False,
    note="a diagnostic that shows the conclusion, an upper bound: never to be called PubMedQA",
    withheld=tuple(
        (name, "this task shows the conclusion; task pubmedqa measures that")
        for name in ("reasoning-required", "question-only")
    ),
    benchmark="pubmedqa",
    splits=SPLITS,
    lacks=lacks,
)
