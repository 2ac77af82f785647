"""PQA-U: questions with contexts and a conclusion but no decision -> labelled by a teacher.

The teacher reads the conclusion by default, in place of the abstract (PubMedQA's reasoning-free
setting): the label is to be as right as can be, and a person who reads the conclusion is right
90 % of the time against 78 % from the abstract alone (Jin et al. 2019, table 4). What is learned
from is the abstract without it: the example keeps question, contexts and label.

A label comes from four views: the direct prompt, which names no choices, and `construct.label`,
which defines maybe and lists the choices, in each of the three cyclic orders. Its log-probabilities
are averaged over the views (a geometric mean, normalised again); the largest is the label and its
probability the confidence. Kept when confidence and the share of views whose own verdict is the
label reach their thresholds; of the maybes only the most confident, up to a number.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from medexpert.data.construct.rejects import Outcome, Reject
from medexpert.data.construct.teacher import Chosen, Fields, Refusal, Teacher
from medexpert.data.readers.pubmedqa import CHOICES, official_split
from medexpert.data.readers.rows import ids_of, list_of, optional_text
from medexpert.records import Example, UserError, unknown_name

SEES = {"conclusion": "pubmedqa.reasoning_free", "abstract": "pubmedqa.lm_eval"}
LABEL = "construct.label"
TEMPLATES = (*SEES.values(), LABEL)
_HELPERS = """
    is are was were am do does did can could should would will shall has have had may might must
    need isn't aren't wasn't weren't don't doesn't didn't can't cannot
