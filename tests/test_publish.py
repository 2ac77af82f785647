"""What of an evaluation may be shown: outcomes without texts (the whole folder: test_run.py)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medexpert.evaluate.resume import read_predictions
from medexpert.publish import _predictions
from medexpert.records import NO_ANSWER, Prediction, to_json

ROWS = (
    Prediction("q0", "yes", "yes", {"yes": 0.9, "no": 0.1}, {"rationales": "secret"}),
    Prediction("q1", NO_ANSWER, "yes", {}, {"parse": ["secret"]}),
    Prediction("q2", NO_ANSWER, "yes", {}, {"refused": "it does not fit: 'secret'"}),
)


@pytest.mark.parametrize("labels", ["choices", "letters"])
def test_refused_is_not_unparsed_where_traces_are_left_out(tmp_path: Path, labels: str) -> None:
    folder = tmp_path / "run" / "evaluate"
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text("".join(to_json(row) + "\n" for row in ROWS))
    (folder / "result.json").write_text(json.dumps({"labels": labels}))
    made = _predictions(folder / "predictions.jsonl", tmp_path / "out", tmp_path / "run")
    assert "secret" not in made.read_text()
    if labels == "choices":
        rows = read_predictions(made.parent)
        told = [(row.correct, row.unparsed, bool(row.refused)) for row in rows]
    else:
        values = map(json.loads, made.read_text().splitlines())
        told = [(row["correct"], row["unparsed"], row["refused"]) for row in values]
    assert told == [(True, False, False), (False, True, False), (False, False, True)]
