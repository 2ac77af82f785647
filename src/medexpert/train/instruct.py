"""Stage 2, instruct: question answering, reasoning, multi-choice and conversation.

Fed: examples rendered by the one template room, packed. Moves: every weight (or LoRA). Loss: on
answers only, each assistant turn and its end-of-turn included.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from medexpert.prompt.template import ChatFormat, Segment, render
from medexpert.records import Example, UserError, read_jsonl
from medexpert.train.batches import Account, Encoder, Piece, example_pieces


def pieces(
    path: Path, encode: Encoder, chat: ChatFormat, length: int, account: Account, cap: int
) -> list[Piece]:
    """The stage's examples as pieces; those longer than `length` are counted in `account.dropped`.

    With a `cap` (0 = none) only as many are read as give that many tokens. Raises UserError with
    file:line when an example lacks a field of its template.
    """

    def rendered(number: int, example: Example) -> list[Segment]:
        try:
            return list(render(example.template, example.fields, chat=chat, lang=example.lang))
        except UserError as error:
            raise UserError(f"{example.id}: {error}", where=f"{path}:{number}") from None

    examples = enumerate(read_jsonl(path, Example), 1)
    return example_pieces(
        (partial(rendered, n, e) for n, e in examples), encode, length, account, cap
    )
