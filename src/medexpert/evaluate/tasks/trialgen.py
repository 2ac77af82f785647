"""trialgen: generated abstracts of imaginary trials whose answer follows from printed numbers.

It needs no data and tells whether the whole line works. It says nothing about medicine: the trials,
drugs and numbers do not exist. Size and seed are fixed here, so that results can be compared.
"""

from __future__ import annotations

from pathlib import Path

from medexpert.evaluate.tasks.task import Task
from medexpert.records import Question, UserError

N = 200
SEED = 1
CHOICES = ("yes", "no", "maybe")


def load(root: Path, split: str) -> list[Question]:
    """The N generated questions; `root` is not read. Raises UserError for a split but "test"."""
    from medexpert.data.construct.trialgen import generate

    if split != "test":
        raise UserError(f"trialgen has no split {split!r}", allowed="test")
    return [
        Question(
            id=item.id,
            question=item.question,
            choices=CHOICES,
            answer=item.answer,
            contexts=tuple(item.contexts),
            context_labels=tuple(item.labels),
        )
        for item in generate(N, seed=SEED, split="test")
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
)
