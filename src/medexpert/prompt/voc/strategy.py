"""The strategy `voc`: its options, its steps in order, and what it leaves in the trace."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from medexpert.engines.base import NoLogprobs
from medexpert.prompt import template
from medexpert.prompt.asking import (
    LOWEST,
    TEMPLATES,
    decided,
    direct_prompt,
    evidence,
    in_batches,
    log_softmax,
    versioned,
)
from medexpert.prompt.choices import naming
from medexpert.prompt.ledger import Ledger
from medexpert.prompt.needs import Needs, no_context
from medexpert.prompt.shots import check_shots
from medexpert.prompt.template import ChatFormat
from medexpert.prompt.voc import controls, rationales, verdict
from medexpert.prompt.voc.case import Case, Desk
from medexpert.prompt.voc.worked import Worked
from medexpert.records import Prediction, Question, UserError, unknown_name

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

MODES = ("verify", "ptrue", "likelihood")
VERDICTS = ("scored", "generated")
FORMS = ("chat", "plain")


@dataclass(frozen=True)
class Voc:
    """Hypothesise -> verify -> decide. The fields are the options.

    `mode` verify: by the verify passes; ptrue: by P(true) of each choice with its explanation;
    likelihood: by the sum of `w_ptrue`, `w_verify`, `w_direct` times the three log-softmaxed
    features (weights: `evaluate.fitting`). `verdict` scored or generated (a written check, parsed).
    `k` explanations a choice, `permutations` 1 (the given one), cyclic or all orders of them,
    `top2` contests the direct prompt's two best, `pmi` subtracts the verify score without the
    evidence. `shots` worked items, `pick` fixed or nearest. `contradictions` adds a note against
    every choice. `form` plain asks a chat model in plain text too. `control`: see `controls`.

    Trace, beside the ledger's: protocol · labels {choice: label} · rationales {choice: first
    explanation shown: text, tokens, finish, fault, shown} · draws (k > 1) {choice: [all of them]} ·
    shown (controls) [draw]{choice: text} · verify [pass: draw, order, logprobs, prior] ·
    flip_rate · verdict (generated): choice, decided_by, votes, checks · parse [of each check] ·
    features, weights (likelihood) · direct {choice: ln p} · contested (top2) · shots [example ids]
    · refused_examples, refused_donors (foreign) {id: why} · against {choice: note}.
    """

    name: str = "voc"
    mode: str = "verify"
    verdict: str = "scored"
    k: int = 1
    permutations: str = "1"
    top2: bool = False
    pmi: bool = False
    w_ptrue: float = 1 / 3
    w_verify: float = 1 / 3
    w_direct: float = 1 / 3
    shots: int = 0
    pick: str = "fixed"
    contradictions: bool = False
    control: str = ""
    form: str = "chat"
    max_tokens: int = 128
    check_tokens: int = 80
    batch: int = 8

    def __post_init__(self) -> None:
        """Raises UserError for an option's value, or options that exclude each other."""
        tables = {
            "mode": MODES, "verdict": VERDICTS, "permutations": verdict.PERMUTATIONS, "form": FORMS,
        }  # fmt: skip
        if self.control:
            tables["control"] = controls.CONTROLS
        for option, table in tables.items():
            if getattr(self, option) not in table:
                raise unknown_name(f"{option} of {self._own}", getattr(self, option), table)
        for option in ("k", "max_tokens", "check_tokens", "batch"):
            if getattr(self, option) < 1:
                raise UserError(
                    f"option {option} of {self._own}: {getattr(self, option)}", allowed="1 or more"
                )
        check_shots(self._own, self.shots, self.pick)
        if not all(map(math.isfinite, self.weights.values())) or not any(self.weights.values()):
            raise UserError(
                f"weights {self.weights} of {self._own}", allowed="finite numbers, not all 0"
            )
        if self.verdict == "generated" and (self.mode != "verify" or self.pmi):
            raise UserError(f"verdict=generated of {self._own}", allowed="mode=verify without pmi")

    @property
    def _own(self) -> str:
        return self.name.partition(":")[0]

    @property
    def weights(self) -> dict[str, float]:
        return {"ptrue": self.w_ptrue, "verify": self.w_verify, "direct": self.w_direct}

    @property
    def seeded(self) -> bool:
        """Samples, worked items and two of the controls are drawn."""
        return self.k > 1 or self.shots > 0 or self.control in ("foreign", "shuffled")

    @property
    def needs(self) -> Needs:
        """Worked items; what a control or `pmi` takes away, or puts in its place."""
        return Needs(
            examples=self.shots, alike=True, context=self.pmi or self.control == "no-context",
            lender=self.borrows,
        )  # fmt: skip

    @property
    def borrows(self) -> bool:
        """Whether an answer may depend on other questions that are asked (`lenders`)."""
        return self.control == "foreign"

    @property
    def version(self) -> str:
        """Changes with the code's own version and with every text it may show."""
        return versioned(3, (*TEMPLATES, *(n for n in template.names() if n.startswith("voc."))))

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
        lenders: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """See `asking.Strategy`. `seed` draws samples, worked items and controls.

        The control `foreign` takes another question's explanations from `examples`, and where none
        of them fits from `lenders`, the `questions` unless given: whoever asks for the rest of a
        set gives the whole set, so that the answers are those of an unbroken run.
        """
        run = _Run(self, engine, protocol, seed, tuple(examples), tuple(lenders or questions))
        for group in in_batches(questions, self.batch):
            try:
                yield from run.answers(group)
            except NoLogprobs:
                raise NoLogprobs(
                    f"{engine.name} gives no log-probabilities, which {self.name} needs",
                    allowed="voc:verdict=generated, with neither top2 nor control=direct-only",
                ) from None


