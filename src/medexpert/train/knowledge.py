"""Stage 1, knowledge: continual pre-training on medical text with general replay.

Fed: documents in the order of the mix, packed, kept apart by attention; of each document either
every token is learned from the ones before it, or blanks are filled in (`train.infill`). Moves:
every weight, or LoRA. Watched: loss here; bits/byte on held-out medical and general text after the
stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from medexpert.records import Document, read_jsonl
from medexpert.train.batches import (
    Account,
    Encoder,
    Piece,
    document_pieces,
    id_pieces,
    tokenised,
)
from medexpert.train.infill import Infilling


def pieces(
    path: Path,
    encode: Encoder,
    eos: int,
    length: int,
    account: Account,
    cap: int,
    *,
    infill: Infilling | None = None,
) -> Iterator[Piece]:
    """The stage's documents as pieces of at most `length` tokens, in file order.

    With a `cap` (0 = none) only as many are read as give that many tokens: the mix keeps its shares
    in every prefix of the file. `infill` cuts its share of the documents into blanks; where its
    last part begins is the account's `fence`.
    """
    texts = (document.text for document in read_jsonl(path, Document))
    if infill is None or not infill.settings.on:
        yield from document_pieces(texts, encode, eos, length, account, cap)
        return
    anneal = infill.settings.anneal
    total = sum(1 for _ in read_jsonl(path, Document)) if anneal else 0
    made = 0
    for number, (text, ids) in enumerate(tokenised(texts, encode, account, cap)):
        # This stage is not shuffled, so the last steps learn from the last items read: counted in
        # tokens where the cap ends the reading, else in documents.
        done = max(number / total if total else 0.0, account.tokens / cap if cap else 0.0)
        annealing = anneal > 0 and done >= 1 - anneal
        if annealing and infill.anneal_from is None:
            infill.anneal_from = account.fence = made
        tokens = [*ids, eos]
        parts = infill.pieces(text, tokens, number=number, length=length, annealing=annealing)
        parts = parts or id_pieces(tokens, length)
        account.add_item(parts)
        made += len(parts)
        yield from parts
    account.objectives.update(infill.counts)
