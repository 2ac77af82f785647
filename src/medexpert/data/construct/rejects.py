"""What a builder makes of an item: an example, or a reject that says why and keeps the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from medexpert.records import Example


@dataclass(frozen=True)
class Reject:
    """An item that gave no example. `detail` holds what was written and scored up to then."""

    id: str
    where: str
    reason: str
    source: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As a line of the rejects file."""
        return asdict(self)


Outcome = Example | Reject

REASONS: Mapping[str, str] = {
    "bad_row": "the row breaks its format",
    "id_twice": "an earlier row has this id",
    "pqal_item": "an item of PubMedQA's labelled set, which no teacher may label",
    "no_question": "no question",
    "no_context": "no context",
    "no_conclusion": "no conclusion for the teacher to read",
    "has_decision": "labelled already",
    "not_yes_no": "the question cannot be answered by yes or no",
    "low_confidence": "the teacher's probability of its label is under the threshold",
    "views_disagree": "the teacher's verdict depends on how it is asked",
    "maybe_cap": "more maybe than wanted; the most confident are kept",
    "teacher_refused": "the prompt does not fit the teacher, or its endpoint refuses it",
    "too_short": "too little text to ask about, or an explanation of too few tokens",
    "cut_off": "the teacher did not finish within its tokens",
    "unparsed": "not exactly one question line and one answer",
    "no_question_mark": "the question does not end with a question mark",
    "question_length": "the question is too short or too long",
    "answer_length": "the answer is empty or longer than the passage",
    "answer_is_passage": "the answer is the passage itself",
    "answer_is_question": "the answer repeats the question",
    "refers_to_text": "it refers to a text the reader does not have",
    "wrong_language": "what was written is not in the language of the passage or the question",
    "number_not_found": "a number that the passage does not hold",
    "words_not_found": "too many of the answer's words are not in the passage",
    "not_supported": "the second pass does not find the answer in the passage",
    "test_item": "an item of a test split",
    "dev_item": "an item of the dev part of the fold that is trained on",
    "names_another_choice": "the explanation of one choice names another as the answer",
    "repeats_itself": "the explanation says the same four words over and over",
    "hard_cap": "the verdict was not gold often enough, and the share of such items is full",
    "class_balance": "more verify records of this answer than of the rarest",
    "length_mismatch": "chosen and rejected answer differ too much in length",
    "supported_without_passage": "the second pass finds the answer in an unrelated passage as well",
}
"""Every reason a builder may give, in plain words."""
