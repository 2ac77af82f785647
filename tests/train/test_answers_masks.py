"""What carries loss, token by token, against masks made by another route (make_chat_masks.py)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from chat_families import CASES, FAMILIES, TALK, shown, tokenizer
from medexpert.model.base import chat_format
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat, render_all, render_chat, render_prompt
from medexpert.records import Example, to_json
from medexpert.train import instruct
from medexpert.train.batches import IGNORE, Account, Piece, collate

GOLDEN = Path(__file__).with_name("golden") / "chat_masks.json"
SMOLLM2 = Path.home() / ".cache/medexpert/models/smollm2-135m-instruct"


@cache
def words(family: str) -> Any:
    return tokenizer(FAMILIES[family])


@cache
def goldens() -> dict[str, dict[str, list[list[list[Any]]]]]:
    loaded: dict[str, dict[str, list[list[list[Any]]]]] = json.loads(GOLDEN.read_text("utf-8"))
    return loaded


def made(family: str, case: str, folder: Path) -> list[Piece]:
    name, lang, fields = CASES[case]
    path = folder / "one.jsonl"
    example = Example(id="1", source="s", kind="qa", template=name, fields=fields, lang=lang)
    path.write_text(to_json(example) + "\n", encoding="utf-8")
    chat = ChatFormat(*chat_format(words(family)))
    encode = TextEncoder(words(family))
    return list(instruct.pieces(path, encode, chat, 512, Account(), 0))


def as_pairs(family: str, piece: Piece) -> list[list[Any]]:
    """[token, learned] of the text behind a piece, its last learned token included."""
    ids = [*piece.inputs.tolist(), int(piece.targets[-1])]
    learned = [0, *(piece.targets != IGNORE).astype(int).tolist()]
    return [[shown(words(family), t), mark] for t, mark in zip(ids, learned, strict=True)]


def test_goldens_hold_every_family_and_case() -> None:
    assert goldens().keys() == FAMILIES.keys()
    assert all(cases.keys() == CASES.keys() for cases in goldens().values())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_where_the_reference_says(family: str, case: str, tmp_path: Path) -> None:
    pieces = made(family, case, tmp_path)
    texts = goldens()[family][case]
    assert len(pieces) == len(texts)
    for piece, text in zip(pieces, texts, strict=True):
        pairs = as_pairs(family, piece)
        assert pairs == text[: len(pairs)]
        assert not any(mark for _, mark in text[len(pairs) :])  # only unlearned text is not fed
        assert pairs[-1][1] == 1


ENDS = {
    "smollm2": "<|im_end|>", "llama3": "<|eot_id|>", "qwen3": "<|im_end|>",
    "gemma3": "<end_of_turn>", "glm4": "<|user|>", "plain": "</s>",
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_turn_learns_its_end_also_where_it_pads(family: str, tmp_path: Path) -> None:
    pieces = made(family, "talk", tmp_path)
    end = words(family).convert_tokens_to_ids(ENDS[family])
    wanted = sum(message["role"] == "assistant" for message in TALK)
    batch = collate([pieces, pieces[:1]] if len(pieces) > 1 else [pieces, []], pad=end)
    assert batch.padding > 0
    learned = sum(int((p.targets == end).sum()) for p in pieces)
    assert learned == wanted
    in_first_row = int((batch.targets[0] == end).sum())
    assert in_first_row == wanted
    assert int((batch.targets != IGNORE).sum()) == sum(
        int((p.targets != IGNORE).sum())
        for p in (pieces + pieces[:1] if len(pieces) > 1 else pieces)
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_turn_is_learned_behind_the_prompt_it_is_asked_with(family: str, case: str) -> None:
    name, lang, fields = CASES[case]
    chat = ChatFormat(*chat_format(words(family)))
    texts = render_all(name, fields, chat=chat, lang=lang)
    if "messages" not in fields:
        (segments,) = texts
        assert segments[0].text == render_prompt(name, fields, chat=chat, lang=lang)
        return
    replies = [n for n, m in enumerate(fields["messages"]) if m["role"] == "assistant"]
    befores = []
    for segments in texts:
        before = ""
        for segment in segments:
            if segment.learn:
                befores.append(before)
            before += segment.text
    thoughts = ["</think>" in fields["messages"][n]["content"] for n in replies]
    assert befores == [
        render_chat(fields["messages"][:n], chat, reply=True, thinking=thought)
        for n, thought in zip(replies, thoughts, strict=True)
    ]


@pytest.mark.parametrize("family", [name for name in FAMILIES if FAMILIES[name].template])
def test_formats_are_the_tokenizers_own(family: str) -> None:
    chat = ChatFormat(*chat_format(words(family)))
    for thinking in (False, True):
        for reply in (False, True):
            text = render_chat(TALK, chat, reply=reply, thinking=thinking)
            assert text == words(family).apply_chat_template(
                TALK, tokenize=False, add_generation_prompt=reply, enable_thinking=thinking
            )


def test_start_tokens_stand_once(tmp_path: Path) -> None:
    for family, settings in FAMILIES.items():
        for case in ("qa", "task"):
            (piece, *_) = made(family, case, tmp_path)
            first = words(family).convert_tokens_to_ids(list(settings.start))
            assert piece.inputs[: len(first)].tolist() == first
            assert not set(first) & set(piece.inputs[len(first) :].tolist())


@pytest.mark.skipif(not SMOLLM2.is_dir(), reason="SmolLM2-135M-Instruct is not in the cache")
def test_the_real_smollm2_has_the_format_of_the_goldens() -> None:
    from transformers import AutoTokenizer

    real: Any = AutoTokenizer.from_pretrained(SMOLLM2, local_files_only=True)
    chat, tiny = ChatFormat(*chat_format(real)), ChatFormat(*chat_format(words("smollm2")))
    assert chat[1:] == tiny[1:]
    for case, (name, lang, fields) in CASES.items():
        texts = render_all(name, fields, chat=chat, lang=lang)
        assert texts == render_all(name, fields, chat=tiny, lang=lang), case
        ids = TextEncoder(real).start("".join(s.text for s in texts[0]))
        assert ids == real("".join(s.text for s in texts[0]))["input_ids"]
