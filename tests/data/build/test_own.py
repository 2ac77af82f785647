"""A user's own examples: every template with something to learn, and preference pairs."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from medexpert.data import catalogue, dedup
from medexpert.data.build import build, inspect_sources
from medexpert.data.build.clean import tidied
from medexpert.data.build.own import SHAPES, own_example
from medexpert.data.build.plan import files_of
from medexpert.data.build.sources import styled
from medexpert.prompt import template
from medexpert.recipe import Run
from medexpert.records import Example, UserError, to_json

Make = Callable[..., Run]
ASKED = {"question": "Does it help?", "answer": "yes"}
CHOICE = {"question": "Which?", "options": {"A": "x", "B": "y"}, "answer_idx": "A"}
VERDICT = {
    "question": "Does it help?", "evidence": "Nine of ten.", "answer": "yes",
    "options": {"yes": "yes", "no": "no"},
}  # fmt: skip
SIDES = {**VERDICT, "rationales": [["yes", "Nine of ten."], ["no", "One was not."]]}
TALK = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}
FIELDS: dict[str, dict[str, Any]] = {
    "chat.qa": ASKED,
    "chat.reasoning": {**ASKED, "rationale": "Nine of ten were helped."},
    "chat.mcq_label": {**CHOICE, "explanation": ""},
    "chat.mcq_reason": {**CHOICE, "explanation": "x it is."},
    "chat.conversation": TALK,
    "pubmedqa.lm_eval": {**ASKED, "contexts": ["Nine of ten."]},
    "pubmedqa.question_only": {**ASKED, "contexts": []},
    "pubmedqa.reasoning_free": {**ASKED, "long_answer": "It helps most."},
    "direct.choices": VERDICT,
    "cot.reason": {**VERDICT, "rationale": "Nine of ten."},
    "cot.refine": {**VERDICT, "rationale": "Nine of ten.", "reasonings": ["One.", "Two."]},
    "cot.answer": {"before": "Nine of ten.", "answer": "yes"},
    "cot.conclusion": {**VERDICT, "conclusion": "yes"},
    "voc.hypothesise": {**VERDICT, "choice": "yes", "rationale": "Nine of ten."},
    "voc.verify": SIDES,
    "voc.check": {**SIDES, "check": "no: one was not helped."},
    "voc.ptrue": {**VERDICT, "choice": "yes", "rationale": "Nine of ten."},
}


def row(name: str, **more: Any) -> dict[str, Any]:
    fields = {**FIELDS[name], **more}
    return {
        "id": "1", "source": "mine", "kind": SHAPES[name][0], "template": name, "fields": fields,
    }  # fmt: skip


def refusal(given: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        list(own_example("f:1", given))
    return str(error.value)


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_what_a_template_needs_is_what_a_row_must_have(name: str) -> None:
    (example,) = own_example("f:1", row(name))
    segments = template.render(name, example.fields, chat=template.ChatFormat(""))
    assert any(segment.learn and segment.text.strip() for segment in segments)
    for field in SHAPES[name][1]:
        given = row(name)
        del given["fields"][field]
        refusal(given)
        assert field in refusal(row(name, **{field: 3}))


def test_every_template_that_teaches_is_among_them() -> None:
    asks = {n for n in template.names() if not template.lookup(n).learned}
    others = ("construct.", "lm_eval.")
    teaching = {name for name in template.names() if not name.startswith(others)} - asks
    teaching |= {"chat.conversation"}
    assert set(SHAPES) == teaching


def test_lists_hold_what_the_template_prints() -> None:
    assert "options: strings are expected" in refusal(row("direct.choices", options={"A": 3}))
    for wrong in (["yes"], [["yes"]], [["yes", 3]], [{"yes": "so"}]):
        told = refusal(row("voc.verify", rationales=wrong))
        assert "rationales: a list of [choice, rationale]" in told


def test_a_rejected_answer_is_checked_as_the_answer_is() -> None:
    both: dict[str, Any] = {"rationale": "One was not.", "answer": "no"}
    for name, rejected in [
        ("chat.qa", "no"), ("chat.reasoning", both), ("chat.mcq_label", "B"),
        ("chat.mcq_reason", {"answer_idx": "B", "explanation": "y it is."}),
        ("chat.conversation", "Hm."), ("chat.conversation", TALK),
        ("pubmedqa.lm_eval", "no"), ("voc.ptrue", "no"),
    ]:  # fmt: skip
        (example,) = own_example("f:1", row(name, rejected=rejected))
        assert example.fields["rejected"] == rejected
    wrong: Any
    for wrong, told in [(None, "null"), (3, "a number"), (["no"], "a list"), ({}, "an empty obj")]:
        assert f"field 'rejected': {told}" in refusal(row("chat.qa", rejected=wrong))
    assert "unknown field in 'rejected' 'anwser'; allowed: answer, question; did you mean" in (
        refusal(row("chat.qa", rejected={"anwser": "no"}))
    )
    assert "a string is expected" in refusal(row("chat.qa", rejected={"answer": 3}))
    assert "'C' names no option" in refusal(row("chat.mcq_label", rejected="C"))
    assert "a message" in refusal(row("chat.conversation", rejected={"messages": ["So."]}))


def made(recipe: Run, folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows kept, and id -> reason of those dropped."""
    build(recipe, folder, key="k", progress=lambda line: None)
    kept, gone = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("instruct.jsonl", "drops.jsonl")
    )
    return kept, {row["id"]: row["reason"] for row in gone}


