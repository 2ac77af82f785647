"""`cot`: a rationale, then `Final answer:` (Wei et al. 2022, arXiv 2201.11903).

`readout=parsed` reads the choice from the text and needs no log-probabilities; a text that names
none is NO_ANSWER. `readout=scored` takes the rationale, cut before its own final answer, and scores
every label behind it: always an answer, with probabilities. `shots` are solved examples with the
reasoning that came with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medexpert.prompt.asking import decided, in_batches, versioned
from medexpert.prompt.ledger import Asked, Ledger
from medexpert.prompt.needs import Needs
from medexpert.prompt.reasoning import (
    ANSWER,
    REASON,
    Said,
    behind,
    check_counts,
    completed,
    given_rationale,
    read,
    request,
    worked,
)
from medexpert.prompt.shots import Shots, check_shots
from medexpert.prompt.template import ChatFormat
from medexpert.records import Prediction, Question, UserError, unknown_name

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

READOUTS = ("parsed", "scored")


@dataclass(frozen=True)
class Cot:
    """Greedy. `batch` = questions per engine call; `pick` and `balanced` as in `shots.py`."""

    name: str = "cot"
    readout: str = "parsed"
    max_tokens: int = 256
    shots: int = 0
    pick: str = "fixed"
    balanced: bool = True
    batch: int = 8

    def __post_init__(self) -> None:
        if self.readout not in READOUTS:
            raise unknown_name(f"readout of {self.name}", self.readout, READOUTS)
        check_counts(self.name, max_tokens=self.max_tokens, batch=self.batch)
        check_shots(self.name, self.shots, self.pick)

    @property
    def seeded(self) -> bool:
        """The seed chooses the examples that are shown."""
        return self.shots > 0

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
        """See `asking.Strategy`. Raises NoLogprobs for `readout=scored` where there are none."""
        solved = Shots(examples, seed=seed)
        for group in in_batches(questions, self.batch):
            ledger = Ledger(engine, seed=seed)
            shown = [solved.chosen(q, self.shots, self.pick, balanced=self.balanced) for q in group]
            asked = asked_behind(group, shown, protocol, engine.chat)
            said = reasoned(group, asked, ledger, max_tokens=self.max_tokens)
            rows = [[0.0]] * len(group)
            if self.readout == "scored":
                rows = ledger.score(
                    [behind(q, a, s.text) for q, a, s in zip(group, asked, said, strict=True)]
                )
            for question, those, one, row in zip(group, shown, said, rows, strict=True):
                trace = {
                    "protocol": protocol,
                    "shots": [example.id for example in those],
                    "samples": [one.row()],
                    "parse": [one.parse],
                    **ledger.trace(question.id),
                }
                if self.readout == "scored":
                    trace["logprobs"] = dict(zip(question.choices, row, strict=True))
                    yield decided(question, row, trace)
                else:
                    yield Prediction(question.id, one.choice, question.answer, {}, trace)


def asked_behind(
    group: Sequence[Question],
    shown: Sequence[Sequence[Question]],
    protocol: str,
    chat: ChatFormat,
) -> list[Asked]:
    """:func:`asked_for` of every question, each behind its own solved examples."""
    pairs = zip(group, shown, strict=True)
    return [asked_for(question, protocol, chat, those) for question, those in pairs]


def asked_for(
    question: Question, protocol: str, chat: ChatFormat, examples: Sequence[Question] = ()
) -> Asked:
    """The request to reason about a question, behind solved examples and their reasoning."""
    shots = "".join(worked(REASON, e, protocol, given_rationale(e)) for e in examples)
    return request(REASON, question, protocol, chat, shots=shots)


def reasoned(
    questions: Sequence[Question],
    asked: Sequence[Asked],
    ledger: Ledger,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    draw: int = 0,
) -> list[Said]:
    """A text for each prompt, read for its question."""
    made = completed(
        questions, asked, ledger, max_tokens=max_tokens, temperature=temperature, top_p=top_p,
        draw=draw,
    )  # fmt: skip
    return [read(question, one) for question, one in zip(questions, made, strict=True)]


@dataclass(frozen=True)
class Sampling:
    """The options of strategies that sample `k` reasonings at `temperature`, `batch` questions an
    engine call."""

    name: str
    k: int = 5
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 256
    batch: int = 8

    def __post_init__(self) -> None:
        """Raises UserError for a value out of range: samples that are all the same are none."""
        check_counts(self.name, k=self.k, max_tokens=self.max_tokens, batch=self.batch)
        of = f"of {self.name}"
        if not 0 < self.temperature < math.inf:
            raise UserError(f"option temperature {of}: {self.temperature}", allowed="more than 0")
        if not 0 < self.top_p <= 1:
            raise UserError(f"option top_p {of}: {self.top_p}", allowed="more than 0, up to 1")

    @property
    def seeded(self) -> bool:
        """Samples are drawn."""
        return True

    @property
    def needs(self) -> Needs:
        """Nothing beside the questions."""
        return Needs()


def drawn(
    questions: Sequence[Question],
    asked: Sequence[Asked],
    ledger: Ledger,
    number: int,
    sampling: Sampling,
) -> list[list[Said]]:
    """[question][draw]: `number` sampled texts for each prompt."""
    draws = [
        reasoned(
            questions, asked, ledger, max_tokens=sampling.max_tokens,
            temperature=sampling.temperature, top_p=sampling.top_p, draw=draw,
        )
        for draw in range(number)
    ]  # fmt: skip
    return [[said[at] for said in draws] for at in range(len(questions))]
