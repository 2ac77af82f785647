"""`ensemble_refinement`: reasonings sampled first, then answers given in view of all of them.

Med-PaLM 2 (Singhal et al. 2023, arXiv 2305.09617, section 3.3). First `k` reasonings are sampled;
then `m` new ones, each asked with all of the first before it; the majority of these m answers wins
(ties: `vote.py`). The paper samples 11 and 33 at temperature 0.7; the defaults here are smaller.
Needs no log-probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medexpert.prompt.asking import in_batches, versioned
from medexpert.prompt.cot import Sampling, asked_for, drawn
from medexpert.prompt.ledger import Ledger
from medexpert.prompt.reasoning import ANSWER, REASON, Said, check_counts, request
from medexpert.prompt.vote import Sample, elected, vote
from medexpert.records import Prediction, Question

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

REFINE = "cot.refine"


@dataclass(frozen=True)
class EnsembleRefinement(Sampling):
    """`k` first reasonings, `m` refined answers, all at `temperature`."""

    name: str = "ensemble_refinement"
    m: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self.name, m=self.m)

    @property
    def version(self) -> str:
        """Changes with the code's own version and with every text it may show."""
        return versioned(2, (REASON, REFINE, ANSWER))

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """See `asking.Strategy`. Probabilities are the shares of the m votes."""
        for group in in_batches(questions, self.batch):
            ledger = Ledger(engine, seed=seed)
            first = drawn(
                group, [asked_for(q, protocol, engine.chat) for q in group], ledger, self.k, self
            )
            asked = [
                request(REFINE, q, protocol, engine.chat, reasonings=_drafts(own))
                for q, own in zip(group, first, strict=True)
            ]
            refined = drawn(group, asked, ledger, self.m, self)
            for at, question in enumerate(group):
                samples = [Sample(question, asked[at], said) for said in refined[at]]
                found = vote(question, samples, ledger)
                trace = {
                    "protocol": protocol,
                    "first": [said.row() for said in first[at]],
                    "first_parse": [said.parse for said in first[at]],
                }
                yield elected(question, found, samples, ledger, trace)


def _drafts(said: Sequence[Said]) -> list[str]:
    """The first reasonings with their answers, one line each; those without a text are left out."""
    return [" ".join(one.text.split()) for one in said if one.text]
