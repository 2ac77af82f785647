"""`direct`: argmax over ln p(label | prompt), the prompt being lm-eval's PubMedQA format.

`shots` solved examples stand before the question, each as its own direct prompt with the gold
label, a blank line between them (as lm-eval joins them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from medexpert.prompt.asking import TEMPLATES, Scored, decided, direct_prompt, in_batches, versioned
from medexpert.prompt.ledger import Ledger
from medexpert.prompt.needs import Needs
from medexpert.prompt.reasoning import check_counts
from medexpert.prompt.shots import Shots, check_shots
from medexpert.prompt.template import ChatFormat
from medexpert.records import Prediction, Question

if TYPE_CHECKING:
    from medexpert.engines.base import Engine


@dataclass(frozen=True)
class Direct:
    """One forward pass a question, nothing generated. `batch` = questions per engine call;
    `shots`, `pick` and `balanced` as in `shots.py`."""

    name: str = "direct"
    shots: int = 0
    pick: str = "fixed"
    balanced: bool = True
    batch: int = 16

    def __post_init__(self) -> None:
        check_counts(self.name, batch=self.batch)
        check_shots(self.name, self.shots, self.pick)

    @property
    def seeded(self) -> bool:
        """The seed chooses the examples that are shown."""
        return self.shots > 0

    @property
    def needs(self) -> Needs:
        """Solved examples, where it shows any."""
        return Needs(examples=self.shots)

    @property
    def version(self) -> str:
        """Changes with the code's own version and with every text it may show."""
        return versioned(1, TEMPLATES)

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """See `asking.Strategy`. `seed` chooses the examples that are shown."""
        solved = Shots(examples, seed=seed)
        for group in in_batches(questions, self.batch):
            ledger = Ledger(engine, seed=seed)
            shown = [solved.chosen(q, self.shots, self.pick, balanced=self.balanced) for q in group]
            asked = [
                behind_examples(question, those, protocol, engine.chat)
                for question, those in zip(group, shown, strict=True)
            ]
            for question, those, row in zip(group, shown, ledger.score(asked), strict=True):
                trace = {
                    "protocol": protocol,
                    "shots": [example.id for example in those],
                    "logprobs": dict(zip(question.choices, row, strict=True)),
                    **ledger.trace(question.id),
                }
                yield decided(question, row, trace)


def behind_examples(
    question: Question, examples: Sequence[Question], protocol: str, chat: ChatFormat
) -> Scored:
    """The direct prompt of a question behind those of solved examples with their gold labels."""
    before = ""
    for example in examples:
        one = direct_prompt(example, protocol, chat)
        before += one.prompt + one.labels[example.choices.index(example.answer)] + "\n\n"
    own = direct_prompt(question, protocol, chat)
    return replace(own, prompt=before + own.prompt)
