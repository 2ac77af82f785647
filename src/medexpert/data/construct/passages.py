"""Knowledge passages -> question and answer by a teacher, kept only when checked against them.

First pass: `construct.passage_qa` writes one question and its answer, parsed strictly. Then checks
that need no model (see `fault`). Second pass: `construct.supported` scores yes against no for "is
every statement of the answer stated in the passage", once with the passage and once with a text
about something else; the margin ln p(yes) - ln p(no) has to reach a threshold, and to fall by
another when the passage is exchanged: a teacher that says yes to everything verifies nothing.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from medexpert.data import grams
from medexpert.data.construct.rejects import Outcome, Reject
from medexpert.data.construct.teacher import Chosen, Refusal, Teacher, Written
from medexpert.data.parts import cut
from medexpert.data.quarantine.ids import keys_of
from medexpert.data.readers.pubmedqa import official_split
from medexpert.data.readers.rows import ids_of, list_of, object_of, optional_text, text_of
from medexpert.records import Example, UserError

WRITE, CHECK = "construct.passage_qa", "construct.supported"
TEMPLATES = (WRITE, CHECK)
STOP = ("\nQuestion:", "\nPassage:", "\n问题：", "\n段落：")
UNRELATED = {
    "en": "The ferry leaves the harbour at nine and calls at both islands before noon. Bicycles are"
    " carried on the lower deck, and the café opens once the ship has left the quay.",
    "zh": "渡轮上午九点离港，中午前停靠两座小岛。自行车存放在下层甲板，"
    "船离开码头后咖啡厅开始营业。",
}
_PAIR = re.compile(
    r"\s*(?:Question|问题)\s*[:：]\s*(?P<question>[^\n]+?)\s*\n\s*"
    r"(?:Answer|答案)\s*[:：]\s*(?P<answer>\S(?:[^\n]*[^\s])?)\s*"
)
_REFERS_EN = re.compile(
    r"\b(?:the|this|that|these|those|above|present|current|given|following|provided)\s+"
    r"(?:\w+\s+)?(?:passage|text|abstract|article|paper|paragraph|document|excerpt|section|chapter|"
    r"study|studies|trial|report|review|authors?|researchers?|investigators?|figure|table)\b"
    r"|\b(?:mentioned|described|stated|discussed|shown|listed)\s+(?:above|below|here)\b"
    r"|\baccording to (?:it|this)\b|\bin our\b|\bwe\s+\w+ed\b",
    re.IGNORECASE,
)
_REFERS_ZH = re.compile(
    "本文|上文|下文|文中|文章|短文|原文|该文|段落|这段|该段|上述|作者|本研究|该研究|此研究|研究者|本书|图中|表中"
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_ENDING = re.compile(r"(?:ations?|ings?|ies|ied|ed|es|ly|s|e|y)$")
_STOP_LIST = """
    a an and are as at be been being but by can could did do does for from had has have how if in
    into is it its may might more most no nor not of on or other should so such than that the
    their them then there these they this those through to too under up very was were what when
    where which while who whom whose why will with would yes also both each either one two
"""
_STOP_WORDS = frozenset(_STOP_LIST.split())
QUESTION_WORDS, QUESTION_CHARS = 3, 300


@dataclass(frozen=True)
class PassageSettings:
    """`max_chars` a passage; margins in natural logarithms; `min_found` = share of the answer's
    content words (Chinese: pairs of characters) that the passage must hold."""

    max_chars: int = 2000
    min_chars: int = 200
    per_document: int = 1
    max_tokens: int = 192
    min_found: float = 0.8
    min_margin: float = 1.0
    min_gain: float = 1.0

    def __post_init__(self) -> None:
        for name in ("min_chars", "per_document", "max_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} = {getattr(self, name)}", allowed="1 or more")
        if self.max_chars < self.min_chars:
            raise UserError(
                f"max_chars = {self.max_chars}", allowed=f"min_chars ({self.min_chars}) or more"
            )
        if not 0 <= self.min_found <= 1:
            raise UserError(f"min_found = {self.min_found}", allowed="0 to 1")


@dataclass(frozen=True)
class Passage:
    """A piece of a document that is asked about; `document` is that document's id."""

    id: str
    where: str
    text: str
    document: str
    lang: str = "en"
    source: str = ""
    licence: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)


# -- rows --------------------------------------------------------------------------------------


