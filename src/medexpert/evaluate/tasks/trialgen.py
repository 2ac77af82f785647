"""trialgen: generated abstracts of imaginary trials whose answer follows from printed numbers.

It needs no data and tells whether the whole line works. It says nothing about medicine: the trials,
drugs and numbers do not exist. Size and seed are fixed here, so that results can be compared.
"""

from __future__ import annotations

import re
from pathlib import Path

from medexpert.evaluate.tasks.task import Task
from medexpert.records import Question, UserError

N = 200
SEED = 1
DEV_N = 50
CHOICES = ("yes", "no", "maybe")


def load(root: Path, split: str) -> list[Question]:
    """N questions of "test", or DEV_N of "dev-0" to "dev-9"; `root` is not read.

    Drug names of the dev folds are neither in training nor in the test. Raises UserError for any
    other split.
    """
    from medexpert.data.construct.trialgen import generate

    fold = re.fullmatch(r"dev-(\d)", split)
    if split != "test" and fold is None:
        raise UserError(f"trialgen has no split {split!r}", allowed="test, dev-0 to dev-9")
    made = (
        generate(N, seed=SEED, split="test")
        if fold is None
        else generate(DEV_N, seed=int(fold.group(1)), split="dev")
    )
    return [
        Question(
            id=item.id,
            question=item.question,
            choices=CHOICES,
            answer=item.answer,
            contexts=tuple(item.contexts),
            context_labels=tuple(item.labels),
        )
        for item in made
    ]


TASK = Task(
    name="trialgen",
    version="1",
    protocols=("reasoning-required", "question-only"),
    choices=CHOICES,
    load=load,
    official=False,
    note="imaginary trials made by a program: a test of the machinery, not a medical result",
    withheld=(("reasoning-free", "it shows the conclusion, which is withheld from test items"),),
    splits=("test", *(f"dev-{fold}" for fold in range(10))),
)
