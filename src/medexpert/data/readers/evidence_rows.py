"""Evidence Inference 2.0 -> EvidenceRow: what a trial found for one outcome, as annotators read it.

Two published forms: JSON lines (one prompt a line, with its abstract and every annotation), and
the project's own three: `annotations_merged.csv` (or `v2_annotations.csv`; columns UserID,
PromptID, PMCID, Valid Label, Valid Reasoning, Label, Annotations, ...), `prompts_merged.csv`
(PromptID, PMCID, Outcome, Intervention, Comparator) and `txt_files/PMC<n>.txt` (`TITLE: ...`, then
`ABSTRACT.METHODS:` and `BODY....:` headings, each on a line of its own above its text).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medexpert.data import places
from medexpert.data.readers.rows import (
    Change,
    Drop,
    Fault,
    Ids,
    Part,
    fault,
    id_of,
    jsonl,
    list_of,
    object_of,
    optional_text,
    raw_lines,
    text_of,
)
from medexpert.data.readers.tables import csv_rows
from medexpert.records import UserError, unknown_name

LABELS = ("significantly increased", "significantly decreased", "no significant difference")
# The annotation tables spell two labels in two ways.
_SPELLINGS = {"significantly increase": LABELS[0], "significantly decrease": LABELS[1]}
_HEADING = re.compile(r"\s*(TITLE|ABSTRACT|BODY)(?:\.([^:]+))?:\s*(.*)")
_TEXT_LIMIT = 16 << 20  # characters of one article; the largest published one has 0.3 million


@dataclass(frozen=True)
class EvidenceRow:
    """One prompt: did `intervention`, against `comparator`, change `outcome`?

    `label` is one of LABELS, the majority of the valid annotations (a tie is no row); `agree` tells
    that no valid annotation says otherwise. `abstract` holds (heading, text) in order, empty where
    the source has none; `evidence` the quotations of the valid annotations, from the abstract or
    the full text.
    """

    id: str
    pmcid: str
    intervention: str
    comparator: str
    outcome: str
    label: str
    abstract: tuple[tuple[str, str], ...] = ()
    agree: bool = True
    evidence: tuple[str, ...] = ()
    pmid: str = ""
    title: str = ""
    year: str = ""
    licence: str = ""
    split: str = ""

    @property
    def ids(self) -> dict[str, str]:
        """Identifiers by scheme, empty ones left out."""
        return {k: v for k, v in (("pmid", self.pmid), ("pmcid", self.pmcid)) if v}


FORMATS = ("evidence_inference", "evidence_tables")
"""Readers of the catalogue's Evidence Inference entries."""
SPLITS = ("train", "validation")
"""The splits to train on; the published test split is never one of them."""


def rows_of(reader: str, parts: Iterable[Part]) -> Iterator[EvidenceRow | Drop | Change | Fault]:
    """Rows of an entry of the catalogue by its reader, one of FORMATS, without the test split.

    `evidence_tables` wants each `annotations_merged.csv`, with `prompts_merged.csv`, `txt_files/`
    and the split lists (in `splits/` or there too) beside it; the parts of prompt tables
    yield nothing of their own, so that the parts may be read apart. Rows of another split are Drops
    (`other_split`), and those of articles in no list too (`no_split`). Raises UserError for an
    unknown reader, a file that is missing or cannot be read.
    """
    if reader not in FORMATS:
        raise unknown_name("Evidence Inference reader", reader, FORMATS)
    for part in parts:
        found = evidence_rows([part]) if reader == FORMATS[0] else _tables_of(part)
        for item in found:
            if not isinstance(item, EvidenceRow) or item.split in SPLITS:
                yield item
            elif item.split or reader == FORMATS[1]:
                yield Drop(item.id, "other_split" if item.split else "no_split")
            else:  # JSON rows of one's own need not name a split
                yield item


def _tables_of(part: Part) -> Iterator[EvidenceRow | Drop | Change | Fault]:
    """A slice of the rows of the tables around an annotations file."""
    folder, slash, name = part.path.rpartition("/")
    folder = folder if slash else "."
    if "prompts" in name.lower():
        if not any(places.matching(folder, f"*annotations*{end}") for end in (".csv", ".csv.gz")):
            raise UserError("no annotations_merged.csv beside it", where=part.path)
        return
    prompts = [
        one for end in (".csv", ".csv.gz") for one in places.matching(folder, f"*prompts*{end}")
    ]
    if not prompts:
        raise UserError("no prompts_merged.csv beside it", where=part.path)
    texts = places.join(folder, "txt_files")
    if not places.is_folder(texts):
        raise UserError(
            "the articles are missing",
            where=texts,
            allowed="the project's folder txt_files, beside its tables",
        )
    held = (places.join(folder, "splits"), folder)
    lists = [one for one in held if places.is_file(places.join(one, "test_article_ids.txt"))]
    if not lists:
        raise UserError(
            "test_article_ids.txt is missing: which articles are the test split is not known",
            where=folder,
            allowed="the project's folder splits, beside its tables",
        )
    for number, item in enumerate(evidence_tables(part.path, prompts[0], texts, lists[0])):
        if part.has(number):
            yield item


