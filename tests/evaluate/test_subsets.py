from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import fisher_exact

from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.subsets import flagged_against_clean, item_of
from medexpert.records import UserError


def audit_json(path: Path, items: list[str], benchmark: str = "toy") -> Path:
    hits = [{"file": "f", "line": 1, "benchmark": benchmark, "item": i} for i in items]
    against = {benchmark: {"checked": True}, "other": {"checked": False, "why": "no copy"}}
    path.write_text(json.dumps({"hits": hits, "against": against}))
    return path


def test_flagged_against_clean(evaluate: Callable[..., Any], tmp_path: Path) -> None:
    evaluate(tmp_path / "e")
    rows = read_predictions(tmp_path / "e")
    right = [row.id for row in rows if row.correct]
    flagged = [*right[:12], *[row.id for row in rows if not row.correct][:2], "q999"]
    hits = audit_json(tmp_path / "hits.json", [*flagged, flagged[0]])
    found = flagged_against_clean(tmp_path / "e", hits)
    assert (found["flagged"]["n"], found["flagged"]["correct"]) == (14, 12)
    assert (found["clean"]["n"], found["clean"]["correct"]) == (26, len(right) - 12)
    assert found["flagged_not_asked"] == 1
    assert found["difference"] == pytest.approx(12 / 14 - (len(right) - 12) / 26)
    table = [[12, 2], [len(right) - 12, 26 - len(right) + 12]]
    assert found["fisher_p"] == pytest.approx(fisher_exact(table)[1])
    assert found["interval"]["low"] < found["difference"] < found["interval"]["high"]


def test_a_question_is_known_by_its_benchmarks_own_id(
    evaluate: Callable[..., Any], fakes: Any, tmp_path: Path
) -> None:
    """Readers call BioASQ's item 7 bioasq-7, the quarantine, and so an audit, 7."""
    asked = [replace(q, id=f"bioasq-{k}") for k, q in enumerate(fakes.questions(40))]
    task = replace(fakes.task(name="bioasq-yesno"), load=lambda root, split: asked)
    evaluate(tmp_path / "e", task=task)
    hits = audit_json(tmp_path / "hits.json", ["0", "7", "99"], "bioasq")
    found = flagged_against_clean(tmp_path / "e", hits)
    assert (found["benchmark"], found["flagged"]["n"], found["clean"]["n"]) == ("bioasq", 2, 38)
    assert found["flagged_not_asked"] == 1
    assert item_of("0009b2fd-7e72", {"0009b2fd-7e72"}) == "0009b2fd-7e72"


def test_nothing_flagged_is_told_without_a_difference(
    evaluate: Callable[..., Any], tmp_path: Path
) -> None:
    evaluate(tmp_path / "e")
    found = flagged_against_clean(tmp_path / "e", audit_json(tmp_path / "h.json", []))
    assert found["flagged"] == {"n": 0, "correct": 0, "accuracy": None, "interval": None}
    assert (found["clean"]["n"], found["difference"], found["fisher_p"]) == (40, None, None)


def test_an_audit_that_did_not_look_is_refused(
    evaluate: Callable[..., Any], tmp_path: Path
) -> None:
    evaluate(tmp_path / "e")
    hits = audit_json(tmp_path / "h.json", [], "pubmedqa")
    with pytest.raises(UserError, match="did not check toy; allowed: pubmedqa"):
        flagged_against_clean(tmp_path / "e", hits)
    with pytest.raises(UserError, match="did not check other"):
        flagged_against_clean(tmp_path / "e", hits, benchmark="other")
    for against in ([], ["toy"], {"toy": True}):
        hits.write_text(json.dumps({"hits": [], "against": against}))
        with pytest.raises(UserError, match="did not check toy"):
            flagged_against_clean(tmp_path / "e", hits)
    hits.write_text("[]")
    with pytest.raises(UserError, match="not the JSON of an audit"):
        flagged_against_clean(tmp_path / "e", hits)
