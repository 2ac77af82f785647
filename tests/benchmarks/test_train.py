"""The training benchmark's harness: what is asked, what is kept, what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import measure
import pytest
import train_report
from measure import Measured
from train_systems import HERE, SYSTEMS

import train


def row(name: str, repeat: int, seconds: float, **more: Any) -> dict[str, Any]:
    found = {
        "system": name, "repeat": repeat, "seconds": [seconds] * 2, "losses": [2.0, 1.0, 1.0],
        "tokens_per_step": 100, "loss_tokens_per_step": 99, "peak_mb": 500.0,
        "versions": {"torch": "2.0"},
    }  # fmt: skip
    return {**found, **more}


def test_every_system_has_its_files() -> None:
    for system in SYSTEMS.values():
        assert (HERE / system.script).is_file()
        if system.environment:
            lines = (HERE / f"requirements-{system.environment}.txt").read_text().splitlines()
            assert all("==" in line for line in lines)
            assert sum(line.startswith("torch==") for line in lines) == 1


def test_unknown_system_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--systems", "ours-half"])
    assert "'ours-half' is not one of ours-full" in capsys.readouterr().err


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work.json"
    work.write_text(json.dumps({"rows": [[1]], "model": "m", "device": "cpu"}))
    asked: list[str] = []
    monkeypatch.setattr(train, "make_work", lambda args: work)
    monkeypatch.setattr(train, "python_of", lambda system, cache: "python")
    fails = [True]

    def run(command: list[str], env: dict[str, str], log: Path) -> Measured:
        asked.append(log.stem)
        if fails and "trl" in log.stem:
            fails.pop()
            raise measure.CommandFailed("gone")
        result = row("", 0, 1.0)
        del result["system"], result["repeat"]
        Path(command[3]).write_text(json.dumps(result))
        return Measured(3.0, 10.0, 11.0)

    monkeypatch.setattr(train, "run", run)
    monkeypatch.setattr(train, "write_report", lambda folder: None)
    command = ["--systems", "ours-full,trl-full", "--repeats", "2", "--cache", str(tmp_path),
               "--results", str(tmp_path / "results")]  # fmt: skip
    assert train.main(command) == 1
    assert asked == ["train-ours-full", "train-trl-full", "train-trl-full", "train-ours-full"]
    assert train.main(command) == 0
    assert asked[4:] == ["train-trl-full"]
    (file,) = (tmp_path / "results").glob("*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted((x["system"], x["repeat"]) for x in lines[1:]) == [
        ("ours-full", 1), ("ours-full", 2), ("trl-full", 1), ("trl-full", 2),
    ]  # fmt: skip


def test_the_report_tells_goals_and_losses() -> None:
    about = {
        "work": {"model": "m", "device": "cpu", "rows_per_step": 2, "warmup": 1, "rank": 4},
        "machine": {"processor": "p", "cores": 2, "memory_gb": 1, "system": "s", "python": "3"},
        "command": "c",
    }
    mine = {"matmul": [1e6, 1e6], "flops": 3500.0, "weights": 500}
    runs = []
    for repeat, ours in enumerate((0.4, 0.5, 0.6), 1):
        runs.append(row("ours-full", repeat, ours, **mine))
        runs.append(row("trl-full", repeat, ours * 9, losses=[2.0, 1.1, 1.0]))
        runs.append(row("trl-bf16-full", repeat, ours * 4))
    text = train_report.section(about, runs)
    assert "| 8 times TRL, default | 9.00 | yes |" in text
    assert "| 5 times TRL, bf16 | 4.00 | **no** |" in text
    assert "| 65% of the matmul rate (6 N) | 60.0% | **no** |" in text
    assert "200 (167-250)" in text
    assert "losses of trl-full and ours **differ**: at most 0.1000 apart" in text
    assert "losses of trl-bf16-full and ours agree" in text