def evidence_rows(parts: Iterable[Part]) -> Iterator[EvidenceRow | Drop | Change | Fault]:
    """Rows of JSON-lines files; a row that breaks the schema is a Fault, and reading goes on.

    Raises UserError for a file that cannot be read.
    """
    for part in parts:
        for found in jsonl(part):
            if isinstance(found, Fault):
                yield found
                continue
            where, row = found
            try:
                items = list(evidence_row(where, row))
            except UserError as error:
                yield fault(error, where)
                continue
            yield from items


def evidence_row(where: str, row: Mapping[str, Any]) -> Iterator[EvidenceRow | Drop | Change]:
    """One JSON row. Raises UserError for a row that breaks the schema."""
    identifier = id_of(row, where)
    sections = []
    for position, raw in enumerate(list_of(row, "abstract", where)):
        section = object_of(raw, f"abstract[{position}]", where)
        sections.append((text_of(section, "label", where), text_of(section, "text", where)))
    evidence, valid = [], []
    for position, raw in enumerate(list_of(row, "annotations", where)):
        annotation = object_of(raw, f"annotations[{position}]", where)
        vote = label_of(text_of(annotation, "label", where), where)
        quotation = optional_text(annotation, "evidence", where).strip()
        if _truth(annotation, "valid_label", where):
            valid.append(vote)
            evidence.append(quotation)
    if not isinstance(row.get("agree"), bool):
        raise UserError("field 'agree': true or false is expected", where=where)
    found = EvidenceRow(
        id=identifier,
        pmcid=text_of(row, "pmcid", where),
        intervention=text_of(row, "intervention", where).strip(),
        comparator=text_of(row, "comparator", where).strip(),
        outcome=text_of(row, "outcome", where).strip(),
        label="",
        abstract=tuple((label.strip(), text.strip()) for label, text in sections if text.strip()),
        agree=row["agree"],
        evidence=tuple(dict.fromkeys(filter(None, evidence))),
        pmid=optional_text(row, "pmid", where),
        title=optional_text(row, "title", where),
        year=optional_text(row, "year", where),
        licence=optional_text(row, "license", where),
        split=optional_text(row, "split", where),
    )
    written = optional_text(row, "label", where)
    major = _majority(valid)
    if not written or major == "no_valid_label":
        yield Drop(identifier, "no_valid_label")
    elif major not in LABELS:
        yield Drop(identifier, major)
    elif label_of(written, where) != major:
        yield Drop(identifier, "label_against_valid_annotations")
    else:
        yield from _labelled(found, written, where)


def _majority(votes: Sequence[str]) -> str:
    """The label that most valid annotations have, else why there is none. One rule for the JSON
    rows and the tables."""
    counted = Counter(votes).most_common(2)
    if not counted:
        return "no_valid_label"
    if len(counted) > 1 and counted[0][1] == counted[1][1]:
        return "annotators_split_evenly"
    return counted[0][0]


def label_of(written: str, where: str) -> str:
    """The label a cell stands for, whatever its case. Raises UserError for another word."""
    label = " ".join(written.split()).lower()
    label = _SPELLINGS.get(label, label)
    if label not in LABELS:
        raise UserError(f"unknown label {written!r}", where=where, allowed=", ".join(LABELS))
    return label


def _labelled(row: EvidenceRow, written: str, where: str) -> Iterator[EvidenceRow | Drop | Change]:
    for name in ("intervention", "comparator", "outcome"):
        if not getattr(row, name):
            yield Drop(row.id, f"no_{name}")
            return
    label = label_of(written, where)
    if label != written:
        yield Change(row.id, "label_normalised")
    yield replace(row, label=label)


# -- the published tables ------------------------------------------------------------------------


@dataclass
class _Tables:
    """What a prompt's row is joined with."""

    texts: str
    votes: dict[str, list[tuple[str, str]]]  # prompt -> (label, quotation) of valid annotations
    splits: dict[str, str]  # number of an article -> split