def passages(
    where: str, row: Mapping[str, Any], settings: PassageSettings, *, source: str, seed: int
) -> Iterator[Passage | Reject]:
    """The pieces of a Document (or of any row with an id and a text or sections) to ask about.

    A document is cut at paragraph or sentence ends; `per_document` pieces that follow one another
    are taken from a place drawn by the seed and the id. Raises UserError for any other row.
    """
    identifier = optional_text(row, "id", where) or optional_text(row, "pmid", where)
    if not identifier:
        raise UserError("no id", where=where)
    ids = ids_of(row, where)
    given = object_of(row["ids"], "ids", where) if row.get("ids") else {}
    ids |= {str(key): str(value) for key, value in given.items()}
    from_ = optional_text(row, "source", where) or source
    pmids = {value for scheme, value in keys_of(identifier, ids) if scheme == "pmid"}
    if pmids & official_split().everything():
        yield Reject(identifier, where, "pqal_item", from_)
        return
    pieces = [piece.strip() for piece in cut(_text(row, where), settings.max_chars)]
    pieces = [piece for piece in pieces if len(piece) >= settings.min_chars]
    if not pieces:
        yield Reject(identifier, where, "too_short", from_)
        return
    mark = hashlib.sha256(f"{seed} {identifier}".encode("utf-8", "replace")).digest()
    start = int.from_bytes(mark[:8], "big") % len(pieces)
    for number in range(min(settings.per_document, len(pieces))):
        at = (start + number) % len(pieces)
        yield Passage(
            id=f"{identifier}#{at + 1}",
            where=where,
            text=pieces[at],
            document=identifier,
            lang=optional_text(row, "lang", where) or "en",
            source=from_,
            licence=optional_text(row, "licence", where) or optional_text(row, "license", where),
            ids=ids,
        )


def _text(row: Mapping[str, Any], where: str) -> str:
    if "sections" not in row:
        return text_of(row, "text", where)
    parts = []
    for section in list_of(row, "sections", where):
        holder = object_of(section, "a section", where)
        heading = optional_text(holder, "heading", where) or optional_text(holder, "label", where)
        parts += [part for part in (heading, text_of(holder, "text", where)) if part]
    return "\n".join(parts)


# -- asking ------------------------------------------------------------------------------------


def ask(
    items: Sequence[Passage], teacher: Teacher, settings: PassageSettings, *, seed: int
) -> list[Outcome]:
    """An example or a reject for each passage, in order."""
    out: dict[int, Outcome] = {}
    for lang in dict.fromkeys(item.lang for item in items):
        members = [index for index, item in enumerate(items) if item.lang == lang]
        made = _of_one_language([items[i] for i in members], teacher, settings, lang, seed)
        out.update(zip(members, made, strict=True))
    return [out[index] for index in range(len(items))]


def _of_one_language(
    items: Sequence[Passage], teacher: Teacher, settings: PassageSettings, lang: str, seed: int
) -> list[Outcome]:
    asked = [{"evidence": item.text} for item in items]
    written = teacher.write(
        WRITE, asked, lang=lang, max_tokens=settings.max_tokens, seed=seed, stop=STOP
    )
    drafts = [
        _draft(item, found, teacher, settings, seed)
        for item, found in zip(items, written, strict=True)
    ]
    open_ = [(k, draft) for k, draft in enumerate(drafts) if isinstance(draft, _Draft)]
    shown = [{"question": d.question, "choice": d.answer} for _, d in open_]
    texts = [items[k].text for k, _ in open_]
    other = UNRELATED.get(lang, UNRELATED["en"])
    answers = [
        teacher.choose(
            CHECK,
            [{**row, "evidence": text} for row, text in zip(shown, evidence, strict=True)],
            ("true", "false"),
            lang=lang,
        )
        if shown
        else []
        for evidence in (texts, [other] * len(texts))
    ]
    out: list[Outcome | _Draft] = list(drafts)
    for (k, draft), *found in zip(open_, *answers, strict=True):
        out[k] = _verified(items[k], draft, found, teacher, settings)
    return [outcome for outcome in out if not isinstance(outcome, _Draft)]


@dataclass(frozen=True)
class _Draft:
    question: str
    answer: str
    facts: Mapping[str, str]


def _draft(
    item: Passage,
    written: Written | Refusal,
    teacher: Teacher,
    settings: PassageSettings,
    seed: int,
) -> _Draft | Reject:
    facts = {
        "teacher": teacher.name,
        "template": teacher.template_id(WRITE, item.lang),
        "check_template": teacher.template_id(CHECK, item.lang),
        "seed": str(seed),
    }
    if isinstance(written, Refusal):
        detail = {**facts, "why": written.why}
        return Reject(item.id, item.where, "teacher_refused", item.source, detail)
    facts["prompt"] = written.prompt_hash
    pair = parse(written.text)
    if written.finish == "length":
        reason: str | None = "cut_off"
    elif pair is None:
        reason = "unparsed"
    else:
        reason = fault(*pair, item.text, lang=item.lang, min_found=settings.min_found)
    if pair is None or reason is not None:
        detail = {**facts, "written": written.text, "passage": item.text}
        return Reject(item.id, item.where, reason or "unparsed", item.source, detail)
    return _Draft(*pair, facts)


