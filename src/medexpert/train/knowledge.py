"""Stage 1, knowledge: continual pre-training on medical text with general replay.

Fed: documents in the order of the mix, packed, kept apart by attention. Moves: every weight, or
LoRA. Watched: loss here; bits/byte on held-out medical and general text after the stage.
"""

from __future__ import annotations

from pathlib import Path

from medexpert.records import Document, read_jsonl
from medexpert.train.batches import Account, Encoder, Piece, document_pieces


def pieces(
    path: Path, encode: Encoder, eos: int, length: int, account: Account, cap: int
) -> list[Piece]:
    """The stage's documents as pieces of at most `length` tokens, in file order.

    With a `cap` (0 = none) only as many are read as give that many tokens: the mix keeps its shares
    in every prefix of the file.
    """
    texts = (document.text for document in read_jsonl(path, Document))
    return document_pieces(texts, encode, eos, length, account, cap)
