"""daft's full pipeline on a generated corpus, as a process of its own in its own environment.

Clean (lower case, NFD, punctuation to blanks), exact copies, n-gram decontamination, MinHash in 16
bands of 8, and exact Jaccard on the candidate pairs. Everything is daft's own but the look-up of
n-grams and the confirmation of pairs, for which it has no function. Writes OUT/kept/*.json and
OUT/leaked.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path

os.environ["DAFT_ANALYTICS_ENABLED"] = "0"
os.environ["DAFT_PROGRESS_BAR"] = "0"

import daft
from daft import DataType, Series, col
from daft.functions import chunk, hash, length, list_agg, minhash, normalize, regexp_replace

DECONT_NGRAM, SHINGLE = 8, 5
BANDS, ROWS = 16, 8
JACCARD = 0.8


def main() -> None:
    """Run the pipeline over CORPUS into OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--language", choices=("en", "zh"), default="en")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    daft.set_runner_native(args.workers)
    frame = daft.read_json(str(args.corpus / "shards" / "*.jsonl"))
    frame = frame.with_column("norm", cleaned(col("text")))
    # Of equal texts the one with the least id stays.
    frame = frame.groupby("norm").agg(col("id").min(), col("text").any_value())
    frame = frame.with_column("leaked", leak_finder(args.corpus / "benchmark.jsonl")(col("norm")))
    signed = minhash(col("norm"), num_hashes=BANDS * ROWS, ngram_size=SHINGLE)
    frame = frame.with_column("signature", signed).collect()
    leaked = frame.where(col("leaked")).select("id").to_pydict()["id"]
    (args.out / "leaked.json").write_text(json.dumps(leaked), "utf-8")
    frame = frame.where(~col("leaked"))
    gone = near_duplicates(frame)
    names = daft.from_pydict({"id": gone or [""]})
    kept = frame.join(names, on="id", how="anti").select("id", "text")
    kept.write_json(str(args.out / "kept"))


def cleaned(text: daft.Expression) -> daft.Expression:
    """Words, numbers and single Chinese characters, one blank between."""
    text = normalize(text, lowercase=True, nfd_unicode=True)
    text = regexp_replace(text, r"([\u{3400}-\u{9fff}])", " $1 ")
    return regexp_replace(text, r"[^\p{L}\p{N}]+", " ")


def leak_finder(benchmark: Path):  # type: ignore[no-untyped-def]
    """A function of a column: whether a text shares 8 words in a row with the benchmark."""
    rows = [json.loads(line) for line in benchmark.open(encoding="utf-8")]
    texts = [row[name] for row in rows for name in ("question", "context", "explanation")]
    held = daft.from_pydict({"text": texts}).select(cleaned(col("text"))).to_pydict()["text"]
    index = frozenset(gram for text in held for gram in grams(text.split(), DECONT_NGRAM))

    @daft.func.batch(return_dtype=DataType.bool(), use_process=True)  # type: ignore[untyped-decorator]
    def leaks(norm: Series) -> list[bool]:
        return [
            not index.isdisjoint(grams(text.split(), DECONT_NGRAM)) for text in norm.to_pylist()
        ]

    return leaks


def grams(words: list[str], n: int) -> list[str]:
    """Runs of n words."""
    return [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]


def near_duplicates(frame: daft.DataFrame) -> list[str]:
    """Ids to remove: each has a confirmed near-duplicate that stays."""
    pairs: set[tuple[str, str]] = set()
    bands = frame.select(
        col("id"),
        chunk(col("signature").cast(DataType.list(DataType.uint32())), ROWS).alias("key"),
        daft.lit(list(range(BANDS))).alias("band"),
    ).explode(col("band"), col("key"))
    buckets = bands.select("id", "band", hash(col("key")).alias("key"))
    buckets = buckets.groupby("band", "key").agg(list_agg(col("id")).alias("ids"))
    buckets = buckets.where(length(col("ids")) > 1)
    for ids in buckets.select("ids").to_pydict()["ids"]:
        ids = sorted(set(ids))
        pairs.update((a, b) for i, a in enumerate(ids) for b in ids[i + 1 :])
    wanted = sorted({name for pair in pairs for name in pair})
    if not wanted:
        return []
    names = daft.from_pydict({"id": wanted})
    found = frame.join(names, on="id", how="semi").select("id", "norm").to_pydict()
    sets = {
        name: set(grams(text.split(), SHINGLE))
        for name, text in zip(found["id"], found["norm"], strict=True)
    }
    fellows: dict[str, list[str]] = defaultdict(list)
    for a, b in pairs:
        common = len(sets[a] & sets[b])
        if common >= JACCARD * (len(sets[a]) + len(sets[b]) - common):
            fellows[a].append(b)
            fellows[b].append(a)
    kept: set[str] = set()
    gone: list[str] = []
    for name in sorted(fellows):
        if kept.isdisjoint(fellows[name]):
            kept.add(name)
        else:
            gone.append(name)
    return gone


if __name__ == "__main__":
    main()
