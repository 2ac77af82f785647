"""What an evaluation folder holds already, and how much of it may be kept.

`run.json` beside predictions.jsonl says what the predictions belong to. Those of another key are
discarded with a message, or refused where the folder is the user's own (`refuse_other`); of the
same key, whole lines that answer the questions in order are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.evaluate.refusals import told
from medexpert.records import Prediction, Question, UserError, from_mapping, to_json

PREDICTIONS = "predictions.jsonl"
HEADER = "run.json"
Progress = Callable[[str], None]
_ELSEWHERE = "choose another --out, or remove this folder"
_CALLED = {"n": "questions", "task_version": "task version"}
_DIGESTS = {
    "split_digest": "other texts of the questions",
    "key": "other weights, dtype, shown examples or version of the strategy",
}
"""Values that say nothing to a reader, and what it means when they alone differ."""


def read_predictions(folder: Path) -> list[Prediction]:
    """Predictions of a finished evaluation. Raises UserError when a line is bad."""
    path = folder / PREDICTIONS
    if not path.is_file():
        raise UserError("no predictions here", where=str(path))
    rows, fault = _read_lines(path)
    if fault:
        raise UserError(fault, where=f"{path}:{len(rows) + 1}")
    return rows


def require_finished(folder: Path) -> None:
    """Raises UserError when `folder` is no finished evaluation: is it one below, or interrupted?"""
    if not (folder / manifest.MANIFEST).is_file():
        for depth in ("*", "*/*", "*/*/*"):
            below = sorted(path.parent for path in folder.glob(f"{depth}/result.json"))
            if below:
                raise UserError(
                    "no evaluation itself: it holds the folders of "
                    f"{len(below)} evaluation{'s' if len(below) > 1 else ''}",
                    where=str(folder), nearest=str(below[0]),
                )  # fmt: skip
        if (folder / HEADER).is_file() and (folder / PREDICTIONS).is_file():
            header = manifest.read_json(folder / HEADER)
            total = header.get("n", "?") if isinstance(header, dict) else "?"
            raise UserError(
                f"not a finished folder: {len(_read_lines(folder / PREDICTIONS)[0])} of {total} "
                "questions are answered: run the same command again",
                where=str(folder),
            )
    manifest.verify(folder)


def require_alike(
    names: Sequence[str], one: Mapping[str, Any], folder: Path, other: Mapping[str, Any],
    beside: Path, *, allowed: str = "",
) -> None:  # fmt: skip
    """Raises UserError for the first of `names` in which two evaluations differ: that in `folder`
    and the one it is to be taken together with."""
    for name in names:
        if one.get(name) != other.get(name):
            raise UserError(
                f"{name} is {one.get(name)!r}, and {other.get(name)!r} in {beside}",
                where=str(folder), allowed=allowed,
            )  # fmt: skip


def refuse_other(out: Path, header: Mapping[str, Any]) -> None:
    """Raises UserError when `out` holds an evaluation that is not this one, and tells what differs.

    `header` may hold only what is known so far: names that it lacks are not compared.
    """
    if not (out / HEADER).is_file():
        if (out / PREDICTIONS).is_file() or (out / manifest.MANIFEST).is_file():
            raise UserError(f"holds other work, without {HEADER}; it is kept: {_ELSEWHERE}",
                            where=str(out))  # fmt: skip
        return
    if not (out / PREDICTIONS).is_file() or not (out / PREDICTIONS).stat().st_size:
        return
    old = manifest.read_json(out / HEADER)
    old = old if isinstance(old, dict) else {}
    different = [name for name in header if old.get(name) != header[name]]
    if not different:
        return
    told = [
        f"{_CALLED.get(name, name)} {_shown(old.get(name))} there, {_shown(header[name])} now"
        for name in different
        if name not in _DIGESTS
    ]
    why = "; ".join(told) or _DIGESTS[next(name for name in _DIGESTS if name in different)]
    done = "a finished" if (out / manifest.MANIFEST).is_file() else "an interrupted"
    raise UserError(f"holds {done} evaluation of other settings ({why}); it is kept: {_ELSEWHERE}",
                    where=str(out))  # fmt: skip


def _shown(value: Any) -> Any:
    return "none" if value in ("", None) else value


def resume(
    out: Path, header: Mapping[str, Any], questions: Sequence[Question], progress: Progress
) -> list[Prediction]:
    """Predictions already on disk that belong to `header`; prepares the folder for the rest."""
    with manifest.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        # A manifest of other work must not vouch for files that are about to change.
        (out / manifest.MANIFEST).unlink(missing_ok=True)
    path = out / PREDICTIONS
    kept: list[Prediction] = []
    old = manifest.read_json(out / HEADER) if (out / HEADER).is_file() else {}
    if path.is_file():
        different = [name for name in header if old.get(name) != header[name]]
        if different:
            progress(f"{path}: made for another {different[0]}; discarded, starting over")
        else:
            kept = _matching(path, questions, progress)
    cost = {name: old[name] for name in ("seconds", "usage") if kept and name in old}
    # The header last: a kill between the two must not leave it vouching for what it discards.
    manifest.write_text(path, "".join(to_json(row) + "\n" for row in kept))
    manifest.write_json(out / HEADER, {**header, **cost})
    if kept:
        refused = told(sum(bool(row.refused) for row in kept))
        many = f"{len(kept)} of {len(questions)} questions answered already"
        progress(f"{path}: {many}{refused}, going on")
    return kept


def _matching(path: Path, questions: Sequence[Question], progress: Progress) -> list[Prediction]:
    """The longest run of whole lines that answers the first questions in order."""
    rows, fault = _read_lines(path)
    kept: list[Prediction] = []
    for row, question in zip(rows, questions, strict=False):
        if (row.id, row.answer) != (question.id, question.answer):
            fault = fault or f"expected question {question.id}, found {row.id}"
            break
        kept.append(row)
    if fault:
        progress(f"{path}:{len(kept) + 1}: {fault}; asked again from here")
    return kept


def _read_lines(path: Path) -> tuple[list[Prediction], str]:
    """Whole, valid lines from the start of the file, and what ended them ('' = the file's end)."""
    rows: list[Prediction] = []
    for number, raw in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not raw.endswith(b"\n"):
            return rows, "a torn last line"
        try:
            rows.append(from_mapping(Prediction, json.loads(raw), where=f"{path}:{number}"))
        except (ValueError, UserError) as error:
            return rows, f"not a prediction ({error})"
    return rows, ""
