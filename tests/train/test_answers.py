"""Examples -> pieces: turns that need a text each, prefixes, and the tasks of C-Poly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.prompt.template import ChatFormat, render, render_all, render_chat, render_prompt
from medexpert.recipe_train import CPoly, Stage
from medexpert.records import Example, UserError
from medexpert.train import instruct
from medexpert.train.batches import IGNORE, Account, Piece

PLAIN = ChatFormat("", "", "$")
FORGETS = ChatFormat(
    "{% for m in messages %}{% if m.role == 'assistant' %}A:"
    "{{ '<t>' if loop.last else '' }}{{ m.content }}!{% else %}U:{{ m.content }} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}A:<t>{% endif %}",
    "",
    "$",
)
"""Writes a mark into the last turn only, as Qwen 3 does with its thinking."""
OPEN = ChatFormat(
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}",
    "",
    "$",
)
"""Closes no turn, and opens the next one without a special token."""


class Letters:
    """A letter a token."""

    def more(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    start = more


def talk(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(texts)
    ]


def write(folder: Path, *rows: tuple[str, str, dict[str, Any]]) -> Path:
    path = folder / "examples.jsonl"
    lines = [
        {"id": str(n), "source": source, "kind": "qa", "template": template, "fields": fields}
        for n, (source, template, fields) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path, chat: ChatFormat = PLAIN, **stage: Any) -> tuple[list[Piece], Account]:
    account = Account()
    made = instruct.pieces(
        path, Letters(), chat, 300, account, 0, settings=Stage(**stage) if stage else None
    )
    return list(made), account


def learned(piece: Piece) -> str:
    return "".join(chr(t) for t in piece.targets if t != IGNORE)


QA = {"question": "Is it?", "answer": "yes"}
TASK = {"question": "q", "contexts": ["c"], "answer": "no"}


def test_a_template_that_forgets_gives_a_text_a_turn(tmp_path: Path) -> None:
    messages = talk("p", "one", "q", "two")
    path = write(tmp_path, ("s", "chat.conversation", {"messages": messages}))
    found, account = read(path, FORGETS)
    assert [learned(piece) for piece in found] == ["one!", "two!"]
    assert "".join(map(chr, found[1].inputs)) == "U:p A:one!U:q A:<t>two"
    assert (account.items, account.split_items) == (1, 1)
    with pytest.raises(UserError, match="this conversation is not one text"):
        render("chat.conversation", {"messages": messages}, chat=FORGETS)
    assert len(render_all("chat.conversation", {"messages": messages[:2]}, chat=FORGETS)) == 1


def test_where_nothing_closes_a_turn_each_ends_with_eos(tmp_path: Path) -> None:
    path = write(tmp_path, ("s", "chat.conversation", {"messages": talk("p", "one", "q", "two")}))
    found, _ = read(path, OPEN)
    assert [learned(piece) for piece in found] == ["one$", "two$"]
    assert "".join(map(chr, found[1].inputs)) == "u:pa:oneu:qa:two"


def test_a_turn_that_thinks_is_asked_with_thinking_on(tmp_path: Path) -> None:
    chat = ChatFormat(
        "{% for m in messages %}{{ m.role }}:{{ m.content }}!{% endfor %}"
        "{% if add_generation_prompt %}assistant:"
        "{{ '' if enable_thinking else '<off>' }}{% endif %}"
    )
    thought = {"messages": talk("p", "<think>t</think>one")}
    assert render_chat(thought["messages"][:1], chat, reply=True).endswith("assistant:<off>")
    path = write(tmp_path, ("s", "chat.conversation", thought))
    (piece,), _ = read(path, chat)
    assert learned(piece) == "<think>t</think>one!"
    bad = write(tmp_path, ("s", "chat.qa", QA))
    with pytest.raises(UserError, match=r"jsonl:1: 0: the model's chat template changes earlier"):
        read(bad, chat)


words = st.text(st.sampled_from("ab <>!\n"), min_size=1, max_size=8)


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(words, min_size=2, max_size=6), forgets=st.booleans())
def test_every_turn_is_learned_once_behind_its_prompt(texts: list[str], forgets: bool) -> None:
    messages = talk(*texts)
    chat = FORGETS if forgets else PLAIN
    made = render_all("chat.conversation", {"messages": messages}, chat=chat)
    replies = [n for n in range(1, len(messages), 2)]
    seen = []
    for segments in made:
        before = ""
        for segment in segments:
            if segment.learn:
                seen.append((before, segment.text))
            before += segment.text
    assert [before for before, _ in seen] == [
        render_chat(messages[:n], chat, reply=True) for n in replies
    ]
    end = "!" if forgets else "$"
    assert [text for _, text in seen] == [f"{messages[n]['content']}{end}" for n in replies]


def test_prefix_is_the_prompt_that_is_asked_with(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ("s", "pubmedqa.lm_eval", TASK),
        ("s", "chat.conversation", {"messages": talk("p", "one", "q", "two")}),
    )
    pieces, account = read(path, attention="prefix")
    asked = [
        render_prompt("pubmedqa.lm_eval", TASK, chat=PLAIN),
        *(
            render_prompt("chat.conversation", {"messages": talk(*said)}, chat=PLAIN)
            for said in (("p",), ("p", "one", "q"))
        ),
    ]
    assert account.split_items == 1
    for piece, text in zip(pieces, asked, strict=True):
        assert "".join(map(chr, piece.inputs[: piece.prefix])) == text
        assert (piece.targets[: piece.prefix - 1] == IGNORE).all()
        assert piece.targets[piece.prefix - 1] != IGNORE
    assert [piece.prefix for piece in read(path)[0]] == [0, 0]
    assert [piece.prefix for piece in read(path, attention="causal")[0]] == [0, 0]


def test_long_and_empty_examples_and_the_cap_are_counted(tmp_path: Path) -> None:
    rows: list[tuple[str, str, dict[str, Any]]] = [("s", "chat.qa", {**QA, "question": "q" * 400})]
    rows += [("s", "chat.qa", QA)] * 9
    account = Account()
    made = list(instruct.pieces(write(tmp_path, *rows), Letters(), PLAIN, 300, account, 70))
    assert len(made) == 2
    assert (account.items, account.not_read) == (3, 7)
    assert account.dropped == {"longer than sequence_length": 1}


# -- tasks of C-Poly ---------------------------------------------------------------------------

MIX = (
    ("mcq-a", "chat.mcq_label", {"question": "q", "options": {"A": "a"}, "answer_idx": "A"}),
    ("pqa", "pubmedqa.lm_eval", TASK),
    ("qa-b", "chat.qa", QA),
    ("pqa", "pubmedqa.lm_eval", TASK),
)


def cpoly(**tasks: tuple[str, ...]) -> dict[str, Any]:
    return {"method": "cpoly", "cpoly": CPoly(tasks=tasks)}


def test_without_a_table_every_template_is_a_task(tmp_path: Path) -> None:
    path = write(tmp_path, *MIX)
    assert instruct.task_names(path, Stage(**cpoly())) == (
        "chat.mcq_label", "chat.qa", "pubmedqa.lm_eval",
    )  # fmt: skip
    assert [piece.task for piece in read(path, **cpoly())[0]] == [0, 2, 1, 2]
    assert instruct.task_names(path, Stage()) == ()
    assert [piece.task for piece in read(path, method="lora")[0]] == [0, 0, 0, 0]


def test_tasks_are_found_by_template_or_source(tmp_path: Path) -> None:
    path = write(tmp_path, *MIX)
    table = cpoly(chat=("mcq-*", "chat.qa"), papers=("pubmedqa.*", "pqa"))
    assert instruct.task_names(path, Stage(**table)) == ("chat", "papers")
    assert [piece.task for piece in read(path, **table)[0]] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("tasks", "error"),
    [
        ({"a": ("chat.*",)}, r"jsonl:2: 1 \(template 'pubmedqa.lm_eval', source 'pqa'\) belongs to"
         r" no task of cpoly.tasks; allowed: chat\.\*"),
        ({"a": ("chat.*",), "b": ("pqa", "qa-b")}, r"jsonl:3: 2 .*two tasks, 'a' and 'b'"),
        ({"a": ("*",), "b": ("x",)}, r"jsonl: no example belongs to task 'b'"),
    ],
)  # fmt: skip
def test_examples_of_no_task_or_of_two_are_refused(
    tasks: dict[str, tuple[str, ...]], error: str, tmp_path: Path
) -> None:
    path = write(tmp_path, *MIX)
    with pytest.raises(UserError, match=error):
        read(path, **cpoly(**tasks))


def test_a_table_that_claims_a_name_twice_is_told_before_training() -> None:
    table = CPoly(tasks={"a": ("chat.*",), "b": ("*.qa",)})
    instruct.check_tasks(table, ["chat.mcq_label", "x.qa"], "adapt.cpoly.tasks")
    with pytest.raises(UserError, match=r"^adapt.cpoly.tasks: 'chat.qa' belongs to two tasks"):
        instruct.check_tasks(table, ["chat.mcq_label", "chat.qa"], "adapt.cpoly.tasks")


def test_tasks_of_names_the_line() -> None:
    example = Example(id="x", source="s", kind="qa", template="chat.qa", fields={})
    assert list(instruct.tasks_of(CPoly(), [example], "f")) == ["chat.qa"]
    with pytest.raises(UserError, match=r"^f:1: x "):
        list(instruct.tasks_of(CPoly(tasks={"a": ("b",)}), [example], "f"))
