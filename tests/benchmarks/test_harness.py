"""Measuring, reading a tool's output, and the report."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from measure import CommandFailed, run
from peers import OURS, PEERS, outcome_of
from report import spread, write_report

# By its path: `data` is also a folder of these tests.
_SPEC = importlib.util.spec_from_file_location(
    "data_benchmark", Path(__file__).resolve().parents[2] / "benchmarks" / "data.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
data = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(data)


def test_a_command_is_measured_with_its_children(tmp_path: Path) -> None:
    child = "import time; held = bytearray(60_000_000); time.sleep(0.8)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    found = run([sys.executable, "-c", code], {}, tmp_path / "log")
    assert 0.8 < found.seconds < 30
    assert 60 < found.pss_mb < 200
    assert found.rss_mb >= found.pss_mb


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        run([sys.executable, "-c", "raise SystemExit('no such thing')"], {}, tmp_path / "log")


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def test_outcomes_are_read(tmp_path: Path) -> None:
    write(tmp_path / "knowledge.jsonl", [{"id": "a"}])
    write(tmp_path / "drops.jsonl", [
        {"id": "b", "reason": "near_duplicate"}, {"id": "c", "reason": "duplicate"},
        {"id": "d", "reason": "quarantine_file:x"}, {"id": "e", "reason": "too_short"},
    ])  # fmt: skip
    found = outcome_of(PEERS[OURS], tmp_path)
    assert (found.kept, found.leaked, found.filtered) == ({"a"}, {"d"}, {"e"})
    write(tmp_path / "kept" / "0.jsonl", [{"id": "x"}])
    write(tmp_path / "leaked" / "0.jsonl", [{"id": "y"}])
    found = outcome_of(PEERS["datatrove-tuned"], tmp_path)
    assert (found.kept, found.leaked) == ({"x"}, {"y"})
    (tmp_path / "leaked.json").write_text('["z"]')
    assert outcome_of(PEERS["daft"], tmp_path).leaked == {"z"}


def scores(recall: float, doses: int) -> dict[str, Any]:
    return {
        "recall": recall, "precision": 1.0, "near_pairs": 10, "near_removed": 9,
        "exact_copies": 4, "exact_found": 4, "dose_pairs": 2, "dose_errors": doses,
        "contexts": 1, "contexts_found": 1, "questions": 1, "questions_found": 0,
        "leaks_not_planted": 0, "filtered": 0,
        "by_similarity": {"0.8-1": {"pairs": 10, "removed": 9}},
    }  # fmt: skip


def about(documents: int) -> dict[str, Any]:
    machine = {"processor": "P", "cores": 2, "memory_gb": 8, "system": "L", "python": "3"}
    return {"documents": documents, "bytes": 10**6, "workers": 2, "machine": machine,
            "command": "python benchmarks/data.py", "language": "en"}  # fmt: skip


def row(peer: str, seconds: float, told: dict[str, Any]) -> dict[str, Any]:
    return {"repeat": 1, "peer": peer, "seconds": seconds, "pss_mb": 100.0, "rss_mb": 150.0,
            "scores": told}  # fmt: skip


def test_the_report_says_what_is_met(tmp_path: Path) -> None:
    runs = [row(OURS, 2.0, scores(0.9, 0)), row("daft", 3.0, scores(1.0, 2)),
            row("datatrove-shipped", 30.0, scores(1.0, 2))]  # fmt: skip
    facts = {**about(1000), "versions": {r["peer"]: {"numpy": "1"} for r in runs}, "runs": runs}
    (tmp_path / "compare-en.json").write_text(json.dumps(facts))
    sizes = {str(n): {**about(n), "runs": [row(OURS, s, {})]} for n, s in ((100, 1.0), (1000, 4.0))}
    start = {**about(100), "runs": [row(OURS, 0.6, {})]}
    (tmp_path / "scale.json").write_text(json.dumps({"sizes": sizes, "start": start}))
    write_report(tmp_path)
    text = (tmp_path / "README.md").read_text("utf-8")
    assert "datatrove as shipped | 15.00 times as fast | yes |" in text
    assert "daft, full pipeline | 1.50 times as fast | yes |" in text
    assert "English near-duplicates: recall at least 0.98 | 0.9000 | **no** |" in text
    assert "Chinese near-duplicates: recall at least 0.98 | not measured | - |" in text
    assert "largest / least = 2.50 | **no** |" in text
    assert "without the 0.6 s of starting and ending | largest / least = 1.18 | yes |" in text


def test_spread_is_median_least_and_largest() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"
    assert spread([1.0]) == "1.0 (one run)"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--documents", "150"], "a multiple of 100"),
        (["--documents", "100", "--peers", "dask"], "'dask' is not one of"),
        (["--repeats", "0", "--report"], "at least 1"),
        ([], "nothing to do"),
    ],
)
def test_wrong_arguments(
    words: list[str], what: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit):
        data.main([*words, "--results", str(tmp_path)])
    assert what in capsys.readouterr().err


def test_ours_alone_at_a_tiny_size(tmp_path: Path) -> None:
    folders = ["--cache", str(tmp_path / "cache"), "--results", str(tmp_path / "out")]
    assert data.main(["--documents", "200", "--repeats", "1", "--workers", "1", "--peers", OURS,
                      *folders]) == 0  # fmt: skip
    held = json.loads((tmp_path / "out" / "compare-en.json").read_text("utf-8"))
    assert held["command"] == (
        "python benchmarks/data.py --documents 200 --repeats 1 --workers 1 --peers ours"
    )
    (run,) = held["runs"]
    found = run["scores"]
    assert found["precision"] == 1.0
    assert found["recall"] >= 0.9
    assert found["exact_found"] == found["exact_copies"]
    assert found["dose_errors"] == 0
    assert (found["contexts_found"], found["questions_found"]) == (2, 2)
    assert found["kept"] < 200
