from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medexpert import manifest
from medexpert.evaluate.compare import Comparison
from medexpert.evaluate.report import blocks, summary, write
from medexpert.evaluate.report.charts import running_mean
from medexpert.evaluate.report.contrasts import families
from medexpert.evaluate.report.facts import read_run
from medexpert.evaluate.report.formats import duration, number, p_value, signed
from medexpert.evaluate.statistics import holm
from medexpert.records import UserError

MakeRun = Callable[..., Path]
VOID = {"meta", "br", "hr", "path", "use", "rect", "circle", "link", "img", "input"}


class Tags(HTMLParser):
    """Checks nesting and keeps every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def both(folder: Path) -> tuple[str, str]:
    markdown, page = write(folder)
    return markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def test_a_whole_run(whole: tuple[Path, str, str]) -> None:
    _, markdown, page = whole
    for title in (
        "Stage by stage", "Is the change real?", "Which answers", "Calibration",
        "What an answer costs",
        "Learning and forgetting", "Training", "Data", "Example answers", "Provenance",
    ):  # fmt: skip
        assert f"## {title}" in markdown
        assert f"<h2>{title}</h2>" in page
    assert "Missing" not in page
    assert "Not for clinical use" in markdown
    assert "Not for clinical use" in page
    assert page.count("<svg") == 6
    assert "too_short 18, exact duplicate 3, pubmedqa (13gram) 2" in page
    assert "always yes" in page
    for count in ("491\u202f520", "4\u202f321", "8\u202f765"):
        assert count in page


def test_the_page_is_one_well_formed_file_without_requests(whole: tuple[Path, str, str]) -> None:
    _, _, page = whole
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not tags.seen & {"script", "link", "img", "iframe", "object"}
    assert "http" not in page
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", page)
    for name, value in tags.attributes:
        if name in ("href", "src"):
            assert (value or "").startswith("#")
    ids = [value for name, value in tags.attributes if name == "id" and value]
    for name, value in tags.attributes:
        if name == "href":
            assert (value or "")[1:] in ids


def test_numbers_in_the_report_are_those_of_the_results(whole: tuple[Path, str, str]) -> None:
    folder, markdown, page = whole
    result = manifest.read_json(folder / "evaluate" / "adapt" / "direct" / "result.json")
    interval = result["accuracy_interval"]
    row = next(x for x in markdown.splitlines() if x.startswith("| adapt | direct | reasoning"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[3:6] == [
        "100",
        f"{100 * result['accuracy']:.1f}",
        f"{100 * interval['low']:.1f}–{100 * interval['high']:.1f}",
    ]
    assert f"{100 * result['accuracy']:.1f} %" in page


def test_text_from_outside_is_escaped(whole: tuple[Path, str, str]) -> None:
    _, markdown, page = whole
    assert "<drug" not in page
    assert "<b>because</b>" not in page
    assert "&lt;b&gt;because&lt;/b&gt;" in page
    assert "<drug" not in markdown
    assert re.search(r"Does &lt;drug \d+&gt; &amp; co\. help\?", page)


def test_trialgen_is_marked(run_folder: MakeRun, fakes: SimpleNamespace) -> None:
    folder = run_folder(task=fakes.task(100, name="trialgen", official=False))
    markdown, page = both(folder)
    for text in (markdown, page):
        assert "imaginary trials" in text
        assert "not a medical result" in text
    assert "imaginary trials: not a medical result" in summary(folder)


def test_a_partial_run_says_what_is_missing(run_folder: MakeRun) -> None:
    folder = run_folder(("base", "knowledge"))
    markdown, page = both(folder)
    for sentence in (
        "instruct: this stage has not finished",
        "evaluation of adapt with direct: not a finished folder: it has no manifest.json",
    ):
        assert sentence in page
    assert "This report is partial" in markdown
    assert "missing: adapt: this stage has not finished" in summary(folder)


def test_a_stage_that_is_switched_off_is_not_missing(tmp_path: Path) -> None:
    recipe = {"knowledge": {"enabled": False}, "adapt": {"enabled": True},
              "evaluate": {"points": ["knowledge", "adapt"], "strategies": ["direct"]}}  # fmt: skip
    manifest.write_json(tmp_path / "recipe.json", {"recipe": recipe, "hash": "h"})
    missing = " ".join(read_run(tmp_path).missing)
    assert "evaluation of adapt with direct" in missing
    assert "knowledge" not in missing


def test_a_damaged_result_is_left_out_and_named(run_folder: MakeRun) -> None:
    folder = run_folder()
    path = folder / "evaluate" / "adapt" / "voc" / "predictions.jsonl"
    path.write_text(path.read_text().replace("yes", "no", 1))
    facts = read_run(folder)
    assert facts.result("adapt", "voc") is None
    assert any("evaluation of adapt with voc" in sentence for sentence in facts.missing)


@pytest.mark.parametrize("remove", ["recipe.json", "data/manifest.json", "adapt/manifest.json"])
def test_any_part_may_be_absent(run_folder: MakeRun, remove: str) -> None:
    folder = run_folder(("base", "adapt"))
    (folder / remove).unlink()
    _, page = both(folder)
    assert "This report is partial" in page


def test_only_a_recipe(tmp_path: Path) -> None:
    manifest.write_json(tmp_path / "recipe.json", {"name": "r", "seed": 1})
    _, page = both(tmp_path)
    assert "No evaluation has finished yet" in page
    assert "no evaluation has finished yet" in summary(tmp_path)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to report: no recipe\.json"):
        write(tmp_path)
    with pytest.raises(UserError, match="no such run folder"):
        write(tmp_path / "nowhere")


def test_declared_contrasts(run_folder: MakeRun) -> None:
    folder = run_folder()
    made = families(read_run(folder))
    stages = [
        "base → knowledge", "knowledge → instruct", "base → instruct",
        "instruct → adapt", "base → adapt",
    ]  # fmt: skip
    points = ("base", "knowledge", "instruct", "adapt")
    assert [[c.name for c in family.contrasts] for family in made] == [
        stages, stages, [f"at {point}: direct → voc" for point in points],
    ]  # fmt: skip
    markdown, _ = both(folder)
    for rule, n in (
        ("direct: each stage with the point before it and with base", 5),
        ("voc: each stage with the point before it and with base", 5),
        ("voc against direct, at each point", 4),
    ):
        caption = f"Family: {rule}; declared before the results. Holm adjusts over its {n} tested"
        assert caption in markdown


def test_holm_adjusts_within_a_family(run_folder: MakeRun) -> None:
    folder = run_folder()
    rows = [line.split("|") for line in both(folder)[0].splitlines() if "base → adapt" in line]
    for family, row in zip(families(read_run(folder)), rows, strict=False):
        raw = [c.outcome.mcnemar.p for c in family.contrasts if isinstance(c.outcome, Comparison)]
        assert row[9].strip() == p_value(holm(raw)[-1]).replace("<", "&lt;")


def test_a_report_without_examples_holds_no_benchmark_text(run_folder: MakeRun) -> None:
    folder = run_folder()
    for path in write(folder, examples=False):
        text = path.read_text(encoding="utf-8")
        assert "Left out of this report" in text
        for piece in ("&lt;drug", "Abstract number", "because", "q0"):
            assert piece not in text
    assert "Abstract number" in both(folder)[0]


def test_an_evaluation_of_an_earlier_model_is_left_out(run_folder: MakeRun) -> None:
    folder = run_folder(("base", "adapt"))
    place = folder / "evaluate" / "adapt" / "direct"
    result = manifest.read_json(place / "result.json")
    result["engine"]["lineage"] = {"stage": "adapt", "steps": 60, "parent": "../base"}
    manifest.write_json(place / "result.json", result)
    files = [place / name for name in manifest.read_manifest(place)["files"]]
    manifest.write_manifest(place, key="k1", files=files, facts={})
    facts = read_run(folder)
    assert facts.result("adapt", "direct") is None
    assert "evaluation of adapt with direct: it measured an earlier model of this stage" in (
        facts.missing
    )
    result["engine"]["lineage"]["steps"] = 120
    manifest.write_json(place / "result.json", result)
    manifest.write_manifest(place, key="k1", files=files, facts={})
    assert read_run(folder).result("adapt", "direct") is not None


def test_unlike_item_sets_are_named_not_tested(
    run_folder: MakeRun, evaluate: Callable[..., Any], fakes: SimpleNamespace
) -> None:
    folder = run_folder(("base", "adapt"))
    evaluate(folder / "evaluate" / "adapt" / "voc", strategy="voc", task=fakes.task(100),
             limit=50, key="k2")  # fmt: skip
    markdown, _ = both(folder)
    assert (
        "at adapt: direct → voc not tested (voc against direct, at each point): "
        "cannot compare: 100 questions"
    ) in markdown
    assert markdown.count("| majority | always yes |") == 2


def test_the_report_does_not_change_between_writes(run_folder: MakeRun) -> None:
    folder = run_folder(("base", "adapt"))
    assert both(folder) == both(folder)


def test_a_resumed_log_counts_each_step_once(tmp_path: Path) -> None:
    (tmp_path / "knowledge").mkdir()
    (tmp_path / "knowledge" / "log.jsonl").write_text(
        '{"event":"step","step":1,"loss":3}\n{"event":"step","step":2,"loss":2}\n'
        '{"event":"resume"}\n{"event":"step","step":2,"loss":2.5}\n{"event":"st'
    )
    steps = read_run(tmp_path).logs["knowledge"]
    assert [event["loss"] for event in steps] == [3, 2.5]


def test_build_without_quarantine_is_marked(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    manifest.write_manifest(tmp_path / "data", key="k", files=[], facts={"sources": {}})
    _, page = both(tmp_path)
    assert "built without quarantine" in page


def every_block() -> Sequence[blocks.Block]:
    evil = "<x> & *y* | `z`\n"
    return (
        blocks.Text(evil), blocks.Note("warning", evil), blocks.Cards([(evil, evil, evil)]),
        blocks.Table([evil, ">" + evil], [[evil, evil]], evil),
        blocks.Chart("<svg></svg>", evil, evil),
        blocks.Code(evil), blocks.Folded(evil, [blocks.Text(evil)]),
        blocks.Case(evil, True, [(evil, evil)], [blocks.Text(evil)]),
    )  # fmt: skip


@pytest.mark.parametrize("block", every_block(), ids=lambda b: type(b).__name__)
def test_every_block_escapes(block: blocks.Block) -> None:
    assert "<x>" not in blocks.to_html(block)
    text = blocks.to_markdown(block)
    if not isinstance(block, blocks.Code):
        assert "<x>" not in text
    if isinstance(block, blocks.Table):
        assert len(text.splitlines()) == 5


def test_number_formats() -> None:
    assert [number(v) for v in (1234567, 0.000123456, None, True, "a", {"b": 1})] == [
        "1\u202f234\u202f567", "0.0001235", "–", "true", "a", '{"b": 1}',
    ]  # fmt: skip
    assert [duration(v) for v in (5, 600, 9000, None)] == ["5 s", "10.0 min", "2.5 h", "–"]
    assert (p_value(0.00001), p_value(0.04)) == ("< .0001", "0.0400")
    assert (signed(0.05), signed(-0.05)) == ("+5.0", "−5.0")
    assert running_mean([2.0, 4.0, 6.0], 2) == [2, 3, 5]


def test_one_answer_to_everything_is_said_at_the_top() -> None:
    from medexpert.evaluate.report.facts import Result
    from medexpert.evaluate.report.scores import _constant

    def result(histogram: dict[str, int]) -> Result:
        return Result("adapt", "direct", Path(), {"histogram": histogram, "n": 500})

    assert "answered “yes” to every question" in _constant(result({"yes": 500, "no": 0}))
    assert _constant(result({"yes": 499, "no": 1})) == ""
