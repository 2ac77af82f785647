"""`medprompt`: similar solved examples, reasoning the model wrote on them itself, shuffled choices.

Nori et al. 2023 (arXiv 2311.16452). For each question:

1. Neighbours: solved examples ordered by similarity. The paper embeds them with a model; here it is
   the lexical measure of `similar.py`, since this room imports no model.
2. The model reasons on a neighbour without seeing its answer; the text is shown only if it comes to
   the gold answer. Neighbours are tried in order until `shots` are kept or `tries` have been tried;
   fewer are then shown, and the trace says how many.
3. The question is asked behind those in `orders` orders of its choices (the declared one, then
   others drawn by a hash of seed and question), greedily, and the majority of the answers wins.

`tokens` of a trace is what the question itself took; `preparation` what the reasoning on examples
took that this question was the first to need.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

from medexpert.prompt.asking import in_batches, versioned
from medexpert.prompt.cot import reasoned
from medexpert.prompt.ledger import Asked, Ledger, without_refused
from medexpert.prompt.needs import Needs
from medexpert.prompt.reasoning import ANSWER, REASON, Said, check_counts, request, worked
from medexpert.prompt.shots import Shots, check_refused, too_few
from medexpert.prompt.vote import Sample, elected, vote
from medexpert.records import NO_ANSWER, Prediction, Question, UserError, digest

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

_ALL_ORDERS = 5
"""Up to so many choices, all their orders are listed and dealt; beyond, orders are drawn."""


@dataclass(frozen=True)
class Medprompt:
    """`tries` = neighbours reasoned on at most; a question has no more orders than n! choices."""

    name: str = "medprompt"
    shots: int = 5
    orders: int = 5
    tries: int = 15
    max_tokens: int = 256
    batch: int = 4

    def __post_init__(self) -> None:
        check_counts(
            self.name, shots=self.shots, orders=self.orders, max_tokens=self.max_tokens,
            batch=self.batch,
        )  # fmt: skip
        if self.tries < self.shots:
            raise UserError(
                f"option tries of {self.name}: {self.tries}",
                allowed=f"shots ({self.shots}) or more",
            )

    @property
    def seeded(self) -> bool:
        """Orders are drawn."""
        return True

    @property
    def needs(self) -> Needs:
        """Solved examples to reason on."""
        return Needs(examples=self.shots)

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
        neighbours = _Neighbours(self, engine, protocol, seed)
        for group in in_batches(questions, self.batch):
            ledger = Ledger(engine, seed=seed)
            shown = neighbours.kept_for(group, solved)
            forms = [
                (at, replace(question, choices=order))
                for at, question in enumerate(group)
                for order in orders(question, self.orders, seed)
            ]
            asked = [
                request(REASON, form, protocol, engine.chat, shots=neighbours.text(shown[at]))
                for at, form in forms
            ]
            said = reasoned([f for _, f in forms], asked, ledger, max_tokens=self.max_tokens)
            samples: list[list[Sample]] = [[] for _ in group]
            for (at, form), prompt, one in zip(forms, asked, said, strict=True):
                samples[at].append(Sample(form, prompt, one))
            for question, those, own in zip(group, shown, samples, strict=True):
                found = vote(question, own, ledger)
                trace = {
                    "protocol": protocol,
                    "shots": [example.id for example in those.kept],
                    "neighbours": those.tried,
                    "preparation": those.cost,
                    "orders": [sample.question.choices for sample in own],
                }
                if lost := {i: why for i, why in neighbours.refused.items() if i in those.tried}:
                    trace["refused_examples"] = lost
                yield elected(question, found, own, ledger, trace)


@dataclass
class _Shown:
    """What a question gets to see, and what it took to make."""

    kept: list[Question]
    tried: dict[str, str]
    """example id -> "kept", or why it is not shown: "wrong", "refused", or a parse status"""
    cost: dict[str, int]


class _Neighbours:
    """The model's own reasoning on solved examples, each asked for once."""

    def __init__(self, settings: Medprompt, engine: Engine, protocol: str, seed: int) -> None:
        self.settings, self.engine, self.protocol, self.seed = settings, engine, protocol, seed
        self.said: dict[str, Said] = {}
        self.refused: dict[str, str] = {}

    def kept_for(self, group: Sequence[Question], solved: Shots) -> list[_Shown]:
        """For each question its nearest examples on which the model was right, the nearest last.

        Raises UserError for a question with fewer solved examples than `shots`, and where the
        engine refuses them all.
        """
        shots, tries = self.settings.shots, self.settings.tries
        waiting = []
        for question in group:
            ranked = solved.ranked(question, "nearest")[:tries]
            if len(ranked) < shots:
                raise too_few(question, shots, len(ranked))
            waiting.append(ranked)
        found = [_Shown([], {}, {"calls": 0, "prompt": 0, "generated": 0}) for _ in group]
        while any(waiting):
            turn = []
            for at, shown in enumerate(found):
                missing = shots - len(shown.kept)
                taken, waiting[at] = waiting[at][:missing], waiting[at][missing:]
                turn.append(taken)
            self._reason(turn, found)
            answered = len(self.said) - len(self.refused)
            check_refused(self.refused, answered=answered, pool=len(solved.pool))
            for at, shown in enumerate(found):
                for example in turn[at]:
                    shown.tried[example.id] = self._verdict(example)
                    if shown.tried[example.id] == "kept":
                        shown.kept.append(example)
                if len(shown.kept) == shots:
                    waiting[at] = []
        for shown in found:
            shown.kept.reverse()
        return found

    def _reason(self, turn: Sequence[Sequence[Question]], found: Sequence[_Shown]) -> None:
        """Let the model reason on what is new; the first question that needs it bears the cost."""
        new: dict[str, tuple[int, Question]] = {}
        for at, examples in enumerate(turn):
            for example in examples:
                if example.id not in self.said:
                    new.setdefault(example.id, (at, example))
        if not new:
            return
        ledger = Ledger(self.engine, seed=self.seed)
        examples = [example for _, example in new.values()]
        asked = [request(REASON, e, self.protocol, self.engine.chat) for e in examples]
        said = self._reasoning(examples, asked, ledger)
        for (at, example), one in zip(new.values(), said, strict=True):
            self.said[example.id] = one
            noted: dict[str, Any] = ledger.trace(example.id)
            found[at].cost["calls"] += noted["calls"]
            for name, count in noted["tokens"].items():
                found[at].cost[name] += count

    def _reasoning(
        self, examples: Sequence[Question], asked: Sequence[Asked], ledger: Ledger
    ) -> list[Said]:
        """What the model says on each example, or that the engine refuses it."""
        found: dict[str, Said] = {}

        def ask(some: Sequence[tuple[Question, Asked]]) -> None:
            questions, prompts = zip(*some, strict=True)
            said = reasoned(questions, prompts, ledger, max_tokens=self.settings.max_tokens)
            found.update(zip((question.id for question in questions), said, strict=True))

        pairs = list(zip(examples, asked, strict=True))
        self.refused |= without_refused(ask, pairs, lambda pair: pair[0].id)
        nothing = Said("", 0, "", NO_ANSWER, "refused")
        return [found.get(example.id, nothing) for example in examples]

    def _verdict(self, example: Question) -> str:
        said = self.said[example.id]
        if said.parse != "ok":
            return said.parse
        if said.choice != example.answer:
            return "wrong"
        return "kept" if said.reasoning else "empty"

    def text(self, shown: _Shown) -> str:
        """The kept examples as they are shown."""
        return "".join(
            worked(REASON, example, self.protocol, self.said[example.id].reasoning)
            for example in shown.kept
        )


def orders(question: Question, number: int, seed: int) -> list[tuple[str, ...]]:
    """`number` different orders of the choices, or all there are: the declared one, then others in
    the order of a hash of seed and question id."""
    declared = tuple(question.choices)
    wanted = min(number, math.factorial(len(declared)))
    found = [declared]
    if len(declared) <= _ALL_ORDERS:
        rest = sorted(
            (order for order in permutations(declared) if order != declared),
            key=lambda order: digest([seed, question.id, order]),
        )
        return (found + rest)[:wanted]
    draw = 0
    while len(found) < wanted:
        order = tuple(sorted(declared, key=lambda c: digest([seed, question.id, draw, c])))
        draw += 1
        if order not in found:
            found.append(order)
    return found
