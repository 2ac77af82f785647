"""Bits per byte on documents kept out of training: what was learned, and what was forgotten.

bits/byte = -(sum of ln p over all tokens) / (ln 2 * UTF-8 bytes). Bytes do not depend on the
tokenizer, so points of a run, and other models, can be compared.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medexpert.evaluate.statistics import bootstrap_ratio
from medexpert.manifest import write_json
from medexpert.records import Document, UserError, read_jsonl

if TYPE_CHECKING:
    from medexpert.engines.base import Engine, TextScore

BATCH = 16


def bits_per_byte(
    engine: Engine,
    documents: Iterable[Document],
    *,
    roles: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """{source: {role, documents, tokens, bytes, bits_per_byte, interval, per_document, empty}}.

    Sorted by source. The interval is a percentile bootstrap over documents (None for fewer than
    two); `per_document` keeps bits and bytes in file order, so that two points can be paired.
    Documents without text are counted as `empty` and left out. Raises UserError when nothing is
    left.
    """
    scores: dict[str, list[TextScore]] = defaultdict(list)
    empty: dict[str, int] = defaultdict(int)
    batch: list[Document] = []
    done = 0

    def flush() -> None:
        nonlocal done
        for document, score in zip(
            batch, engine.text_logprobs([d.text for d in batch]), strict=True
        ):
            scores[document.source].append(score)
        done += len(batch)
        batch.clear()
        progress(f"held-out text: {done} documents scored")

    for document in documents:
        if not document.text.strip():
            empty[document.source] += 1
            continue
        batch.append(document)
        if len(batch) == BATCH:
            flush()
    if batch:
        flush()
    if not scores:
        raise UserError("no held-out document has text to score", allowed="at least one")
    return {
        source: {"role": (roles or {}).get(source, ""), **_summary(scores[source], source)}
        | {"empty": empty.get(source, 0)}
        for source in sorted(scores)
    }


def write_heldout(
    engine: Engine,
    heldout: Path,
    out: Path,
    *,
    roles: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, Any]]:
    """Score the JSONL file of held-out documents and write the result to `out` (heldout.json)."""
    result = bits_per_byte(engine, read_jsonl(heldout, Document), roles=roles, progress=progress)
    write_json(out, result)
    return result


def _summary(scores: Sequence[TextScore], source: str) -> dict[str, Any]:
    bits = [-score.logprob / math.log(2) for score in scores]
    sizes = [float(score.bytes) for score in scores]
    interval = asdict(bootstrap_ratio(bits, sizes, seed=0)) if len(scores) > 1 else None
    value = sum(bits) / sum(sizes)
    if not math.isfinite(value):
        raise UserError(f"the model gives no finite probability to the held-out text of {source}")
    return {
        "documents": len(scores),
        "tokens": sum(score.tokens for score in scores),
        "bytes": sum(score.bytes for score in scores),
        "bits_per_byte": value,
        "interval": interval,
        "per_document": {"bits": bits, "bytes": sizes},
    }