"""
_HELPER = frozenset(_HELPERS.split())
_CLAUSE = re.compile(r"[:;,.!?\u2013\u2014\u2026]+|--+|\s-\s?|-\s")
_OPEN_WORD = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how|or|versus|vs)\b")
_YES_NO_ZH = re.compile(r"吗|是否|能否|可否|有无|是不是|能不能|会不会|有没有|该不该|与否")
_TINY = 1e-12


@dataclass(frozen=True)
class PseudoSettings:
    """Thresholds of the pseudo-labels. `max_maybe` is 5 times the 50 of a gold fold (0 = none)."""

    sees: str = "conclusion"
    min_confidence: float = 0.8
    min_agreement: float = 1.0
    max_maybe: int = 250

    def __post_init__(self) -> None:
        if self.sees not in SEES:
            raise unknown_name("text for the teacher", self.sees, SEES, where="sees")
        for name in ("min_confidence", "min_agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} = {getattr(self, name)}", allowed="0 to 1")
        if self.max_maybe < 0:
            raise UserError(f"max_maybe = {self.max_maybe}", allowed="0 or more")


@dataclass(frozen=True)
class Unlabelled:
    """A question without a decision."""

    id: str
    where: str
    question: str
    contexts: tuple[str, ...]
    conclusion: str
    lang: str = "en"
    source: str = ""
    licence: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)


# -- rows --------------------------------------------------------------------------------------


def unlabelled(where: str, row: Mapping[str, Any], *, source: str) -> Unlabelled | Reject:
    """A row of PQA-U as published (JSON or parquet), or an Example of `pubmedqa.lm_eval` without
    an answer. Raises UserError for any other row."""
    item, decision = _example(where, row, source) if "fields" in row else _published(where, row)
    item = item if item.source else Unlabelled(**{**asdict(item), "source": source})
    pmids = {item.id.removeprefix("pqau-"), item.ids.get("pmid", "")}
    reason = ""
    if pmids & official_split().everything():
        reason = "pqal_item"
    elif decision:
        reason = "has_decision"
    elif not item.question.strip():
        reason = "no_question"
    elif not any(text.strip() for text in item.contexts):
        reason = "no_context"
    elif not yes_no(item.question, item.lang):
        reason = "not_yes_no"
    if reason:
        return Reject(item.id, where, reason, item.source, {"question": item.question})
    return item


def _published(where: str, row: Mapping[str, Any]) -> tuple[Unlabelled, str]:
    """PubMedQA's JSON object (upper case; its key under `id`) or the hub's parquet columns."""
    upper = "QUESTION" in row
    ids = ids_of(row, where)
    key = row.get("id", row.get("pubid"))
    identifier = str(key) if isinstance(key, int | str) and key != "" else ids.get("pmid", "")
    if not identifier:
        raise UserError("no id, PMID or key", where=where)
    if identifier.isdigit():
        ids.setdefault("pmid", identifier)
    if pmcid := optional_text(row, "PMCID", where) or optional_text(row, "pmcid", where):
        ids["pmcid"] = pmcid
    nested = row.get("context")
    holder = nested if not upper and isinstance(nested, Mapping) else row
    contexts = list_of(holder, "CONTEXTS" if upper else "contexts", where)
    item = Unlabelled(
        id=f"pqau-{identifier}" if identifier.isdigit() else identifier,
        where=where,
        question=optional_text(row, "QUESTION" if upper else "question", where),
        contexts=_strings(contexts, where),
        conclusion=optional_text(row, "LONG_ANSWER" if upper else "long_answer", where),
        lang=optional_text(row, "lang", where) or "en",
        source=optional_text(row, "source", where),
        licence=optional_text(row, "license", where) or optional_text(row, "licence", where),
        ids=ids,
    )
    return item, optional_text(row, "final_decision", where)


def _example(where: str, row: Mapping[str, Any], source: str) -> tuple[Unlabelled, str]:
    fields = row["fields"]
    if not isinstance(fields, Mapping) or row.get("template") != "pubmedqa.lm_eval":
        raise UserError("an Example of template pubmedqa.lm_eval is expected", where=where)
    ids = row.get("ids") or {}
    if not isinstance(ids, Mapping) or not all(isinstance(v, str) for v in ids.values()):
        raise UserError("field 'ids': an object of strings is expected", where=where)
    identifier = optional_text(row, "id", where)
    if not identifier:
        raise UserError("field 'id' is empty", where=where)
    item = Unlabelled(
        id=identifier,
        where=where,
        question=optional_text(fields, "question", where),
        contexts=_strings(list_of(fields, "contexts", where), where),
        conclusion=optional_text(fields, "long_answer", where),
        lang=optional_text(row, "lang", where) or "en",
        source=optional_text(row, "source", where) or source,
        licence=optional_text(row, "licence", where),
        ids=dict(ids),
    )
    return item, optional_text(fields, "answer", where)


def _strings(values: Sequence[Any], where: str) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise UserError("the contexts: a list of strings is expected", where=where)
    return tuple(values)


def yes_no(question: str, lang: str) -> bool:
    """Whether a question can be answered by yes or no.

    A clause of it opens with an auxiliary; or it is a title and subtitle ("X: a cause of Y?") that
    names neither a question word nor alternatives.
    """
    if lang == "zh":
        return _YES_NO_ZH.search(question) is not None
    text = question.lower().replace("\u2019", "'").strip()
    clauses = [clause.strip(" \"'([\u2018\u201c\u201d") for clause in _CLAUSE.split(text)]
    clauses = [clause for clause in clauses if clause]
    if any(clause.split()[0] in _HELPER for clause in clauses):
        return True
    return len(clauses) > 1 and text.endswith("?") and _OPEN_WORD.search(text) is None


# -- labelling ---------------------------------------------------------------------------------


def label(
    items: Sequence[Unlabelled], teacher: Teacher, settings: PseudoSettings, *, seed: int
) -> list[Outcome]:
    """An example or a reject for each item, in order."""
    out: dict[int, Outcome] = {}
    groups: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        if settings.sees == "conclusion" and not item.conclusion.strip():
            detail = {"question": item.question}
            out[index] = Reject(item.id, item.where, "no_conclusion", item.source, detail)
        else:
            groups.setdefault(item.lang, []).append(index)
    for lang, members in groups.items():
        chosen = [items[i] for i in members]
        views = _views(chosen, teacher, settings, lang)
        for index, item, seen in zip(members, chosen, views, strict=True):
            out[index] = _decide(item, seen, teacher, settings, seed)
    return [out[index] for index in range(len(items))]


def _views(
    items: Sequence[Unlabelled], teacher: Teacher, settings: PseudoSettings, lang: str
) -> list[list[tuple[tuple[str, ...], Chosen | Refusal]]]:
    """For each item its four views: (order of the choices shown, what was chosen)."""
    fields: list[Fields] = [
        {
            "question": item.question,
            "contexts": item.contexts,
            "long_answer": item.conclusion,
            "evidence": item.conclusion
            if settings.sees == "conclusion"
            else "\n".join(item.contexts),
        }
        for item in items
    ]
    orders = [CHOICES[k:] + CHOICES[:k] for k in range(len(CHOICES))]
    asked = [(SEES[settings.sees], CHOICES), *((LABEL, order) for order in orders)]
    found = [(order, teacher.choose(name, fields, order, lang=lang)) for name, order in asked]
    return [[(order, answers[k]) for order, answers in found] for k in range(len(items))]


def _decide(
    item: Unlabelled,
    views: Sequence[tuple[tuple[str, ...], Chosen | Refusal]],
    teacher: Teacher,
    settings: PseudoSettings,
    seed: int,
) -> Outcome:
    rows: list[dict[str, float]] = []
    prompts: list[str] = []
    for order, answer in views:
        if isinstance(answer, Refusal):
            detail = {"question": item.question, "why": answer.why, "teacher": teacher.name}
            return Reject(item.id, item.where, "teacher_refused", item.source, detail)
        rows.append(dict(zip(order, answer.probabilities, strict=True)))
        prompts.append(answer.prompt_hash)
    found, confidence = pooled(rows)
    agreement = sum(max(CHOICES, key=row.__getitem__) == found for row in rows) / len(rows)
    ids = {
        **item.ids,
        "teacher": teacher.name,
        "template": teacher.template_id(SEES[settings.sees], item.lang),
        "label_template": teacher.template_id(LABEL, item.lang),
        "prompt": prompts[0],
        "label_prompts": ",".join(prompts[1:]),
        "confidence": f"{confidence:.4f}",
        "agreement": f"{agreement:.2f}",
        "seed": str(seed),
    }
    low = confidence < settings.min_confidence
    if low or agreement < settings.min_agreement:
        tried: dict[str, Any] = {
            "question": item.question,
            "label": found,
            "views": [{name: round(row[name], 4) for name in CHOICES} for row in rows],
            **ids,
        }
        reason = "low_confidence" if low else "views_disagree"
        return Reject(item.id, item.where, reason, item.source, tried)
    fields: dict[str, Any] = {
        "question": item.question,
        "contexts": list(item.contexts),
        "answer": found,
        "long_answer": item.conclusion,
    }
    if not item.conclusion:
        del fields["long_answer"]
    return Example(
        id=item.id,
        source=item.source,
        kind="task",
        template="pubmedqa.lm_eval",
        fields=fields,
        lang=item.lang,
        licence=item.licence,
        ids=ids,
    )


def pooled(rows: Sequence[Mapping[str, float]]) -> tuple[str, float]:
    """(label, its probability) of the normalised geometric mean; the first of equals."""
    means = {
        name: math.exp(sum(math.log(max(row[name], _TINY)) for row in rows) / len(rows))
        for name in CHOICES
    }
    found = max(CHOICES, key=means.__getitem__)
    return found, means[found] / sum(means.values())


def over_the_cap(examples: Iterator[Mapping[str, Any]], settings: PseudoSettings) -> dict[str, str]:
    """{id: reason} of the maybes beyond the `max_maybe` most confident; equals by id."""
    kept: list[tuple[float, str]] = []
    out: dict[str, str] = {}
    for example in examples:
        if example["fields"]["answer"] != "maybe":
            continue
        entry = (float(example["ids"]["confidence"]), str(example["id"]))
        if len(kept) < settings.max_maybe:
            heapq.heappush(kept, entry)
            continue
        lowest = heapq.heappushpop(kept, entry) if kept else entry
        out[lowest[1]] = "maybe_cap"
    return out