class _Run:
    """One call of `predict`: what the batches of questions share."""

    def __init__(
        self,
        voc: Voc,
        engine: Engine,
        protocol: str,
        seed: int,
        examples: tuple[Question, ...],
        lenders: tuple[Question, ...],
    ) -> None:
        self.voc, self.protocol, self.seed = voc, protocol, seed
        self.engine = engine
        chat = engine.chat if voc.form == "chat" else ChatFormat("", *engine.chat[1:])
        self.desk = Desk(Ledger(engine, seed=seed), chat)
        self.donors = (examples, lenders)
        self.worked = Worked(examples, seed=seed, open_case=self._case)
        self.blind = voc.control == "no-context"

    def answers(self, group: Sequence[Question]) -> list[Prediction]:
        voc, desk = self.voc, self.desk
        cases = [self._case(question) for question in group]
        if voc.shots:
            self.worked.show(desk, cases, shots=voc.shots, pick=voc.pick, max_tokens=voc.max_tokens)
        if voc.mode == "likelihood" or voc.top2 or voc.control == "direct-only":
            self._direct(cases)
        self._hypothesise(cases)
        if voc.verdict == "generated":
            verdict.check(
                desk, cases, voc.permutations, blind=self.blind, max_tokens=voc.check_tokens
            )
        elif voc.mode != "ptrue":
            verdict.verify(desk, cases, voc.permutations, blind=self.blind, pmi=voc.pmi)
        if voc.mode != "verify":
            verdict.ptrue(desk, cases, blind=self.blind)
        if voc.contradictions:
            rationales.contradict(desk, cases, max_tokens=voc.max_tokens)
        return [self._decide(case) for case in cases]

    def _case(self, question: Question) -> Case:
        named = naming(question)
        shown = evidence(question, self.protocol)
        if not shown and (self.blind or self.voc.pmi):
            raise no_context(self.voc.name, question)
        return Case(question, named, shown, question.choices, question.choices)

    def _direct(self, cases: Sequence[Case]) -> None:
        """The direct prompt's ln p, and what follows from it for what is contested or explained."""
        asked = [direct_prompt(c.question, self.protocol, self.engine.chat) for c in cases]
        for case, row in zip(cases, self.desk.ledger.score(asked), strict=True):
            choices = case.question.choices
            case.direct = dict(zip(choices, log_softmax(row), strict=True))
            ranked = sorted(choices, key=lambda c: (-case.direct[c], choices.index(c)))
            if self.voc.top2:
                case.contested = tuple(c for c in choices if c in ranked[:2])
                case.explained = case.contested
            if self.voc.control == "direct-only":
                case.explained = (ranked[0],)

    def _hypothesise(self, cases: Sequence[Case]) -> None:
        voc = self.voc
        if voc.control == "foreign":
            self._borrow(cases)
        else:
            rationales.hypothesise(self.desk, cases, k=voc.k, max_tokens=voc.max_tokens)
        for case in cases:
            if voc.control == "shuffled":
                case.shown = [
                    controls.shuffled(case.question, row, self.seed) for row in case.shown
                ]
            if voc.control == "filler":
                lang, count = case.question.lang, self.engine.count_tokens
                case.shown = [
                    {c: controls.filler(text, lang, count) for c, text in row.items()}
                    for row in case.shown
                ]

    def _borrow(self, cases: Sequence[Case]) -> None:
        """Show another question's explanations; where the engine refuses them, the next one's."""
        left = list(cases)
        while left:
            donors = [
                controls.donor(case.question, self.donors, self.seed, case.refused_donors)
                for case in left
            ]
            writing = [self._foreign(case, other) for case, other in zip(left, donors, strict=True)]
            refused = rationales.explained(
                self.desk, writing, k=self.voc.k, max_tokens=self.voc.max_tokens
            )
            for case, other, written in zip(left, donors, writing, strict=True):
                if case.question.id in refused:
                    case.refused_donors[other.id] = refused[case.question.id]
                    continue
                case.draws = dict(zip(case.explained, written.draws.values(), strict=True))
                case.shown = [
                    dict(zip(case.explained, row.values(), strict=True)) for row in written.shown
                ]
            left = [case for case in left if case.question.id in refused]

    def _foreign(self, case: Case, other: Question) -> Case:
        """The other question, asked on this question's account."""
        found = self._case(replace(other, id=case.question.id))
        found.shots = case.shots
        places = [case.question.choices.index(choice) for choice in case.explained]
        found.explained = tuple(other.choices[place] for place in places)
        return found

    def _decide(self, case: Case) -> Prediction:
        question, voc = case.question, self.voc
        trace = self._trace(case)
        if case.verdict is not None:
            return Prediction(question.id, case.verdict.choice, question.answer, {}, trace)
        if voc.mode == "verify":
            among = verdict.average(case)
        elif voc.mode == "ptrue":
            among = case.ptrue
        else:
            features = self._features(case)
            trace |= {"features": features, "weights": voc.weights}
            totals = [
                math.fsum(voc.weights[f] * row[c] for f, row in features.items())
                for c in case.contested
            ]
            among = dict(zip(case.contested, log_softmax(totals), strict=True))
        return decided(question, _over_all(case, among), trace)

    @staticmethod
    def _features(case: Case) -> dict[str, dict[str, float]]:
        """Each a log-softmax over the contested choices."""
        direct = [
            max(value, LOWEST) for value in log_softmax([case.direct[c] for c in case.contested])
        ]
        return {
            "ptrue": case.ptrue,
            "verify": verdict.average(case),
            "direct": dict(zip(case.contested, direct, strict=True)),
        }

    def _trace(self, case: Case) -> dict[str, Any]:
        voc = self.voc
        # A choice may stand in the trace without an explanation of its own: top2, direct-only.
        first = {c: rows[0] for c, rows in case.draws.items()}
        trace: dict[str, Any] = {
            **self.desk.ledger.trace(case.question.id),
            "protocol": self.protocol,
            "labels": dict(zip(case.named.choices, case.named.labels, strict=True)),
            "rationales": {
                c: asdict(next((r for r in case.draws[c] if r.shown), first[c]))
                for c in case.explained
            },
            **verdict.as_trace(case),
        }
        extras: Mapping[str, Any] = {
            "draws": {c: [asdict(r) for r in rows] for c, rows in case.draws.items()}
            if voc.k > 1 else {},
            "shown": case.shown if voc.control in ("shuffled", "filler", "foreign") else [],
            "direct": case.direct,
            "contested": case.contested if voc.top2 else (),
            "shots": case.examples,
            "refused_examples": case.refused_examples,
            "refused_donors": case.refused_donors,
            "against": case.against,
        }  # fmt: skip
        return trace | {key: value for key, value in extras.items() if value}


def _over_all(case: Case, among: Mapping[str, float]) -> list[float]:
    """ln p of every choice: those not contested keep the direct prompt's, and the contested share
    what it gave them together."""
    if len(case.contested) == len(case.question.choices):
        return [among[c] for c in case.question.choices]
    held = math.log(math.fsum(math.exp(case.direct[c]) for c in case.contested))
    return [among[c] + held if c in among else case.direct[c] for c in case.question.choices]


_CONTROLS = tuple(Voc(name=f"voc-{control}", control=control) for control in controls.CONTROLS)
VARIANTS = (Voc(), Voc(name="voc-likelihood", mode="likelihood"), *_CONTROLS)
"""The entries of the table of strategies."""
