"""The tokenizer without torch makes the tokens that transformers makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.engines.tokenizer import Tokenizer, open_tokenizer
from medexpert.model.base import chat_format
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat
from medexpert.records import UserError

TEXTS = ["", "a", " yes no", "是否有效？\n\n", "<|im_start|>user", "x" * 3000]


@pytest.mark.parametrize("adds_bos", [False, True])
def test_tokens_are_those_of_training(
    parts: Callable[..., Any], tmp_path: Path, adds_bos: bool
) -> None:
    theirs = parts(adds_bos=adds_bos).tokenizer
    theirs.chat_template = "{{ messages[0].content }}"
    theirs.save_pretrained(tmp_path)
    ours, encoder = Tokenizer(tmp_path), TextEncoder(theirs)
    assert [ours.start(text) for text in TEXTS] == [encoder.start(text) for text in TEXTS]
    assert [ours.more(text) for text in TEXTS] == [encoder.more(text) for text in TEXTS]
    assert ours.before == encoder.before
    assert ours.chat == ChatFormat(*chat_format(theirs))
    assert ours.text_start() == theirs.bos_token_id


def test_a_catalogue_model(base_model: Path) -> None:
    assert open_tokenizer(str(base_model), print).more("some words")
    assert open_tokenizer(str(base_model / "tokenizer.json"), print).digest == (
        open_tokenizer(str(base_model), print).digest
    )


def test_bad_tokenizers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json here"):
        open_tokenizer(str(tmp_path), print)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as a tokenizer"):
        open_tokenizer(str(tmp_path), print)
    with pytest.raises(UserError, match=r"no tokenizer 'smolm'.*smollm2-135m-instruct"):
        open_tokenizer("smolm", print)
