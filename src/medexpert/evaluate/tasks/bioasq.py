"""BioASQ task B: the yes/no questions, the snippets of the experts as context.

All batches at hand are the test; questions of other types and those without a snippet are counted
as left out. Nothing is held back to be shown, since the files are one collection.
"""

from __future__ import annotations

from medexpert.data.readers.bioasq import CHOICES
from medexpert.evaluate.tasks.items import Source, exam, verdicts

TASK = exam(
    "bioasq-yesno",
    {"test": Source("bioasq")},
    benchmark="bioasq",
    convert=verdicts(CHOICES, "bioasq"),
    official=True,
    note="BioASQ yes/no questions with their gold snippets",
    protocols=("reasoning-required", "question-only"),
    choices=CHOICES,
)
