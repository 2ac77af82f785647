"""`direct`: argmax over ln p(label | prompt), the prompt being lm-eval's PubMedQA format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medexpert.prompt.asking import TEMPLATES, decided, direct_prompt, in_batches, score, versioned
from medexpert.records import Prediction, Question, digest

if TYPE_CHECKING:
    from medexpert.engines.base import Engine


@dataclass(frozen=True)
class Direct:
    """One forward pass a question, nothing generated. `batch` = questions per engine call."""

    name: str = "direct"
    batch: int = 16

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
        """See `asking.Strategy`. `seed` is not used: nothing is drawn."""
        for group in in_batches(questions, self.batch):
            asked = [direct_prompt(question, protocol, engine.chat) for question in group]
            for question, item, row in zip(group, asked, score(asked, engine), strict=True):
                yield decided(
                    question,
                    row,
                    {
                        "protocol": protocol,
                        "template": item.template,
                        "prompt": digest(item.prompt),
                        "logprobs": dict(zip(question.choices, row, strict=True)),
                        "tokens": {"prompt": engine.count_tokens(item.prompt), "generated": 0},
                    },
                )
