"""What every strategy does with a question: its evidence, its prompts, its scores. Pure text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from medexpert.engines.base import PromptError
from medexpert.prompt import template
from medexpert.prompt.choices import VERDICTS, naming
from medexpert.prompt.template import ChatFormat
from medexpert.records import Prediction, Question, UserError, digest, unknown_name

if TYPE_CHECKING:
    from medexpert.engines.base import Engine

__all__ = [
    "LOWEST", "PROTOCOLS", "TEMPLATES", "VERDICTS", "QuestionRefused", "Scored", "Strategy", "best",
    "complete", "decided", "direct_prompt", "evidence", "in_batches", "log_softmax", "naming",
    "score", "versioned",
]  # fmt: skip

PROTOCOLS = ("reasoning-required", "question-only", "reasoning-free")
"""With the context · without · with the conclusion in its place (a diagnostic, never PubMedQA)."""
_DIRECT = {
    "reasoning-required": "pubmedqa.lm_eval",
    "question-only": "pubmedqa.question_only",
    "reasoning-free": "pubmedqa.reasoning_free",
}
TEMPLATES = (*_DIRECT.values(), "direct.choices")
"""All that the direct prompt may be made from."""
LOWEST = -1e3
"""In place of an infinite log-probability, which endpoints give for labels that they do not list:
means and differences of those would be no numbers."""
Item = TypeVar("Item")


class QuestionRefused(UserError):
    """The engine has no answer to a prompt of `question`: it does not fit the context, an endpoint
    refuses it. Other questions may well be answered."""

    def __init__(self, error: UserError, question: str) -> None:
        self.question = question
        super().__init__(error.what, where=f"question {question}", allowed=error.allowed)

    @property
    def why(self) -> str:
        """The reason, without the question's name."""
        return f"{self.what}; allowed: {self.allowed}" if self.allowed else self.what


class Strategy(Protocol):
    """A way to answer questions. `name` is what recipes and results call it; results of unlike
    `version` are not to be compared."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def seeded(self) -> bool:
        """Whether another seed may give other answers; if not, one seed is all there is to ask."""
        ...

    def predict(
        self,
        questions: Sequence[Question],
        engine: Engine,
        *,
        protocol: str,
        seed: int,
        examples: Sequence[Question] = (),
    ) -> Iterator[Prediction]:
        """One prediction a question, in order, yielded as soon as its batch is done.

        `examples` are solved questions, never of the split that is asked, which may be shown.
        Raises QuestionRefused for a question that the engine refuses; what was yielded before it
        holds, and of the others of its batch some may be missing.
        """
        ...


@dataclass(frozen=True)
class Scored:
    """A prompt whose continuations `labels` are to be scored, and the question it belongs to."""

    question: str
    prompt: str
    labels: tuple[str, ...]
    template: str


def evidence(question: Question, protocol: str) -> str:
    """The text a prompt may show beside the question; "" only under question-only.

    Raises UserError for an unknown protocol or a question without the text its protocol shows.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    if protocol == "question-only":
        return ""
    free = protocol == "reasoning-free"
    text = question.long_answer if free else "\n".join(question.contexts)
    if not text.strip():
        missing = "conclusion (long_answer)" if free else "context"
        raise UserError(
            f"it has no {missing}, which protocol {protocol} shows",
            where=f"question {question.id}",
            allowed="protocol question-only",
        )
    return text


def direct_prompt(question: Question, protocol: str, chat: ChatFormat) -> Scored:
    """The direct prompt and the label texts scored behind it.

    Yes/no/maybe questions get lm-eval's PubMedQA format; other choices are listed by letter, and
    the letter is scored (`choices.naming`).
    """
    shown = evidence(question, protocol)
    lang = question.lang
    named = naming(question)
    name = "direct.choices" if named.lettered else _DIRECT[protocol]
    fields = {
        "question": question.question,
        "contexts": question.contexts,
        "evidence": shown,
        "long_answer": question.long_answer,
        "options": named.options,
    }
    return Scored(
        question=question.id,
        prompt=template.render_prompt(name, fields, chat=chat, lang=lang),
        labels=tuple(template.render_choices(name, named.labels, lang=lang)),
        template=template.template_id(name, lang),
    )


def score(asked: Sequence[Scored], engine: Engine) -> list[list[float]]:
    """[prompt][label] log-probabilities; prompts with the same labels go to the engine together.

    Raises QuestionRefused for a prompt that the engine refuses, UserError naming the question that
    gets no finite score.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, item in enumerate(asked):
        groups.setdefault(item.labels, []).append(index)
    results: list[list[float]] = [[] for _ in asked]
    for labels, members in groups.items():
        prompts = [asked[i].prompt for i in members]
        try:
            rows = engine.choice_logprobs(prompts, labels)
        except UserError as error:
            raise _for_question(error, [asked[i].question for i in members]) from None
        for i, row in zip(members, rows, strict=True):
            if any(math.isnan(value) for value in row) or max(row) == -math.inf:
                raise UserError(
                    f"the model {engine.name} gives no usable probabilities: {row}",
                    where=f"question {asked[i].question}",
                )
            results[i] = row
    return results


def complete(
    asked: Sequence[tuple[str, str]],
    engine: Engine,
    *,
    max_tokens: int,
    seed: int,
    stop: Sequence[str],
    temperature: float = 0.0,
    top_p: float = 1.0,
) -> list[Any]:
    """Completions of (question id, prompt) pairs. Raises QuestionRefused as `score`."""
    try:
        return list(
            engine.complete(
                [prompt for _, prompt in asked], max_tokens=max_tokens, stop=stop, seed=seed,
                temperature=temperature, top_p=top_p,
            )
        )  # fmt: skip
    except UserError as error:
        raise _for_question(error, [question for question, _ in asked]) from None


def _for_question(error: UserError, questions: Sequence[str]) -> UserError:
    """The engine's error with the question's id in place of the prompt's number in a batch."""
    if not isinstance(error, PromptError):
        return error
    return QuestionRefused(error, questions[error.index])


def log_softmax(values: Sequence[float]) -> list[float]:
    """ln of the values' softmax. At least one value must be finite."""
    top = max(values)
    total = top + math.log(sum(math.exp(value - top) for value in values))
    return [value - total for value in values]


def best(choices: Sequence[str], values: Sequence[float]) -> str:
    """The choice with the highest value; the first of equals."""
    return choices[max(range(len(choices)), key=lambda k: (values[k], -k))]


def decided(question: Question, logprobs: Sequence[float], trace: Mapping[str, Any]) -> Prediction:
    """Prediction = argmax, probabilities = softmax of the log-probabilities."""
    values = log_softmax(logprobs)
    return Prediction(
        id=question.id,
        choice=best(question.choices, values),
        answer=question.answer,
        probabilities={c: math.exp(v) for c, v in zip(question.choices, values, strict=True)},
        trace=trace,
    )


def versioned(own: int, names: Sequence[str]) -> str:
    """`own` and a digest of the templates' texts in every language."""
    ids = [template.template_id(name, lang) for name in names for lang in template.LANGUAGES]
    return f"{own}+{digest(ids)[:8]}"


def in_batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """The items in lists of at most `size`."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
