"""Data built without quarantine: refused, or allowed and stamped on all that follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medexpert import manifest
from medexpert.__main__ import main
from medexpert.evaluate.run import leaks

OFF = ["--set", "data.quarantine=[]", "--set", "knowledge.enabled=false",
       "--set", "instruct.enabled=false"]  # fmt: skip


def test_refused_then_allowed_and_stamped(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(recipe())
    root = recipe().with_suffix("")
    assert main(["data", path, *OFF]) == 0
    assert "WARNING: no quarantine" in capsys.readouterr().err
    assert main(["train", "adapt", path, *OFF]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "built without quarantine" in told
    assert "--allow-leaks" in told
    assert main(["run", path, "--allow-leaks", *OFF]) == 0
    lineage = manifest.read_json(root / "adapt" / "model" / "medexpert.json")
    assert (lineage["leaks"], lineage["quarantine"]) == (True, [])
    stamped = manifest.read_json(root / "evaluate" / "adapt" / "direct" / "result.json")
    assert stamped["leaks"] is True
    base = manifest.read_json(root / "evaluate" / "base" / "direct" / "result.json")
    assert base["leaks"] is False
    for name in ("report.md", "report.html"):
        assert "Leaks were allowed" in (root / "report" / name).read_text("utf-8")


@pytest.mark.parametrize(
    ("lineage", "task", "leaky"),
    [
        ({}, "pubmedqa", False),
        ({"quarantine": ["pubmedqa"], "leaks": False}, "pubmedqa", False),
        ({"quarantine": ["mmlu-medical"], "leaks": False}, "pubmedqa", True),
        ({"quarantine": [], "leaks": True}, "trialgen", True),
        ({"quarantine": ["pubmedqa"], "leaks": False}, "trialgen", False),
        ({"quarantine": ["pubmedqa"], "leaks": False}, "file:q.jsonl", True),
        ({"quarantine": ["file:/a/q.jsonl"], "leaks": False}, "file:q.jsonl", False),
        ({}, "file:q.jsonl", False),
    ],
)
def test_a_result_is_stamped_where_its_benchmark_was_not_kept_out(
    lineage: dict[str, object], task: str, leaky: bool
) -> None:
    assert leaks(lineage, task) is leaky