# -- what a build does with pairs --------------------------------------------------------------


def example(name: str, **more: Any) -> Example:
    return next(own_example("f:1", row(name, **more)))


def test_a_pair_keeps_its_template() -> None:
    plain = example("chat.mcq_reason")
    seeds = range(20)
    assert {styled(plain, s).template for s in seeds} == {"chat.mcq_label", "chat.mcq_reason"}
    for name in ("chat.mcq_label", "chat.mcq_reason"):
        pair = example(name, explanation="x it is.", rejected="B")
        assert {styled(pair, s).template for s in seeds} == {name}


GREETED = "Hello. Take it with water. Thank you for your question."


def test_both_answers_lose_their_courtesies() -> None:
    fields, changes = tidied(example("chat.qa", answer="Take it with water.", rejected=GREETED))
    assert (fields["answer"], fields["rejected"]) == ("Take it with water.",) * 2
    assert changes["greeting"] == 1
    fields, _ = tidied(example("chat.qa", rejected={"answer": GREETED}))
    assert fields["rejected"] == {"answer": "Take it with water."}
    untouched = example("chat.qa", rejected="no")
    assert tidied(untouched) == (dict(untouched.fields), Counter())


def test_so_does_the_last_turn_of_a_conversation() -> None:
    asked = {"role": "user", "content": "Hi doctor, how do I take it?"}
    turns = [asked, {"role": "assistant", "content": "With water."}]
    rejected: Any
    for rejected in (GREETED, {"messages": [asked, {"role": "assistant", "content": GREETED}]}):
        fields, _ = tidied(example("chat.conversation", messages=turns, rejected=rejected))
        said = fields["rejected"] if isinstance(rejected, str) else (
            fields["rejected"]["messages"][-1]["content"]
        )  # fmt: skip
        assert said == "Take it with water."
        assert "Hi" not in fields["messages"][0]["content"]
        if not isinstance(rejected, str):
            assert fields["rejected"]["messages"][:-1] == fields["messages"][:-1]


def test_a_pair_of_which_one_answer_was_courtesy_alone_is_dropped(
    tmp_path: Path, make_recipe: Make
) -> None:
    thanks = {"role": "assistant", "content": "Thank you for your question."}
    asked = {"role": "user", "content": "How do I take it, with water or with milk, and when?"}
    long = "With a glass of water in the morning, half an hour before the first meal of the day."
    rows = [
        Example("rejected", "m", "qa", "chat.qa", {**ASKED, "answer": long, "rejected": GREETED}),
        Example("empty", "m", "qa", "chat.qa", {
            "question": "And at night?", "answer": long[20:], "rejected": thanks["content"],
        }),
        Example("last", "m", "conversation", "chat.conversation", {
            "messages": [asked, thanks], "rejected": long,
        }),
        Example("other", "m", "conversation", "chat.conversation", {
            "messages": [asked, {"role": "assistant", "content": long}],
            "rejected": thanks["content"],
        }),
    ]  # fmt: skip
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(to_json, rows)) + "\n")
    kept, gone = made(
        make_recipe(instruct=[{"source": "own-examples", "path": str(path)}]), tmp_path / "out"
    )
    assert [line["id"] for line in kept] == ["rejected"]
    assert kept[0]["fields"]["rejected"] == "Take it with water."
    assert gone == dict.fromkeys(("empty", "last", "other"), "only_courtesies")


