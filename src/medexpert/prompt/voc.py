"""Verification-of-Choice: explain every choice as if it were right, then verify, then decide.

1. Hypothesise: for each choice one greedy rationale that supposes it is right (asked for in the
   model's chat format where it has one). A rationale that
   names another choice as the answer, repeats itself or is too short is marked with the reason;
   it stays in the comparison, because a missing rationale would itself give the verdict away.
2. Verify: all rationales side by side, in every cyclic order, each choice identified by its word;
   the verdict is read from the probabilities of the choices' words, nothing is parsed.
3. Decide: ln p averaged over the orders, a choice at a time; the share of orders whose own verdict
   differs from the common one is the flip rate.

`voc-likelihood` decides by the equally weighted sum of three features, each a log-softmax over the
choices: P(true) margin ln p(yes) - ln p(no) of "is this answer fully supported?", the verify score
of step 3, and the direct score. The weights are declared, not fitted.

The name and the two steps are the paper's (arXiv 2312.01040, abstract); wording, filters and the
mixture are this project's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from medexpert.prompt import template
from medexpert.prompt.asking import (
    TEMPLATES,
    Scored,
    best,
    complete,
    decided,
    direct_prompt,
    evidence,
    in_batches,
    log_softmax,
    score,
    versioned,
)
from medexpert.prompt.parse import parse_choice, stated_choices
from medexpert.records import NO_ANSWER, Prediction, Question, digest

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

WEIGHTS = {"ptrue": 1 / 3, "verify": 1 / 3, "direct": 1 / 3}
STOP = ("\n\n",)
MIN_TOKENS = 8
MAX_REPEATS = 3
_UNIT = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")


@dataclass(frozen=True)
class Rationale:
    """`dropped` = why the filter would drop it, "" when it is sound."""

    text: str
    tokens: int
    finish: str
    dropped: str


@dataclass(frozen=True)
class Pass:
    """One verify pass: the order shown and ln p of each choice (normalised over the choices)."""

    order: tuple[str, ...]
    logprobs: Mapping[str, float]


@dataclass(frozen=True)
class Voc:
    """`explain` adds, for a reader, what speaks against each choice (one more generation each)."""

    name: str = "voc"
    likelihood: bool = False
    explain: bool = False
    max_tokens: int = 128
    batch: int = 8

    @property
    def version(self) -> str:
        """Changes with the code's own version and with every text it may show."""
        return versioned(1, (*TEMPLATES, *(n for n in template.names() if n.startswith("voc."))))

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """See `asking.Strategy`. `seed` is handed to the engine; decoding is greedy."""
        for group in in_batches(questions, self.batch):
            yield from self._answer(group, engine, protocol, seed)

    def _answer(
        self, group: Sequence[Question], engine: Engine, protocol: str, seed: int
    ) -> list[Prediction]:
        work = _Work(engine, protocol, seed, self.max_tokens)
        rationales = work.hypothesise(group)
        passes = work.verify(group, rationales)
        extra = work.likelihoods(group, rationales) if self.likelihood else [{} for _ in group]
        against = work.contradict(group, rationales) if self.explain else [{} for _ in group]
        predictions = []
        for k, question in enumerate(group):
            verify = _average(question.choices, passes[k])
            features = {"verify": verify, **extra[k]}
            totals = _mixed(question.choices, features) if self.likelihood else verify
            trace = {
                "protocol": protocol,
                "templates": work.templates(question.lang),
                "rationales": {c: asdict(r) for c, r in rationales[k].items()},
                "verify": [asdict(p) for p in passes[k]],
                "flip_rate": _flip_rate(question.choices, passes[k], verify),
                "tokens": dict(work.tokens[question.id]),
                "prompts": digest(work.prompts[question.id]),
            }
            if self.likelihood:
                trace |= {"features": features, "weights": WEIGHTS}
            if self.explain:
                trace["against"] = against[k]
            predictions.append(decided(question, [totals[c] for c in question.choices], trace))
        return predictions


