from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medexpert import manifest
from medexpert.evaluate import grid, groups
from medexpert.evaluate.resume import read_predictions
from medexpert.evaluate.seeds import correctness
from medexpert.prompt.needs import Needs
from medexpert.records import UserError

MODEL = ("float32", "weights")


def settings(tmp_path: Path, **changes: Any) -> grid.Settings:
    return grid.Settings(Path(), tmp_path / "out", **changes)


def test_every_cell_has_a_folder_and_a_key_of_its_own(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    tasks = [fakes.task(6, name="one"), fakes.task(8, name="file:b/c.jsonl")]
    cells = grid.plan(tasks, ["direct", "voc"], [0, 7], settings(tmp_path))
    assert len(cells) == 8
    assert len({cell.folder for cell in cells}) == len({cell.key(MODEL) for cell in cells}) == 8
    assert cells[0].folder == tmp_path / "out" / "one" / "direct" / "seed-0"
    assert cells[-1].folder == tmp_path / "out" / "file+b%2Fc.jsonl" / "voc" / "seed-7"
    assert cells[0].key(MODEL) != cells[0].key(("bfloat16", "weights"))


def test_what_no_seed_changes_is_asked_once(fakes: SimpleNamespace, tmp_path: Path) -> None:
    names = ["direct", "direct:shots=3", "cot", "voc", "voc:k=3", "voc-shuffled", "voc-filler",
             "lm-eval", "self_consistency", "medprompt"]  # fmt: skip
    cells = grid.plan([fakes.task()], names, [4, 5], settings(tmp_path))
    seeds = {name: [cell.seed for cell in cells if cell.strategy == name] for name in names}
    twice = {name for name in names if seeds[name] == [4, 5]}
    assert twice == {"direct:shots=3", "voc:k=3", "voc-shuffled", "self_consistency", "medprompt"}
    assert all(seeds[name] == [4] for name in names if name not in twice)


def test_mistakes_are_found_while_planning(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    task = fakes.task()
    with pytest.raises(UserError, match=r"unknown strategy 'dirct'.*did you mean 'direct'"):
        grid.plan([task], ["direct", "dirct"], [0], settings(tmp_path))
    with pytest.raises(UserError, match=r"strategy list direct, direct; allowed: .*once"):
        grid.plan([task], ["direct", "direct"], [0], settings(tmp_path))
    with pytest.raises(UserError, match="seed list is empty"):
        grid.plan([task], ["direct"], [], settings(tmp_path))
    with pytest.raises(UserError, match="unknown protocol"):
        grid.plan([task], ["direct"], [0], settings(tmp_path, protocol="nonsense"))


def test_a_failed_cell_is_told_and_the_others_go_on(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    class Broken(fakes.strategy):  # type: ignore[misc, name-defined]
        def predict(self, asked: Any, engine: Any, **other: Any) -> Any:
            yield from super().predict(asked[:3], engine, **other)
            raise ValueError("the third question broke it")

    strategies["voc"] = Broken()
    chosen = settings(tmp_path)
    cells = grid.plan([fakes.task(10)], ["voc", "direct"], [0, 1], chosen)
    lines: list[str] = []

    def do() -> list[grid.Outcome]:
        lines.clear()
        engine: Any = fakes.engine()
        return grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lines.append)

    outcomes = do()
    assert [bool(o.result) for o in outcomes] == [False, False, True, True]
    assert outcomes[0].error == "ValueError: the third question broke it"
    assert "FAILED toy voc seed 0: ValueError: the third question broke it" in lines
    assert "test_grid.py" in (cells[0].folder / "error.txt").read_text()
    table = grid.closing_table(outcomes)
    assert "failed" in table
    assert "mean of 2" in table
    grid.write_summary(outcomes, chosen.out, model="fake")
    told = json.loads((chosen.out / "summary.json").read_text())["cells"]
    assert [bool(cell["error"]) for cell in told] == [True, True, False, False]
    assert told[2]["folder"] == "toy/direct/seed-0"
    assert told[2]["result"]["per_question"]["prompt_tokens"] == 10

    strategies["voc"] = fakes.strategy(0.5)
    outcomes = do()
    assert all(o.result for o in outcomes)
    assert sum("complete, nothing to do" in line for line in lines) == 2
    assert any("3 of 10 questions answered already" in line for line in lines)
    assert not (cells[0].folder / "error.txt").exists()


def test_what_cannot_be_asked_is_told_before_a_model_and_the_rest_goes_on(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    strategies["voc"].needs = Needs(examples=2)
    chosen = settings(tmp_path)
    cells = grid.plan([fakes.task(10)], ["direct", "voc"], [0, 1], chosen)
    lines: list[str] = []
    grid.tell_faults(cells, lines.append)
    (line,) = lines  # once, whatever the seeds
    assert line.startswith("toy voc cannot be asked: question q000: 2 solved examples are to be")
    engine: Any = fakes.engine()
    outcomes = grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lines.append)
    assert [bool(o.result) for o in outcomes] == [True, True, False, False]
    assert "2 solved examples are to be shown and 0 can be" in outcomes[2].error
    assert not strategies["voc"].asked
    assert not cells[2].folder.exists()
    assert not any("FAILED" in line for line in lines)  # it was told of
    with pytest.raises(UserError, match="2 solved examples are to be shown and 0 can be"):
        grid.tell_faults(cells[2:], lines.append)


def test_interruption_ends_the_grid_and_the_bill_goes_on(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    chosen = settings(tmp_path)
    cells = grid.plan([fakes.task(10)], ["direct"], [0], chosen)
    strategies["direct"] = fakes.strategy(stop_after=4)
    engine: Any = fakes.engine()
    with pytest.raises(KeyboardInterrupt):
        grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lambda line: None)
    header = manifest.read_json(cells[0].folder / "run.json")
    assert header["usage"]["questions"] == 4
    strategies["direct"] = fakes.strategy()
    second: Any = fakes.engine()
    (outcome,) = grid.evaluate_cells(second, cells, chosen, model=MODEL, say=lambda line: None)
    assert outcome.result is not None
    usage = outcome.result["usage"]
    assert (usage["questions"], usage["calls"], usage["generated_tokens"]) == (10, 10, 20)
    assert outcome.result["per_question"]["calls"] == 1


def test_seeds_are_averaged_by_question(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    chosen = settings(tmp_path)
    cells = grid.plan([fakes.task(40)], ["direct"], [0, 1, 2], chosen)
    engine: Any = fakes.engine()
    outcomes = grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lambda line: None)
    rows = grid.rows_of(outcomes)
    table = correctness([read_predictions(cell.folder) for cell in cells])
    assert len(rows) == 4
    assert rows[3][3:6] == [
        "mean of 3", "40", f"{100 * table.mean():.1f} ± {100 * table.mean(1).std(ddof=1):.1f}",
    ]  # fmt: skip


def test_a_whole_group_has_a_row_of_its_own(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for module in (grid, groups):
        monkeypatch.setattr(module, "GROUPS", {"both": ("one", "two"), "more": ("one", "three")})
    chosen = settings(tmp_path)
    tasks = [fakes.task(10, name="one"), fakes.task(40, name="two")]
    cells = grid.plan(tasks, ["direct"], [0], chosen)
    engine: Any = fakes.engine()
    outcomes = grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lambda line: None)
    results = [o.result for o in outcomes if o.result]
    micro = sum(r["correct"] for r in results) / 50
    macro = sum(r["accuracy"] for r in results) / 2
    rows = grid.rows_of(outcomes)
    assert [row[0] for row in rows] == ["one", "two", "both"]
    assert rows[2][4:6] == ["50", f"{100 * micro:.1f}, macro {100 * macro:.1f}"]


def test_what_a_question_of_a_group_costs_is_a_mean_over_questions() -> None:
    def result(questions: int, tokens: int) -> dict[str, Any]:
        counts = dict.fromkeys(("calls", "prompt_tokens", "prefilled_tokens"), tokens * questions)
        usage = {"questions": questions, **counts, "generated_tokens": 0}
        return {"usage": usage, "seconds": 2.0 * questions, "per_question": {"calls": tokens}}

    assert grid.costs([result(10, 100), result(90, 200)]) == ["190.0", "190", "190", "0", "2"]


def test_the_table_tells_a_dev_split_and_a_limit(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    chosen = settings(tmp_path, split="dev-0", limit=5)
    cells = grid.plan([fakes.task(10)], ["direct"], [0], chosen)
    engine: Any = fakes.engine()
    outcomes = grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lambda line: None)
    told = "Of every task: split dev-0, at most 5 questions, smallest SHA-256 of the id."
    assert grid.closing_table(outcomes).endswith(told)
    grid.write_summary(outcomes, chosen.out, model="fake", limit=5)
    assert told in (chosen.out / "summary.md").read_text()
    summary = json.loads((chosen.out / "summary.json").read_text())
    assert (summary["cells"][0]["result"]["split"], summary["limit"]) == ("dev-0", 5)
    whole = settings(tmp_path / "whole")
    cells = grid.plan([fakes.task(10)], ["direct"], [0], whole)
    outcomes = grid.evaluate_cells(engine, cells, whole, model=MODEL, say=lambda line: None)
    assert grid.closing_table(outcomes).endswith(grid.UNDER)


def test_single_seed_of_the_old_flags_lies_in_out_itself(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path,
    evaluate: Callable[..., Any],
) -> None:  # fmt: skip
    (cell,) = grid.plan([fakes.task()], ["direct"], [0], settings(tmp_path), flat=True)
    assert cell.folder == tmp_path / "out"


def test_a_cell_does_not_profit_from_the_one_before(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    class Keeping(fakes.engine):  # type: ignore[misc, name-defined]
        forgotten = 0

        def forget(self) -> None:
            self.forgotten += 1

    chosen = settings(tmp_path)
    cells = grid.plan([fakes.task(5)], ["direct"], [0, 1], chosen)
    engine: Any = Keeping()
    grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lambda line: None)
    assert engine.forgotten == 2
