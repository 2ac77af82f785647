"""A source's parts -> items: a published file by its reader, other sources by their opener."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

from medexpert.data import catalogue
from medexpert.data.build.own import own_example
from medexpert.data.catalogue import SourceEntry
from medexpert.data.readers import READERS
from medexpert.data.readers.pubmedqa import fold_questions, official_split
from medexpert.data.readers.rows import Change, Fault, Item, Part, Reader, jsonl, read
from medexpert.recipe import Run
from medexpert.recipe_data import Source
from medexpert.records import Document, Example, unknown_name

Opener = Callable[[Run, Source, Sequence[Part], str], Iterator[Item]]
"""(recipe, source, parts, name of the source that a builder builds from) -> items."""


def open_items(
    recipe: Run, source: Source, entry: SourceEntry, parts: Sequence[Part], of: str = ""
) -> Iterator[Item]:
    """The items of some parts of a source, as its reader yields them, `limit` records at most.

    Raises UserError for a file that cannot be read.
    """
    if entry.reader in OPENERS:
        items = OPENERS[entry.reader](recipe, source, parts, of)
    elif entry.reader in READERS:
        items = read(READERS[entry.reader], parts)
    else:
        raise unknown_name("reader", entry.reader, [*READERS, *OPENERS], where=entry.name)
    return limited(items, source.limit)


def limited(items: Iterator[Item], limit: int) -> Iterator[Item]:
    """The first `limit` records (0 = all); a Change and a Fault are no records."""
    if not limit:
        yield from items
        return
    count = 0
    for item in items:
        yield item
        count += not isinstance(item, Change | Fault)
        if count == limit:
            return


# -- sources that are no plain file ----------------------------------------------------------------


def _pubmedqa(recipe: Run, source: Source, parts: Sequence[Part], of: str) -> Iterator[Item]:
    train, dev = fold_questions(Path(parts[0].path), source.fold)
    kept_out = {*official_split().test, *(question.id for question in dev)}
    for question in train:
        assert question.id not in kept_out  # the split lists are disjoint; tested
        yield task_example(
            question.id,
            question.question,
            question.contexts,
            question.answer,
            {"pmid": question.id},
        )


def _trialgen(recipe: Run, source: Source, parts: Sequence[Part], of: str) -> Iterator[Item]:
    from medexpert.data.construct.trialgen import generate

    for item in islice(generate(source.limit, recipe.seed, "train"), source.limit):
        yield task_example(item.id, item.question, item.contexts, item.answer, {})


def _pqa(recipe: Run, source: Source, parts: Sequence[Part], of: str) -> Iterator[Item]:
    from medexpert.data.construct import pqa
    from medexpert.data.readers.abstracts import ABSTRACT_READERS

    reader = ABSTRACT_READERS[catalogue.find(of).reader]
    yield from pqa.build(found for part in parts for found in reader(part))


def _evidence(recipe: Run, source: Source, parts: Sequence[Part], of: str) -> Iterator[Item]:
    from medexpert.data.construct import evidence
    from medexpert.data.readers.evidence_rows import rows_of

    yield from evidence.build(rows_of(catalogue.find(of).reader, parts), seed=recipe.seed)


def _own(recipe: Run, source: Source, parts: Sequence[Part], of: str) -> Iterator[Item]:
    """Examples in our own format, such as `medexpert data construct` writes."""
    return read(Reader(jsonl, own_example), parts)


OPENERS: dict[str, Opener] = {
    "pubmedqa": _pubmedqa,
    "trialgen": _trialgen,
    "pqa_builder": _pqa,
    "evidence_builder": _evidence,
    "own_examples": _own,
}


def task_example(
    identifier: str,
    question: str,
    contexts: tuple[str, ...] | list[str],
    answer: str,
    ids: Mapping[str, str],
) -> Example:
    """A stage-3 item: the text that `direct` scores, followed by the answer."""
    return Example(
        id=identifier,
        source="",
        kind="task",
        template="pubmedqa.lm_eval",
        fields={"question": question, "contexts": list(contexts), "answer": answer},
        ids=ids,
        lang="",
    )


def stamp(record: Document | Example, entry: SourceEntry) -> Document | Example:
    """Put the catalogue's name on a record; its collection inside the file moves to the ids."""
    ids = dict(record.ids)
    if record.source and record.source != entry.name:
        ids.setdefault("collection", record.source)
    return replace(
        record,
        source=entry.name,
        ids=ids,
        lang=record.lang or (entry.lang.split(",")[0] if entry.lang != "any" else ""),
        licence=record.licence or entry.licence,
    )


def styled(example: Example, seed: int) -> Example:
    """Multi-choice answers in two styles, half and half by hash: the label, or reason first.

    A preference pair keeps its template: `rejected` was written for that one.
    """
    if example.kind != "mcq" or "rejected" in example.fields:
        return example
    reason = example.fields.get("explanation") and rank(seed, example.id)[0] % 2
    return replace(example, template="chat.mcq_reason" if reason else "chat.mcq_label")


def rank(seed: int, identifier: str) -> bytes:
    """A seeded hash of an id: an order that no file's order can change."""
    return sha256(json.dumps([seed, identifier]).encode()).digest()
