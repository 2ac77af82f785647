"""`self_verification`: sampled answers put back as conditions, and the likeliest kept.

Weng et al. 2022 (arXiv 2212.09561). Forward: `k` sampled rationales give candidate answers.
Backward: each candidate is put into the context as a conclusion, and the model judges it, by the
paper's true-false item verification; its other form, hiding a number and asking for it again, is
for arithmetic only. The candidate judged most often true wins.

`readout=scored` takes p(true) / (p(true) + p(false)) in place of counting; `readout=sampled`
counts "true" among `checks` sampled judgements, as in the paper, and needs no log-probabilities.
Equal scores go to the candidate with more samples, then to the declared order; the trace says so.
A single candidate is not verified: nothing could change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medexpert.engines.base import NoLogprobs
from medexpert.prompt import template
from medexpert.prompt.asking import Scored, in_batches, log_softmax, versioned
from medexpert.prompt.choices import naming
from medexpert.prompt.cot import Sampling, asked_for, drawn
from medexpert.prompt.ledger import Ledger
from medexpert.prompt.parse import parse_choice
from medexpert.prompt.reasoning import REASON, Said, check_counts, opening_fields, request
from medexpert.prompt.vote import majority
from medexpert.records import NO_ANSWER, Prediction, Question, unknown_name

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

CONCLUSION = "cot.conclusion"
TRUTH = ("true", "false")
READOUTS = ("scored", "sampled")
_JUDGEMENT_TOKENS = 8


@dataclass(frozen=True)
class _Candidate:
    """A candidate answer of the question at place `at` of its batch."""

    at: int
    choice: str


@dataclass(frozen=True)
class SelfVerification(Sampling):
    """`k` forward samples; `checks` judgements a candidate (readout=sampled)."""

    name: str = "self_verification"
    readout: str = "scored"
    checks: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.readout not in READOUTS:
            raise unknown_name(f"readout of {self.name}", self.readout, READOUTS)
        check_counts(self.name, checks=self.checks)

    @property
    def version(self) -> str:
        """Changes with the code's own version and with every text it may show."""
        return versioned(2, (REASON, CONCLUSION))

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """See `asking.Strategy`. Probabilities are the candidates' scores as shares of their sum.

        Raises NoLogprobs for `readout=scored` where there are none.
        """
        for group in in_batches(questions, self.batch):
            ledger = Ledger(engine, seed=seed)
            asked = [asked_for(question, protocol, engine.chat) for question in group]
            samples = drawn(group, asked, ledger, self.k, self)
            verified = self._verify(group, samples, ledger, protocol)
            for question, own, scores in zip(group, samples, verified, strict=True):
                yield _decide(question, own, scores, protocol, ledger)

    def _verify(
        self,
        group: Sequence[Question],
        samples: Sequence[Sequence[Said]],
        ledger: Ledger,
        protocol: str,
    ) -> list[dict[str, dict[str, Any]]]:
        """For each question {candidate: {"score": 0 to 1, ...}}; {} where there is one or none."""
        candidates = []
        for at, (question, own) in enumerate(zip(group, samples, strict=True)):
            named = [c for c in question.choices if any(said.choice == c for said in own)]
            candidates += [_Candidate(at, choice) for choice in named if len(named) > 1]
        judge = self._scored if self.readout == "scored" else self._sampled
        found: list[dict[str, dict[str, Any]]] = [{} for _ in group]
        judged = judge(group, candidates, ledger, protocol) if candidates else []
        for candidate, score in zip(candidates, judged, strict=True):
            found[candidate.at][candidate.choice] = score
        return found

    def _scored(
        self,
        group: Sequence[Question],
        candidates: Sequence[_Candidate],
        ledger: Ledger,
        protocol: str,
    ) -> list[dict[str, Any]]:
        asked = []
        for candidate in candidates:
            question = group[candidate.at]
            fields = opening_fields(question, protocol) | _conclusion(question, candidate.choice)
            lang = question.lang
            asked.append(
                Scored(
                    question.id,
                    template.render_prompt(CONCLUSION, fields, chat=ledger.engine.chat, lang=lang),
                    tuple(template.render_choices(CONCLUSION, TRUTH, lang=lang)),
                    template.template_id(CONCLUSION, lang),
                )
            )
        try:
            rows = ledger.score(asked)
        except NoLogprobs as error:
            raise NoLogprobs(error.what, allowed=f"{self.name}:readout=sampled") from None
        return [{"score": math.exp(log_softmax(row)[0])} for row in rows]

    def _sampled(
        self,
        group: Sequence[Question],
        candidates: Sequence[_Candidate],
        ledger: Ledger,
        protocol: str,
    ) -> list[dict[str, Any]]:
        asked = [
            request(CONCLUSION, group[c.at], protocol, ledger.engine.chat,
                    **_conclusion(group[c.at], c.choice))
            for c in candidates
        ]  # fmt: skip
        counts = [dict.fromkeys((*TRUTH, NO_ANSWER), 0) for _ in candidates]
        for draw in range(self.checks):
            made = ledger.complete(
                asked, max_tokens=_JUDGEMENT_TOKENS, temperature=self.temperature,
                top_p=self.top_p, draw=draw,
            )  # fmt: skip
            for candidate, completion, count in zip(candidates, made, counts, strict=True):
                labels = template.lookup(CONCLUSION, group[candidate.at].lang).labels
                said = completion.text.strip().partition("\n")[0]
                # "B" names a choice of the question, not a judgement.
                count[parse_choice(said, TRUTH, labels=labels, by_letter=False)] += 1
        return [{"score": count["true"] / self.checks, "judgements": count} for count in counts]


def _conclusion(question: Question, choice: str) -> dict[str, str]:
    """The candidate as the conclusion says it: the word, or the letter with its text."""
    named = naming(question)
    label = named.label(choice)
    return {"conclusion": f"{label}. {named.options[label]}" if named.lettered else label}


def _decide(
    question: Question,
    samples: Sequence[Said],
    scores: Mapping[str, Mapping[str, Any]],
    protocol: str,
    ledger: Ledger,
) -> Prediction:
    counted = majority(question.choices, [said.choice for said in samples])
    values = {choice: float(row["score"]) for choice, row in scores.items()}
    broken_by = ""
    if values:
        top = max(values.values())
        first = [choice for choice in values if values[choice] == top]
        most = max(counted.counts[choice] for choice in first)
        frequent = [choice for choice in first if counted.counts[choice] == most]
        chosen = frequent[0]
        if len(first) > 1:
            broken_by = "samples" if len(frequent) == 1 else "order"
    else:
        chosen = counted.choice
        values = {} if chosen == NO_ANSWER else {chosen: 1.0}
    total = math.fsum(values.values())
    shares = {c: values.get(c, 0.0) / total for c in question.choices} if total else {}
    trace = {
        "protocol": protocol,
        "samples": [said.row() for said in samples],
        "parse": [said.parse for said in samples],
        "candidates": dict(counted.counts),
        "verified": {choice: dict(row) for choice, row in scores.items()},
        "tie": broken_by,
        **ledger.trace(question.id),
    }
    return Prediction(question.id, chosen, question.answer, shares, trace)
