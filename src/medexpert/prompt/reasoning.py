"""Free reasoning that ends in "Final answer: ...": asked for, read, and scored behind.

What all strategies share that let a model reason before it answers. A text is read by `parse.py`
alone; one that names no choice is NO_ANSWER with the reason, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from medexpert.prompt import template
from medexpert.prompt.asking import Scored, evidence
from medexpert.prompt.choices import naming
from medexpert.prompt.ledger import Asked, Ledger
from medexpert.prompt.template import ChatFormat
from medexpert.records import NO_ANSWER, Question, UserError

if TYPE_CHECKING:
    from medexpert.engines.base import Completion

REASON, ANSWER = "cot.reason", "cot.answer"
STOP = {
    "en": ("\nQuestion:", "\nAbstract:", "\nContext:"),
    "zh": ("\n问题：", "\n摘要：", "\n背景："),
}
"""A model without a chat format goes on with the next item; these lines open one."""
_FINAL = re.compile(r"[\s*#_]*(?:\bfinal answer\b|最终答案)", re.IGNORECASE)


@dataclass(frozen=True)
class Said:
    """One generated text and what it answers.

    `parse` is "ok", or why `choice` is NO_ANSWER: "empty" (no text), "cut_off" (ended by the limit
    of tokens), "no_choice" (none stated, or several at once).
    """

    text: str
    tokens: int
    finish: str
    choice: str
    parse: str

    @property
    def reasoning(self) -> str:
        """The text before its final answer, on one line."""
        return " ".join(before_answer(self.text).split())

    def row(self) -> dict[str, Any]:
        """As a line of a trace."""
        return asdict(self)


def opening_fields(question: Question, protocol: str) -> dict[str, Any]:
    """The fields of `part.opening`, with which every prompt of a question begins."""
    return {
        "question": question.question,
        "evidence": evidence(question, protocol),
        "options": naming(question).options,
    }


def request(name: str, question: Question, protocol: str, chat: ChatFormat, **fields: Any) -> Asked:
    """The prompt of a template that asks for free text."""
    text = template.render_request(
        name, opening_fields(question, protocol) | fields, chat=chat, lang=question.lang
    )
    return Asked(question.id, text, template.template_id(name, question.lang))


def stops(question: Question) -> tuple[str, ...]:
    """Where a text about this question ends."""
    return STOP[question.lang]


def completed(
    questions: Sequence[Question], asked: Sequence[Asked], ledger: Ledger, **how: Any
) -> list[Completion]:
    """A text for each prompt, ended where its model would go on with another item. `how` as in
    `Ledger.complete`; prompts of one language go together."""
    found: dict[int, Completion] = {}
    for stop in dict.fromkeys(map(stops, questions)):
        members = [k for k, question in enumerate(questions) if stops(question) == stop]
        made = ledger.complete([asked[k] for k in members], stop=stop, **how)
        found.update(zip(members, made, strict=True))
    return [found[k] for k in range(len(questions))]


def read(question: Question, completion: Completion) -> Said:
    """What a completion says about a question."""
    text = completion.text.strip()
    choice = naming(question).read(text)
    parse = "ok"
    if choice == NO_ANSWER:
        parse = "cut_off" if completion.finish == "length" else "no_choice"
        parse = parse if text else "empty"
    return Said(text, completion.tokens, completion.finish, choice, parse)


def before_answer(text: str) -> str:
    """The text up to its first "Final answer", without white space at the end."""
    found = _FINAL.search(text)
    return (text[: found.start()] if found else text).rstrip()


def behind(question: Question, asked: Asked, text: str) -> Scored:
    """The labels scored where the answer stands behind a prompt and the reasoning it got.

    It begins with the prompt as asked, so that what an engine encoded of it can be used again.
    """
    lang = question.lang
    reasoning = before_answer(text)
    gap = " " if lang == "en" and reasoning and not asked.prompt[-1:].isspace() else ""
    before = asked.prompt + gap + reasoning
    return Scored(
        question=question.id,
        prompt=template.render_prompt(ANSWER, {"before": before}, chat=ChatFormat(""), lang=lang),
        labels=tuple(template.render_choices(ANSWER, naming(question).labels, lang=lang)),
        template=template.template_id(ANSWER, lang),
    )


def worked(name: str, example: Question, protocol: str, rationale: str) -> str:
    """A solved example as plain text, as `name` would ask for it, with reasoning and answer."""
    fields = {
        **opening_fields(example, protocol),
        "rationale": rationale,
        "answer": naming(example).label(example.answer),
    }
    segments = template.render(name, fields, chat=ChatFormat(""), lang=example.lang)
    return "".join(segment.text for segment in segments) + "\n\n"


def given_rationale(example: Question) -> str:
    """The reasoning that came with a solved example, on one line.

    Raises UserError for an example without: only training items of some tasks have one.
    """
    text = " ".join(example.long_answer.split())
    if not text:
        raise UserError(
            "a solved example without reasoning cannot be shown to reason from",
            where=f"example {example.id}",
            allowed="shots=0, or medprompt, which lets the model reason on the examples itself",
        )
    return text


def check_counts(strategy: str, **counts: int) -> None:
    """Raises UserError for an option below 1."""
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"option {name} of {strategy}: {value}", allowed="1 or more")