def _verified(
    item: Passage,
    draft: _Draft,
    found: Sequence[Chosen | Refusal],
    teacher: Teacher,
    settings: PassageSettings,
) -> Outcome:
    pair = {"question": draft.question, "answer": draft.answer}
    margins: list[float] = []
    hashes: list[str] = []
    for answer in found:
        if isinstance(answer, Refusal):
            detail = {**draft.facts, **pair, "why": answer.why}
            return Reject(item.id, item.where, "teacher_refused", item.source, detail)
        yes, no = (max(p, 1e-12) for p in answer.probabilities)
        margins.append(math.log(yes) - math.log(no))
        hashes.append(answer.prompt_hash)
    facts = {
        **draft.facts,
        "check_prompts": ",".join(hashes),
        "margin": f"{margins[0]:.4f}",
        "margin_elsewhere": f"{margins[1]:.4f}",
    }
    reason = ""
    if margins[0] < settings.min_margin:
        reason = "not_supported"
    elif margins[0] - margins[1] < settings.min_gain:
        reason = "supported_without_passage"
    if reason:
        detail = {**facts, **pair, "passage": item.text}
        return Reject(item.id, item.where, reason, item.source, detail)
    return Example(
        id=item.id,
        source=item.source,
        kind="qa",
        template="chat.qa",
        fields=pair,
        lang=item.lang,
        licence=item.licence,
        ids={**item.ids, "document": item.document, **facts},
    )


# -- checks without a model --------------------------------------------------------------------


def parse(text: str) -> tuple[str, str] | None:
    """(question, answer) of a text that is exactly one question line and one answer line."""
    found = _PAIR.fullmatch(text)
    return (found["question"].strip(), found["answer"].strip()) if found else None


def fault(question: str, answer: str, passage: str, *, lang: str, min_found: float) -> str | None:
    """Why a question and answer cannot have been drawn from the passage alone; None = they may."""
    words = grams.tokens(answer)
    asked = grams.tokens(question)
    text = grams.tokens(passage)
    if not question.endswith(("?", "？")):
        return "no_question_mark"
    if len(asked) < QUESTION_WORDS or len(question) > QUESTION_CHARS:
        return "question_length"
    if not words or len(answer) > len(passage):
        return "answer_length"
    if words == asked:
        return "answer_is_question"
    if len(words) >= 0.9 * len(text):
        return "answer_is_passage"
    both = f"{question}\n{answer}"
    if _REFERS_EN.search(both) or (lang == "zh" and _REFERS_ZH.search(both)):
        return "refers_to_text"
    if any(_is_chinese(part) != (lang == "zh") for part in (question, answer)):
        return "wrong_language"
    if numbers(both) - numbers(passage):
        return "number_not_found"
    if found_share(words, text) < min_found:
        return "words_not_found"
    return None


def _is_chinese(text: str) -> bool:
    """Whether a third of the letters are Han characters (drug names stay in Latin letters)."""
    letters = len(_LETTER.findall(text))
    return letters > 0 and 3 * len(_HAN.findall(text)) >= letters


def numbers(text: str) -> set[str]:
    """The numbers in a text as written, thousands separators taken out."""
    plain = unicodedata.normalize("NFKC", text)
    return {re.sub(r",(?=\d{3}(?!\d))", "", found) for found in _NUMBER.findall(plain)}


def found_share(words: Sequence[str], text: Sequence[str]) -> float:
    """Share of the content words (English: by stem; Chinese: pairs of characters) in the text.

    1.0 when there is none to look for.
    """
    stems = {_stem(word) for word in text}
    pairs = set(pairwise(text))
    looked = hits = 0
    for at, word in enumerate(words):
        if _HAN.match(word):
            if at + 1 < len(words) and _HAN.match(words[at + 1]):
                looked += 1
                hits += (word, words[at + 1]) in pairs
        elif word not in _STOP_WORDS:
            looked += 1
            hits += _stem(word) in stems
    return hits / looked if looked else 1.0


def _stem(word: str) -> str:
    """A word without a common ending, at least four letters of it left."""
    bare = _ENDING.sub("", word)
    return bare if len(bare) >= 4 else word