class _Work:
    """The steps for one batch of questions; keeps the prompts and token counts of each question."""

    def __init__(self, engine: Engine, protocol: str, seed: int, max_tokens: int) -> None:
        self.engine, self.protocol, self.seed = engine, protocol, seed
        self.max_tokens = max_tokens
        self.chat = engine.chat
        self.tokens: dict[str, Counter[str]] = {}
        self.prompts: dict[str, list[str]] = {}
        self.used: dict[str, dict[str, str]] = {}

    def templates(self, lang: str) -> dict[str, str]:
        return self.used[lang]

    def hypothesise(self, group: Sequence[Question]) -> list[dict[str, Rationale]]:
        """A rationale for every choice of every question."""
        pairs = [(question, choice) for question in group for choice in question.choices]
        asked = [self._prompt("voc.hypothesise", q, choice=word(q, c)) for q, c in pairs]
        made = self._complete(asked)
        found: list[dict[str, Rationale]] = []
        for question in group:
            row = {}
            for choice in question.choices:
                completion = made.pop(0)
                text = " ".join(completion.text.split())
                row[choice] = Rationale(
                    text=text,
                    tokens=completion.tokens,
                    finish=completion.finish,
                    dropped=fault(text, choice, question, self.engine.count_tokens(text)),
                )
            found.append(row)
        return found

    def verify(
        self, group: Sequence[Question], rationales: Sequence[Mapping[str, Rationale]]
    ) -> list[list[Pass]]:
        """A pass for every cyclic order of every question's choices."""
        asked, orders = [], []
        found: list[list[Pass]] = [[] for _ in group]
        for k, (question, row) in enumerate(zip(group, rationales, strict=True)):
            for turn in range(len(question.choices)):
                order = question.choices[turn:] + question.choices[:turn]
                shown = [(word(question, c), row[c].text) for c in order]
                labels = template.render_choices("voc.verify", question.choices, lang=question.lang)
                asked.append(self._scored("voc.verify", question, labels, rationales=shown))
                orders.append((k, order))
        scores = score(asked, self.engine)
        for (k, order), values in zip(orders, scores, strict=True):
            logprobs = dict(zip(group[k].choices, log_softmax(values), strict=True))
            found[k].append(Pass(order, logprobs))
        return found

    def likelihoods(
        self, group: Sequence[Question], rationales: Sequence[Mapping[str, Rationale]]
    ) -> list[dict[str, dict[str, float]]]:
        """{"ptrue": {choice: ...}, "direct": {choice: ...}} log-softmaxed over the choices."""
        asked = []
        for question, row in zip(group, rationales, strict=True):
            labels = template.render_choices("voc.ptrue", ("true", "false"), lang=question.lang)
            for choice in question.choices:
                fields = {"choice": word(question, choice), "rationale": row[choice].text}
                asked.append(self._scored("voc.ptrue", question, labels, **fields))
        margins = [true - false for true, false in score(asked, self.engine)]
        direct = [direct_prompt(question, self.protocol, self.chat) for question in group]
        for item, question in zip(direct, group, strict=True):
            self._note(question, item.prompt, "direct", item.template)
        found = []
        for question, values in zip(group, score(direct, self.engine), strict=True):
            size = len(question.choices)
            ptrue, margins = margins[:size], margins[size:]
            found.append(
                {
                    "ptrue": dict(zip(question.choices, log_softmax(ptrue), strict=True)),
                    "direct": dict(zip(question.choices, log_softmax(values), strict=True)),
                }
            )
        return found

    def contradict(
        self, group: Sequence[Question], rationales: Sequence[Mapping[str, Rationale]]
    ) -> list[dict[str, str]]:
        """What the model says against every choice."""
        asked = [
            self._prompt("voc.contradict", q, choice=word(q, c), rationale=row[c].text)
            for q, row in zip(group, rationales, strict=True)
            for c in q.choices
        ]
        made = self._complete(asked)
        return [{c: " ".join(made.pop(0).text.split()) for c in q.choices} for q in group]

    def _prompt(self, name: str, question: Question, **fields: Any) -> tuple[str, str]:
        """(question id, prompt), noted."""
        values = {
            "question": question.question,
            "evidence": evidence(question, self.protocol),
            "choices": [word(question, c) for c in question.choices],
        }
        # Scored words go behind plain text, as in `direct`; free text is asked for as a chat.
        free = name in ("voc.hypothesise", "voc.contradict")
        render = template.render_request if free else template.render_prompt
        text = render(name, values | fields, chat=self.chat, lang=question.lang)
        self._note(question, text, name, template.template_id(name, question.lang))
        return question.id, text

    def _scored(
        self, name: str, question: Question, labels: Sequence[str], **fields: Any
    ) -> Scored:
        _, prompt = self._prompt(name, question, **fields)
        identity = template.template_id(name, question.lang)
        return Scored(question.id, prompt, tuple(labels), identity)

    def _note(self, question: Question, prompt: str, name: str, identity: str) -> None:
        self.prompts.setdefault(question.id, []).append(prompt)
        self.used.setdefault(question.lang, {})[name] = identity
        counts = self.tokens.setdefault(question.id, Counter({"prompt": 0, "generated": 0}))
        counts["prompt"] += self.engine.count_tokens(prompt)

    def _complete(self, asked: Sequence[tuple[str, str]]) -> list[Any]:
        made = complete(asked, self.engine, max_tokens=self.max_tokens, seed=self.seed, stop=STOP)
        for (identity, _), completion in zip(asked, made, strict=True):
            self.tokens[identity]["generated"] += completion.tokens
        return made


def word(question: Question, choice: str) -> str:
    """The choice in the words of the question's language."""
    return template.lookup("voc.hypothesise", question.lang).label(choice)


def fault(text: str, choice: str, question: Question, tokens: int) -> str:
    """Why a rationale for `choice` is unsound: one of three reasons, or ""."""
    labels = {c: word(question, c) for c in question.choices}
    stated = stated_choices(text, question.choices, labels=labels)
    stated.append(parse_choice(text, question.choices, labels=labels))
    if any(named not in (choice, NO_ANSWER) for named in stated):
        return "names_another_choice"
    units = [unit.casefold() for unit in _UNIT.findall(text)]
    grams = Counter(zip(units, units[1:], units[2:], units[3:], strict=False))
    if grams and max(grams.values()) > MAX_REPEATS:
        return "repeats_itself"
    return "too_short" if tokens < MIN_TOKENS else ""


def _average(choices: Sequence[str], passes: Sequence[Pass]) -> dict[str, float]:
    means = [sum(p.logprobs[c] for p in passes) / len(passes) for c in choices]
    return dict(zip(choices, log_softmax(means), strict=True))


def _flip_rate(
    choices: Sequence[str], passes: Sequence[Pass], average: Mapping[str, float]
) -> float:
    """Share of passes whose own verdict differs from the averaged one."""
    verdict = best(choices, [average[c] for c in choices])
    own = [best(choices, [p.logprobs[c] for c in choices]) for p in passes]
    return sum(one != verdict for one in own) / len(own)


def _mixed(choices: Sequence[str], features: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """sum over features of weight x log-softmax."""
    return {c: sum(WEIGHTS[f] * values[c] for f, values in features.items()) for c in choices}
