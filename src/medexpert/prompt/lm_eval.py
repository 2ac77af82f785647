"""`lm-eval`: lm-evaluation-harness's own zero-shot prompts, so that numbers can be set beside its.

PubMedQA's choices are scored as words, MedQA's, MedMCQA's and MMLU's as letters behind " ". The
answer is the argmax of ln p, its metric `acc`. A question tells its benchmark in `ids["benchmark"]`
(MMLU its subject too); the option `format` says it for questions that do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medexpert.prompt import template
from medexpert.prompt.asking import (
    VERDICTS,
    Scored,
    decided,
    direct_prompt,
    in_batches,
    versioned,
)
from medexpert.prompt.ledger import Ledger
from medexpert.prompt.needs import Needs
from medexpert.prompt.options import LETTERS, printed
from medexpert.prompt.reasoning import check_counts
from medexpert.prompt.template import ChatFormat
from medexpert.records import Prediction, Question, UserError, unknown_name

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

FORMATS = ("pubmedqa", "medqa", "medmcqa", "mmlu")


@dataclass(frozen=True)
class LmEval:
    """One forward pass a question, nothing generated, nothing shown before it."""

    name: str = "lm-eval"
    format: str = ""
    batch: int = 16

    def __post_init__(self) -> None:
        check_counts(self.name, batch=self.batch)
        if self.format and self.format not in FORMATS:
            raise unknown_name(f"format of {self.name.partition(':')[0]}", self.format, FORMATS)

    @property
    def seeded(self) -> bool:
        """Nothing is drawn."""
        return False

    @property
    def needs(self) -> Needs:
        """Nothing beside the questions; most of its prompts show no context."""
        return Needs(evidence=False)

    @property
    def version(self) -> str:
        """Changes with the code's own version and with every text it may show."""
        return versioned(1, ["pubmedqa.lm_eval", *(f"lm_eval.{name}" for name in FORMATS[1:])])

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """See `asking.Strategy`. Raises UserError for a benchmark without such a format."""
        for group in in_batches(questions, self.batch):
            ledger = Ledger(engine, seed=seed)
            asked = [lm_eval_prompt(q, protocol, engine.chat, self.format) for q in group]
            for question, row in zip(group, ledger.score(asked), strict=True):
                logprobs = dict(zip(question.choices, row, strict=True))
                trace = {"protocol": protocol, "logprobs": logprobs, **ledger.trace(question.id)}
                yield decided(question, row, trace)


def lm_eval_prompt(question: Question, protocol: str, chat: ChatFormat, chosen: str = "") -> Scored:
    """The harness's prompt for a question and the continuations it scores.

    Raises UserError for a benchmark without such a format.
    """
    name = chosen or question.ids.get("benchmark", "")
    if not name and set(question.choices) <= set(VERDICTS):
        name = "pubmedqa"
    if not name:
        raise UserError(
            "it tells no benchmark whose prompt lm-eval would use", where=f"question {question.id}",
            allowed=", ".join(f"lm-eval:format={known}" for known in FORMATS),
        )  # fmt: skip
    if name not in FORMATS:
        raise unknown_name("lm-eval format", name, FORMATS, where=f"question {question.id}")
    if name == "pubmedqa":
        return direct_prompt(question, protocol, chat)
    letters = LETTERS[: len(question.choices)]
    fields = {
        "question": question.question,
        "options": dict(zip(letters, printed(question.choices), strict=True)),
        "subject": question.ids.get("subject", "any subject").replace("_", " "),
    }
    kind = f"lm_eval.{name}"
    return Scored(
        question=question.id,
        prompt=template.render_prompt(kind, fields, chat=chat),
        labels=tuple(template.render_choices(kind, tuple(letters))),
        template=template.template_id(kind),
    )
