"""Whole builds on invented data: what leaves is counted, what stays is where it should be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from medexpert import manifest
from medexpert.data.build import build, source_digests
from medexpert.data.card import unaccounted
from medexpert.data.readers.pubmedqa import official_split
from medexpert.recipe import Run
from medexpert.records import Document, Example, UserError, read_jsonl, to_json

SPLIT = official_split()
DATA = ("knowledge.jsonl", "heldout.jsonl", "drops.jsonl")


def abstract(i: int, **change: Any) -> dict[str, Any]:
    return {"id": f"doc-{i}", "title": f"Trial {i}", "text": prose(i, 2), "pmid": "", **change}


def made(recipe: Run, folder: Path, lines: list[str] | None = None) -> dict[str, Any]:
    return build(recipe, folder, key="k", progress=(lines if lines is not None else []).append)


@pytest.fixture
def knowledge(tmp_path: Path, write_rows: Callable[..., Path]) -> list[dict[str, Any]]:
    """A medical source with one of each fault, and a general one."""
    rows = [abstract(i) for i in range(40)]
    rows += [
        abstract(100, pmid=SPLIT.test[5]), abstract(101, pmid=SPLIT.folds[2][0]),
        abstract(102, id=SPLIT.test[9]),
        abstract(3, id="copy", title="Trial 3"), abstract(104, title="", text="Short."),
        abstract(105, text=""), abstract(106, text=prose(900, 30)),
    ]  # fmt: skip
    medical = write_rows("medical.jsonl.gz", rows)
    general = write_rows("general.jsonl", [abstract(i, id=f"g-{i}") for i in range(200, 260)])
    return [
        {"source": "pubmed-abstracts", "path": str(medical), "heldout": 5},
        {"source": "general-en", "path": str(general), "role": "replay", "heldout": 2},
    ]


def settings(knowledge: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"knowledge": knowledge, "max_chars": 2000, "replay_share": 0.2, **more}


def source_of(facts: dict[str, Any], name: str, stage: str = "knowledge") -> dict[str, Any]:
    found: dict[str, Any] = facts["stages"][stage]["sources"][name]
    return found


def test_flow_is_counted(tmp_path: Path, knowledge: Any, make_recipe: Callable[..., Run]) -> None:
    lines: list[str] = []
    facts = made(make_recipe(**settings(knowledge)), tmp_path / "out", lines)
    entry = source_of(facts, "pubmed-abstracts")
    assert entry["read"] == 47
    assert entry["dropped"] == {"too_short": 1, "empty": 1}
    assert entry["quarantined"] == {"pubmedqa": {"id": 3}}
    assert entry["duplicates"] == {"exact": 1, "near": 0}
    for each in facts["stages"]["knowledge"]["sources"].values():
        assert unaccounted(each) == 0
        assert sum(each["licences"].values()) == each["heldout"] + each["kept"]
    assert source_of(facts, "general-en")["dropped"]["replay_surplus"] > 0
    assert facts["quarantined"] is True
    assert facts["quarantine"]["pubmedqa"]["listed"] == 1000
    assert facts["quarantine"]["pubmedqa"]["text"] is False
    documents = list(read_jsonl(tmp_path / "out" / "knowledge.jsonl", Document))
    held = list(read_jsonl(tmp_path / "out" / "heldout.jsonl", Document))
    assert Counter(d.source for d in held)["general-en"] == 2
    assert not {d.id for d in held} & {d.id for d in documents}
    assert all(len(d.text) <= 2000 for d in documents)
    drops = [json.loads(x) for x in (tmp_path / "out" / "drops.jsonl").read_text().splitlines()]
    hits = [drop for drop in drops if drop["reason"] == "quarantine_pubmedqa"]
    assert {hit["id"] for hit in hits} == {"doc-100", "doc-101", SPLIT.test[9]}
    assert {(hit["kind"], hit["score"]) for hit in hits} == {("id", 1.0)}
    copies = [drop for drop in drops if drop["reason"] == "duplicate"]
    assert [drop["of_source"] for drop in copies] == ["pubmed-abstracts"]
    assert {copies[0]["id"], copies[0]["of"]} == {"copy", "doc-3"}
    size = Counter({s: 0 for s in ("pubmed-abstracts", "general-en")})
    for d in documents:
        size[d.source] += len(d.text)
    assert size["general-en"] / size.total() == pytest.approx(0.2, abs=0.03)
    assert facts["stages"]["knowledge"]["replay"]["target"] == 0.2
    assert facts["stages"]["knowledge"]["characters"] == size.total()


def test_manifest_vouches_for_everything(
    tmp_path: Path, knowledge: Any, make_recipe: Callable[..., Run]
) -> None:
    recipe = make_recipe(**settings(knowledge))
    made(recipe, tmp_path / "out")
    assert manifest.is_complete(tmp_path / "out", "k")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "knowledge.jsonl", "heldout.jsonl", "drops.jsonl", "card.md", "card.html", "manifest.json",
    }  # fmt: skip

    def data(name: str) -> bytes:
        return b"".join((tmp_path / name / file).read_bytes() for file in DATA)

    first = data("out")
    made(recipe, tmp_path / "again")
    assert data("again") == first
    made(make_recipe(seed=8, **settings(knowledge)), tmp_path / "other")
    assert data("other") != first


def test_a_bad_row_is_counted_and_many_stop_the_build(
    tmp_path: Path, knowledge: Any, make_recipe: Callable[..., Run]
) -> None:
    recipe = make_recipe(**settings(knowledge))
    with open(knowledge[1]["path"], "a") as handle:
        handle.write("{broken\n")
    facts = made(recipe, tmp_path / "out")
    entry = source_of(facts, "general-en")
    assert entry["faults"] == 1
    assert entry["first_faults"][0]["where"].endswith("general.jsonl:61")
    assert "not valid JSON" in entry["first_faults"][0]["what"]
    with open(knowledge[1]["path"], "a") as handle:
        handle.write("{broken\n" * 5)
    with pytest.raises(UserError, match=r"general\.jsonl: 6 of 66 rows are bad.*at most 5%"):
        made(recipe.model_copy(update={"seed": 3}), tmp_path / "out")
    assert not manifest.is_complete(tmp_path / "out", "k")


def test_held_out_documents_do_not_depend_on_file_order(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> None:
    def held(name: str, rows: list[dict[str, Any]]) -> set[str]:
        path = write_rows(f"{name}.jsonl", rows)
        source = {"source": "general-en", "path": str(path), "heldout": 6}
        made(make_recipe(knowledge=[source]), tmp_path / name)
        return {d.id for d in read_jsonl(tmp_path / name / "heldout.jsonl", Document)}

    rows = [abstract(i) for i in range(30)]
    assert held("forward", rows) == held("backward", rows[::-1])


def test_parts_of_one_document_stay_together(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> None:
    rows = [abstract(i, text=prose(1000 * i, 40 + i)) for i in range(12)]
    path = write_rows("long.jsonl", rows)
    source = {"source": "general-en", "path": str(path), "heldout": 4}
    recipe = make_recipe(knowledge=[source], max_chars=3000)
    facts = source_of(made(recipe, tmp_path / "out"), "general-en")
    assert (facts["heldout"], facts["kept"]) == (4, 8)
    assert facts["records"] > 8
    names = [
        {d.id.split("#")[0] for d in read_jsonl(tmp_path / "out" / f"{n}.jsonl", Document)}
        for n in ("heldout", "knowledge")
    ]
    assert not names[0] & names[1]


def test_build_without_quarantine_is_marked(
    tmp_path: Path, knowledge: Any, make_recipe: Callable[..., Run]
) -> None:
    lines: list[str] = []
    facts = made(make_recipe(**settings(knowledge, quarantine=[])), tmp_path / "out", lines)
    assert facts["quarantined"] is False
    assert facts["quarantine"] == {}
    assert any("WARNING: no quarantine" in line for line in lines)
    assert "without quarantine" in (tmp_path / "out" / "card.md").read_text()
    ids = {d.ids.get("pmid") for d in read_jsonl(tmp_path / "out" / "knowledge.jsonl", Document)}
    assert SPLIT.test[5] in ids


def test_too_little_replay_is_told(
    tmp_path: Path, knowledge: Any, make_recipe: Callable[..., Run]
) -> None:
    lines: list[str] = []
    recipe = make_recipe(**settings(knowledge, replay_share=0.9))
    facts = made(recipe, tmp_path / "out", lines)
    assert facts["stages"]["knowledge"]["replay"]["realised"] < 0.9
    assert any("WARNING: replay is" in line for line in lines)


@pytest.mark.parametrize("fold", [0, 9])
def test_adapt_trains_on_its_fold_only(
    tmp_path: Path, pqal: Path, make_recipe: Callable[..., Run], fold: int
) -> None:
    sources = [{"source": "pubmedqa", "fold": fold}, {"source": "trialgen", "limit": 12}]
    facts = made(make_recipe(root=str(pqal), adapt=sources), tmp_path / "out")
    examples = list(read_jsonl(tmp_path / "out" / "adapt.jsonl", Example))
    ids = {e.id for e in examples if e.source == "pubmedqa"}
    assert len(ids) == 450
    assert not ids & {*SPLIT.test, *SPLIT.folds[fold]}
    assert {e.template for e in examples} == {"pubmedqa.lm_eval"}
    assert {frozenset(e.fields) for e in examples} == {
        frozenset(("question", "contexts", "answer"))
    }
    assert all(e.lang == "en" for e in examples)
    assert next(e for e in examples if e.source == "pubmedqa").ids.keys() == {"pmid"}
    assert source_of(facts, "trialgen", "adapt")["kept"] == 12
    text = (tmp_path / "out" / "adapt.jsonl").read_text()
    assert "The stay was shorter" not in text  # no long answer reaches training here


@pytest.mark.parametrize("stage", ["instruct", "adapt"])
def test_examples_made_from_training_items_pass_in_adapt_alone(
    tmp_path: Path, pqal: Path, make_recipe: Callable[..., Run], stage: str
) -> None:
    """By id and by text: of test and dev items never, of others where stage 3 learns from them."""
    train, dev, test = SPLIT.folds[2][0], SPLIT.folds[4][0], SPLIT.test[0]
    items = json.loads((pqal / "stage3" / "pubmedqa" / "ori_pqal.json").read_text())
    texts = {pmid: prose(50 + k, 3) for k, pmid in enumerate(("", train, dev, test))}
    for pmid in (train, dev, test):
        items[pmid]["CONTEXTS"] = [texts[pmid]]
    (tmp_path / "ori_pqal.json").write_text(json.dumps(items))

    def example(name: str, text: str, pmid: str = "") -> str:
        fields = {
            "question": f"What is shown, {name}?", "evidence": texts[text], "answer": "yes",
            "options": {"yes": "yes", "no": "no"}, "rationale": prose(7, 2),
        }  # fmt: skip
        ids = {"pmid": pmid} if pmid else {}
        return to_json(Example(name, "mine", "task", "cot.reason", fields, ids=ids)) + "\n"

    path = tmp_path / "own.jsonl"
    path.write_text(
        example("other", "") + example("train", train, train) + example("train text", train)
        + example("dev", dev, dev) + example("dev text", dev)
        + example("test", test, test) + example("test text", test)
        + example("both", test, train)
    )  # fmt: skip
    sources: dict[str, list[dict[str, Any]]] = {"adapt": [{"source": "pubmedqa", "fold": 4}]}
    sources.setdefault(stage, []).append({"source": "own-examples", "path": str(path)})
    recipe = make_recipe(root=str(tmp_path), near_duplicates=False, **sources)
    facts = made(recipe, tmp_path / "out")
    examples = read_jsonl(tmp_path / "out" / f"{stage}.jsonl", Example)
    kept = {e.id for e in examples if e.source == "own-examples"}
    passing = {"train", "train text"} if stage == "adapt" else set()
    assert kept == {"other", *passing}
    found = source_of(facts, "own-examples", stage)["quarantined"]["pubmedqa"]
    assert sum(found.values()) == 8 - len(kept)
    assert facts["quarantined"] is True


def test_pqal_items_leave_instruction_sources(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> None:
    rows = [{"id": f"q{i}", "question": f"Is {i} odd?", "answer": "Count."} for i in range(3)] + [
        {"id": "x", "question": "Leaked?", "answer": "Yes.", "pubid": int(SPLIT.folds[0][0])}
    ]
    source = {"source": "medquad-qa", "path": str(write_rows("q.jsonl", rows))}
    facts = made(make_recipe(instruct=[source]), tmp_path / "out")
    assert source_of(facts, "medquad-qa", "instruct")["quarantined"] == {"pubmedqa": {"id": 1}}


def test_mcq_styles_are_about_half_and_half(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> None:
    rows = [
        {"id": f"m{i}", "question": f"Which of {i}?", "options": {"A": "one", "B": "two"},
         "answer_idx": "A", "explanation": "because" if i < 100 else ""}
        for i in range(150)
    ]  # fmt: skip
    source = {"source": "medqa-us-mcq", "path": str(write_rows("m.jsonl", rows))}
    made(make_recipe(instruct=[source]), tmp_path / "out")
    examples = list(read_jsonl(tmp_path / "out" / "instruct.jsonl", Example))
    reasons = [e for e in examples if e.template == "chat.mcq_reason"]
    assert 35 <= len(reasons) <= 65
    assert all(e.fields["explanation"] for e in reasons)


def test_duplicates_across_sources_and_limit(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run]
) -> None:
    rows = [{"id": f"q{i}", "question": f"Is {i} odd?", "answer": "Count."} for i in range(10)]
    path = str(write_rows("q.jsonl", rows))
    sources = [{"source": "medquad-qa", "path": path, "limit": 4},
               {"source": "consumer-health-qa", "path": path}]  # fmt: skip
    facts = made(make_recipe(instruct=sources), tmp_path / "out")
    first, second = (source_of(facts, s["source"], "instruct") for s in sources)
    assert (first["read"], first["kept"]) == (4, 4)
    assert second["duplicates"] == {"exact": 4, "near": 0}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (
            {"knowledge": [{"source": "starter-qa-en"}]},
            "does not fit this stage; allowed: instruct",
        ),
        ({"instruct": [{"source": "starter-passages-en"}]}, "not fit this stage; allowed: knowl"),
        (
            {"instruct": [{"source": "pubmedqa", "path": "x"}]},
            "items are for one stage; .*adapt",
        ),
        ({"adapt": [{"source": "trialgen"}]}, "limit = number of items to generate is needed"),
        ({"instruct": [{"source": "starter-qa-en", "heldout": 2}]}, "heldout is for documents"),
        ({"instruct": [{"source": "starter-qa-en", "fold": 2}]}, "fold is for source 'pubmedqa'"),
        ({"instruct": [{"source": "starter-qa-en"}] * 2}, "'starter-qa-en' is listed twice"),
        (
            {"knowledge": [{"source": "starter-passages-zh", "heldout": 9999}]},
            "heldout = 9999, but",
        ),
        ({"instruct": [{"source": "medqad-qa"}]}, "unknown source.*did you mean 'medquad-qa'"),
        ({"instruct": [{"source": "starter-qa-en"}], "quarantine": ["x"]}, "unknown benchmark"),
        ({"knowledge": [{"source": "starter-general-en", "role": "replay"}]}, "no record is left"),
    ],
)
def test_faults_of_a_recipe(
    tmp_path: Path, make_recipe: Callable[..., Run], data: dict[str, Any], match: str
) -> None:
    with pytest.raises(UserError, match=match):
        made(make_recipe(**data), tmp_path / "out")


def test_stage_without_a_source(tmp_path: Path) -> None:
    recipe = Run.model_validate({"name": "t", "data": {}})
    with pytest.raises(UserError, match=r"data\.adapt: the stage is switched on, but no source"):
        made(recipe, tmp_path / "out")


def test_source_digests_follow_the_files(
    write_rows: Callable[..., Path], make_recipe: Callable[..., Run], pqal: Path
) -> None:
    path = write_rows("q.jsonl", [{"id": "a", "question": "q", "answer": "x"}])
    recipe = make_recipe(
        root=str(pqal), instruct=[{"source": "medquad-qa", "path": str(path)}],
        adapt=[{"source": "pubmedqa"}, {"source": "trialgen", "limit": 3}],
    )  # fmt: skip
    before = source_digests(recipe)
    assert before["adapt/trialgen"] == {}
    assert list(before["adapt/pubmedqa"]) == ["ori_pqal.json"]
    path.write_text('{"id": "a", "question": "q", "answer": "y"}\n')
    after = source_digests(recipe)
    assert after["instruct/medquad-qa"] != before["instruct/medquad-qa"]
    assert after["adapt/pubmedqa"] == before["adapt/pubmedqa"]
