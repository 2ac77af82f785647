"""PubMedQA PQA-L: the published files -> Question, and its official split by PMID lists.

Formats: `ori_pqal.json` (or `pqal_train_dev.json`, the 500 items outside the test set), an object
PMID -> item; or the hub's `pqa_labeled` parquet. The split is never taken from row order: the lists
in `pubmedqa_split.json` (made by tests/reference/make_pubmedqa_split.py) name every PMID.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from medexpert.data.readers.rows import Unique, list_of, object_of, text_of, whole_json
from medexpert.data.readers.wording import one_line
from medexpert.records import Question, UserError

CHOICES = ("yes", "no", "maybe")
FILES = ("ori_pqal.json", "pqal_train_dev.json")
FOLDERS = (".", "stage3/pubmedqa", "data", "pubmedqa", "pqa_labeled", "pubmedqa/data")


@dataclass(frozen=True)
class Split:
    """PMIDs of the 500 test items and of the dev part (50) of each of the 10 folds."""

    test: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]

    def everything(self) -> frozenset[str]:
        """All 1,000 PQA-L PMIDs."""
        return frozenset(self.test).union(*self.folds)

    def training(self, fold: int) -> frozenset[str]:
        """The 450 that a model of this fold is trained on: neither test nor the fold's dev part."""
        return self.everything() - {*self.test, *self.folds[fold]}


@cache
def official_split() -> Split:
    """The official split, from the PMID lists inside the package."""
    file = resources.files("medexpert.data.readers") / "pubmedqa_split.json"
    value = json.loads(file.read_text(encoding="utf-8"))
    return Split(tuple(value["test"]), tuple(tuple(fold) for fold in value["folds"]))


def find_pubmedqa(root: Path) -> Path:
    """The folder (or file) that holds PQA-L: `root` itself or a usual place under it.

    Raises UserError naming the places tried.
    """
    if root.is_file():
        return root
    for name in FOLDERS:
        folder = root / name
        if folder.is_dir() and _file_in(folder) is not None:
            return folder if name != "." else root
    raise UserError(
        "no PubMedQA here",
        where=str(root),
        allowed=f"{', '.join(FILES)} or a parquet file of pqa_labeled, in this folder or in "
        + ", ".join(FOLDERS[1:]),
    )


def _file_in(folder: Path) -> Path | None:
    for name in FILES[:1]:
        if (folder / name).is_file():
            return folder / name
    parquet = sorted(folder.glob("*.parquet")) + sorted(folder.glob("pqa_labeled/*.parquet"))
    if parquet:
        return parquet[0]
    return folder / FILES[1] if (folder / FILES[1]).is_file() else None


def read_pubmedqa(folder_or_file: Path) -> dict[str, Question]:
    """PMID -> Question for every item found, in file order, long answers included.

    Raises UserError for a bad file, a duplicate PMID, a missing field, a label that is no choice.
    """
    file = folder_or_file if folder_or_file.is_file() else _file_in(folder_or_file)
    if file is None:
        raise UserError("no PubMedQA file", where=str(folder_or_file), allowed=", ".join(FILES))
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)
    found = {pmid: _question(pmid, row, where) for pmid, where, row in rows}
    if not found:
        raise UserError("no item in this file", where=str(file))
    return found


def _json_rows(file: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for pmid, row in object_of(whole_json(file), "the file", str(file)).items():
        where = f"{file} [{pmid}]"
        if not (pmid.isascii() and pmid.isdigit()):
            raise UserError(f"key {pmid!r} is no PMID", where=str(file))
        yield pmid, where, object_of(row, "the item", where)


def _parquet_rows(file: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Rows of the hub's parquet in the JSON file's shape. Needs pyarrow."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise UserError(
            "reading parquet needs pyarrow", where=str(file), allowed="pip install pyarrow"
        ) from None
    wanted = ("pubid", "question", "context", "long_answer", "final_decision")
    try:
        with parquet.ParquetFile(file) as table:
            names = table.schema_arrow.names
            missing = [name for name in wanted if name not in names]
            if missing:
                raise UserError(
                    f"column {missing[0]!r} is missing", where=str(file), allowed=", ".join(names)
                )
            rows = table.read(columns=list(wanted)).to_pylist()
    except (arrow.ArrowException, OSError) as error:
        what = f"not a readable parquet file ({one_line(str(error), 200)})"
        raise UserError(what, where=str(file)) from None
    unique = Unique("PMID")
    for number, row in enumerate(rows):
        where = f"{file} [row {number}]"
        pmid = str(row["pubid"])
        unique.check(pmid, where)
        context = object_of(row["context"], "context", where)
        yield (
            pmid,
            where,
            {
                "QUESTION": row["question"],
                "CONTEXTS": context.get("contexts"),
                "LABELS": context.get("labels") or [],
                "LONG_ANSWER": row["long_answer"],
                "final_decision": row["final_decision"],
            },
        )


def _question(pmid: str, row: Mapping[str, Any], where: str) -> Question:
    contexts = _strings(row, "CONTEXTS", where)
    if not contexts:
        raise UserError("field 'CONTEXTS' is empty", where=where)
    answer = text_of(row, "final_decision", where)
    if answer not in CHOICES:
        raise UserError(f"final_decision {answer!r}", where=where, allowed=", ".join(CHOICES))
    return Question(
        id=pmid,
        question=text_of(row, "QUESTION", where),
        choices=CHOICES,
        answer=answer,
        contexts=contexts,
        context_labels=_strings(row, "LABELS", where),
        long_answer=text_of(row, "LONG_ANSWER", where),
        ids={"pmid": pmid},
    )


def _strings(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = list_of(row, name, where)
    if not all(isinstance(value, str) for value in values):
        raise UserError(f"field {name!r}: a list of strings is expected", where=where)
    return tuple(values)


def test_questions(root: Path, *, keep_long_answer: bool = False) -> list[Question]:  # noqa: PT028
    """The 500 official test items in the official order, long answers emptied.

    `keep_long_answer` is for the reasoning-free diagnostic only. Raises UserError when the local
    copy lacks any of the 500.
    """
    place = find_pubmedqa(root)
    items = _pick(read_pubmedqa(place), official_split().test, "official test items", place)
    return items if keep_long_answer else [replace(item, long_answer="") for item in items]


def fold_questions(root: Path, fold: int) -> tuple[list[Question], list[Question]]:
    """(450 training items, 50 dev items) of a cross-validation fold; no test item is in either."""
    folds = official_split().folds
    if not 0 <= fold < len(folds):
        raise UserError(f"fold {fold}", allowed=f"0 to {len(folds) - 1}")
    place = find_pubmedqa(root)
    found = read_pubmedqa(place)
    others = [pmid for number, pmids in enumerate(folds) if number != fold for pmid in pmids]
    return (
        _pick(found, others, f"training items of fold {fold}", place),
        _pick(found, folds[fold], f"dev items of fold {fold}", place),
    )


def _pick(
    found: Mapping[str, Question], pmids: tuple[str, ...] | list[str], what: str, place: Path
) -> list[Question]:
    missing = [pmid for pmid in pmids if pmid not in found]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(pmids)} {what} are missing (first: PMID {missing[0]})",
            where=str(place),
            allowed="the complete ori_pqal.json or pqa_labeled parquet",
        )
    return [found[pmid] for pmid in pmids]