def evidence_tables(
    annotations: str, prompts: str, texts: str = "", splits: str = ""
) -> Iterator[EvidenceRow | Drop | Change | Fault]:
    """Rows of the published tables, one a prompt that was annotated, in the order of `prompts`.

    `texts` is the folder (or URL) of `txt_files`, `splits` that of `train_article_ids.txt`,
    `validation_article_ids.txt` and `test_article_ids.txt`; "" leaves abstracts and splits empty. A
    prompt whose valid annotations are split evenly is a Drop. Raises UserError for a file that
    cannot be read.
    """
    tables = _Tables(texts.rstrip("/"), {}, _splits(splits.rstrip("/")) if splits else {})
    for found in csv_rows()(Part(annotations)):
        try:
            if not isinstance(found, Fault):
                _count(found[0], found[1], tables.votes)
                continue
        except UserError as error:
            found = fault(error, annotations)
        yield found
    seen = Ids("id")
    for found in csv_rows()(Part(prompts)):
        if isinstance(found, Fault):
            yield found
            continue
        where, row = found
        try:
            seen.check(text_of(row, "PromptID", where), where)
            items = list(_prompt(where, row, tables))
        except UserError as error:
            told = fault(error, where)
            # The article of this row may be what cannot be read; the row is what is lost by it.
            yield told if told.where == where else Fault(where, f"{told.where}: {told.what}")
            continue
        yield from items


def _count(where: str, row: Mapping[str, Any], votes: dict[str, list[tuple[str, str]]]) -> None:
    prompt = text_of(row, "PromptID", where).strip()
    label = label_of(text_of(row, "Label", where), where)
    valid = _truth(row, "Valid Label", where)
    kept = votes.setdefault(prompt, [])
    if valid:
        kept.append((label, optional_text(row, "Annotations", where)))


def _splits(folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for split in ("train", "validation", "test"):
        path = f"{folder}/{split}_article_ids.txt"
        for number, raw in raw_lines(path):
            article = raw.decode("utf-8", "replace").strip().upper().removeprefix("PMC")
            if article and not article.isdecimal():
                what = f"{article[:40]!r} is no number of an article"
                raise UserError(what, where=f"{path}:{number}")
            found[article] = split
    return found


def _truth(row: Mapping[str, Any], name: str, where: str) -> bool:
    value = text_of(row, name, where).strip().lower()
    if value not in ("true", "false", ""):
        raise UserError(f"field {name!r}: {value!r}", where=where, allowed="True, False")
    return value == "true"


def _prompt(
    where: str, row: Mapping[str, Any], tables: _Tables
) -> Iterator[EvidenceRow | Drop | Change]:
    votes, texts = tables.votes, tables.texts
    prompt = id_of(row, where, "PromptID").strip()
    identifier = f"ei2-{prompt}"
    if prompt not in votes:
        yield Drop(identifier, "not_annotated")
        return
    number = text_of(row, "PMCID", where).strip().upper().removeprefix("PMC").removesuffix(".0")
    if not number.isdecimal():
        raise UserError(f"field 'PMCID': {number!r} is no number", where=where)
    major = _majority([label for label, _ in votes[prompt]])
    if major not in LABELS:
        yield Drop(identifier, major)
        return
    title, abstract = _article(f"{texts}/PMC{number}.txt") if texts else ("", ())
    found = EvidenceRow(
        id=identifier,
        pmcid=f"PMC{number}",
        intervention=text_of(row, "Intervention", where).strip(),
        comparator=text_of(row, "Comparator", where).strip(),
        outcome=text_of(row, "Outcome", where).strip(),
        label="",
        abstract=abstract,
        agree=len({label for label, _ in votes[prompt]}) == 1,
        evidence=tuple(dict.fromkeys(e for _, text in votes[prompt] if (e := text.strip()))),
        title=title,
        split=tables.splits.get(number, ""),
    )
    yield from _labelled(found, major, where)


def _article(path: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Title and abstract sections (heading as printed, text) of one article of `txt_files`."""
    title = ""
    sections: list[tuple[str, list[str]]] = []
    size = 0
    for number, raw in raw_lines(path):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise UserError("not UTF-8", where=f"{path}:{number}") from None
        size += len(line)
        if size > _TEXT_LIMIT:
            raise UserError("an article of this length is not published", where=path)
        heading = _HEADING.match(line)
        if heading is None:
            # Older files print the title in the line of its heading, newer ones in the next; there
            # an abstract without headings follows the title at once.
            if not title:
                title = line.strip()
            elif line.strip() and not sections:
                sections.append(("", [line.strip()]))
            elif sections:
                sections[-1][1].append(line.strip())
        elif heading[1] == "BODY":
            break
        elif heading[1] == "TITLE":
            title = heading[3].strip()
        else:
            sections.append((heading[2] or "", [heading[3].strip()]))
    joined = ((label.strip(), " ".join(filter(None, text))) for label, text in sections)
    return title, tuple((label, text) for label, text in joined if text)
