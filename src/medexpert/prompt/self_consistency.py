"""`self_consistency`: k sampled rationales, the answer most of them reach (Wang et al. 2022,
arXiv 2203.11171). Needs no log-probabilities; see `vote.py` for ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medexpert.prompt.asking import in_batches, versioned
from medexpert.prompt.cot import Sampling, asked_behind, drawn
from medexpert.prompt.ledger import Ledger
from medexpert.prompt.needs import Needs
from medexpert.prompt.reasoning import ANSWER, REASON
from medexpert.prompt.shots import Shots, check_shots
from medexpert.prompt.vote import Sample, elected, vote
from medexpert.records import Prediction, Question

if TYPE_CHECKING:
    from medexpert.engines.base import Engine


@dataclass(frozen=True)
class SelfConsistency(Sampling):
    """`shots`, `pick` and `balanced` as in `shots.py`."""

    name: str = "self_consistency"
    temperature: float = 0.8
    shots: int = 0
    pick: str = "fixed"
    balanced: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shots(self.name, self.shots, self.pick)

    @property
    def needs(self) -> Needs:
        """Solved examples, where it shows any."""
        return Needs(examples=self.shots, reasoned=True)

    @property
    def version(self) -> str:
        """Changes with the code's own version and with every text it may show."""
        return versioned(2, (REASON, ANSWER))

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """See `asking.Strategy`. Probabilities are the shares of the votes."""
        solved = Shots(examples, seed=seed)
        for group in in_batches(questions, self.batch):
            ledger = Ledger(engine, seed=seed)
            shown = [solved.chosen(q, self.shots, self.pick, balanced=self.balanced) for q in group]
            asked = asked_behind(group, shown, protocol, engine.chat)
            said = drawn(group, asked, ledger, self.k, self)
            for at, question in enumerate(group):
                samples = [Sample(question, asked[at], one) for one in said[at]]
                found = vote(question, samples, ledger)
                trace = {"protocol": protocol, "shots": [example.id for example in shown[at]]}
                yield elected(question, found, samples, ledger, trace)
