"""One question on its way through Voc, and the desk that writes its prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medexpert.prompt import template
from medexpert.prompt.asking import Scored
from medexpert.prompt.choices import Naming
from medexpert.prompt.ledger import Asked, Ledger
from medexpert.prompt.template import ChatFormat
from medexpert.records import Question

if TYPE_CHECKING:
    from medexpert.prompt.voc.rationales import Rationale
    from medexpert.prompt.voc.verdict import Pass, Verdict


@dataclass(eq=False)
class Case:
    """What is known so far. `explained` are the choices that get an explanation, `contested` those
    the verdict is among; both in the question's order."""

    question: Question
    named: Naming
    evidence: str
    explained: tuple[str, ...]
    contested: tuple[str, ...]
    shots: str = ""
    examples: tuple[str, ...] = ()
    direct: dict[str, float] = field(default_factory=dict)
    """ln p of every choice under the direct prompt, where it was asked."""
    draws: dict[str, list[Rationale]] = field(default_factory=dict)
    shown: list[dict[str, str]] = field(default_factory=list)
    """Draw by draw, the text that verification sees for each explained choice."""
    passes: list[Pass] = field(default_factory=list)
    ptrue: dict[str, float] = field(default_factory=dict)
    verdict: Verdict | None = None
    against: dict[str, str] = field(default_factory=dict)
    refused_examples: dict[str, str] = field(default_factory=dict)
    """Solved examples passed over, for the engine refuses their prompts: id -> why."""
    refused_donors: dict[str, str] = field(default_factory=dict)
    """The same of questions whose explanations were to be shown (the control `foreign`)."""


@dataclass(frozen=True)
class Desk:
    """Writes prompts and passes them on. `chat` is how this model is asked."""

    ledger: Ledger
    chat: ChatFormat

    def asked(self, case: Case, name: str, **fields: Any) -> Asked:
        """A prompt for free text."""
        return Asked(case.question.id, self._text(case, name, fields), self._identity(case, name))

    def scored(self, case: Case, name: str, answers: Sequence[str], **fields: Any) -> Scored:
        """A prompt behind which `answers` are scored."""
        lang = case.question.lang
        labels = tuple(template.render_choices(name, answers, lang=lang))
        text = self._text(case, name, fields)
        return Scored(case.question.id, text, labels, self._identity(case, name))

    def _text(self, case: Case, name: str, fields: Mapping[str, Any]) -> str:
        values: dict[str, Any] = {
            "question": case.question.question,
            "evidence": case.evidence,
            "options": case.named.options,
            "shots": case.shots,
        }
        return template.render_prompt(
            name, {**values, **fields}, chat=self.chat, lang=case.question.lang
        )

    @staticmethod
    def _identity(case: Case, name: str) -> str:
        return template.template_id(name, case.question.lang)