def test_pairs_with_other_rejected_answers_are_other_items(
    tmp_path: Path, make_recipe: Make
) -> None:
    asked = {"question": "Why?", "answer": prose(1, 20)}
    wrongs = ["It is the weather.", "It is the moon.", "It is  THE moon.", {"answer": "No one."}]
    rows = [
        Example(str(n), "m", "qa", "chat.qa", {**asked, "rejected": wrong})
        for n, wrong in enumerate(wrongs)
    ]
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(map(to_json, rows)) + "\n")
    sources = [{"source": "own-examples", "path": str(path)}]
    kept = [line["id"] for line in made(make_recipe(instruct=sources), tmp_path / "out")[0]]
    assert len(kept) == 3
    assert {"0", "3"} < set(kept)
    assert len({dedup.detail([], r) for r in rows}) == 4


def test_a_folder_of_own_examples_is_counted_by_file(tmp_path: Path, make_recipe: Make) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(
        UserError, match=r"'own-examples': file not found; allowed: .*mine/\*\.jsonl"
    ):
        files_of(catalogue.find("own-examples"), "", str(folder))
    (folder / "a.rejects.jsonl").write_text('{"reason": "not read"}\n')
    with pytest.raises(UserError, match=r"only \*\.rejects\.jsonl files are there"):
        files_of(catalogue.find("own-examples"), "", str(folder))
    for name, first, count in (("a.jsonl", 0, 3), ("b.jsonl", 3, 2)):
        rows = [
            Example(str(n), "m", "qa", "chat.qa", {"question": f"Why {n}?", "answer": prose(n, 3)})
            for n in range(first, first + count)
        ]
        (folder / name).write_text("".join(f"{to_json(row)}\n" for row in rows))
    (folder / "c.jsonl.gz").write_bytes(gzip.compress((folder / "a.jsonl").read_bytes()))
    (folder / "notes.txt").write_text("not read")
    recipe = make_recipe(instruct=[{"source": "own-examples", "path": str(folder)}])
    assert inspect_sources(recipe).problems == []
    facts = build(recipe, tmp_path / "out", key="k", progress=lambda line: None)
    source = facts["stages"]["instruct"]["sources"]["own-examples"]
    rows_of = {one["file"]: one["rows"] for one in source["inputs"]}
    assert rows_of == {"a.jsonl": 3, "b.jsonl": 2, "c.jsonl.gz": 3}
    assert (source["read"], source["kept"]) == (8, 5)  # c repeats a


def test_other_tasks_on_the_same_abstract_are_other_items(
    tmp_path: Path, make_recipe: Make
) -> None:
    """A verdict, the reasoning to it and what speaks for each choice share most of their text."""
    asked = {**VERDICT, "evidence": prose(1, 30)}
    rows = [
        ("pubmedqa.lm_eval", {**ASKED, "question": asked["question"], "contexts": [prose(1, 30)]}),
        ("cot.reason", {**asked, "rationale": "Most were helped."}),
        ("cot.reason", {**asked, "rationale": "Many were helped."}),  # nearly the one before
        ("voc.hypothesise", {**asked, "choice": "yes", "rationale": "Most were helped."}),
        ("voc.hypothesise", {**asked, "choice": "no", "rationale": "Some were not helped."}),
    ]
    path = tmp_path / "own.jsonl"
    records = [Example(str(n), "m", "task", name, f) for n, (name, f) in enumerate(rows)]
    path.write_text("".join(f"{to_json(record)}\n" for record in records))
    recipe = make_recipe(adapt=[{"source": "own-examples", "path": str(path)}])
    facts = build(recipe, tmp_path / "out", key="k", progress=lambda line: None)
    source = facts["stages"]["adapt"]["sources"]["own-examples"]
    assert source["duplicates"] == {"exact": 0, "near": 1}
    assert source["kept"] == 4
