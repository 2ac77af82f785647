"""datatrove on a generated corpus, as a process of its own in its own environment.

`shipped`: its own defaults: spaCy's English tokeniser (jieba for Chinese), MinhashConfig() of 14x8
with numbers normalised; signature, buckets, cluster, filter. `tuned`: what we know makes it better:
a regular-expression tokeniser, numbers kept apart, 16x8, and its n-gram decontamination first. It
has no step that confirms a pair. Writes OUT/kept/*.jsonl and OUT/leaked/*.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import TextNormConfig, ngrams, simplify_text
from datatrove.utils.typeshelper import Languages
from datatrove.utils.word_tokenizers import WordTokenizer

DECONT_NGRAM = 8
LANGUAGE = {"en": Languages.english, "zh": Languages.mandarin_chinese}


class Words(WordTokenizer):  # type: ignore[misc]
    """Words, numbers and single Chinese characters, by a regular expression."""

    _word = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")

    def word_tokenize(self, text: str) -> list[str]:
        return self._word.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


def main() -> None:
    """Run one variant over CORPUS into OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=("shipped", "tuned"))
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--language", choices=tuple(LANGUAGE), default="en")
    args = parser.parse_args()
    run = Pipeline(args.out, args.workers, LANGUAGE[args.language])
    shards = str(args.corpus / "shards")
    tasks = len(list(Path(shards).glob("*.jsonl")))
    if args.variant == "shipped":
        run.minhash(shards, tasks, MinhashConfig(), None)
        return
    norm = TextNormConfig(norm_numbers=False)
    run.decontaminate(shards, tasks, args.corpus / "benchmark.jsonl", norm)
    config = MinhashConfig(num_buckets=16, hashes_per_bucket=8, norm_config=norm)
    run.minhash(str(args.out / "decontaminated"), tasks, config, Words())


class Pipeline:
    """datatrove's steps over one folder."""

    def __init__(self, out: Path, workers: int, language: str) -> None:
        self.out, self.workers, self.language = out, workers, language

    def minhash(
        self, shards: str, tasks: int, config: MinhashConfig, words: WordTokenizer | None
    ) -> None:
        """The four published stages of MinHash deduplication."""
        signature = MinhashDedupSignature(
            self._folder("signatures"), config=config, language=self.language
        )
        if words is not None:
            signature.word_tokenizer = words
        self._run("signature", [JsonlReader(shards), signature], tasks)
        buckets = MinhashDedupBuckets(
            self._folder("signatures"), self._folder("buckets"), config=config
        )
        self._run("buckets", [buckets], config.num_buckets)
        cluster = MinhashDedupCluster(
            self._folder("buckets"), self._folder("remove"), config=config
        )
        self._run("cluster", [cluster], 1)
        steps = [JsonlReader(shards), MinhashDedupFilter(self._folder("remove")),
                 JsonlWriter(self._folder("kept"), compression=None)]  # fmt: skip
        self._run("filter", steps, tasks)

    def decontaminate(self, shards: str, tasks: int, benchmark: Path, norm: TextNormConfig) -> None:
        """Its n-gram filter on an index that we write: its indexer needs lighteval's tasks."""
        config = NGramsDecontConfig(n_grams=DECONT_NGRAM, norm_config=norm)
        words = Words()
        hashed = create_hash_func(config.hash_config)
        index: set[int] = set()
        for line in benchmark.open(encoding="utf-8"):
            row = json.loads(line)
            for text in (row["question"], row["context"], row["explanation"]):
                found = words.word_tokenize(simplify_text(text, norm))
                index.update(hashed(" ".join(n)) for n in ngrams(found, config.n_grams))
        folder = Path(self._folder("index"))
        folder.mkdir(parents=True)
        np.array(sorted(index), dtype=np.uint64).tofile(folder / "benchmark.index.hashes")
        step = NGramsDecontFilter(
            str(folder),
            config=config,
            exclusion_writer=JsonlWriter(self._folder("leaked"), compression=None),
            language=self.language,
        )
        step.tokenizer = words
        writer = JsonlWriter(self._folder("decontaminated"), compression=None)
        self._run("decontaminate", [JsonlReader(shards), step, writer], tasks)

    def _folder(self, name: str) -> str:
        return str(self.out / name)

    def _run(self, name: str, steps: list[Any], tasks: int) -> None:
        LocalPipelineExecutor(
            steps,
            tasks=tasks,
            workers=min(self.workers, tasks),
            logging_dir=self._folder(f"logs/{name}"),
        ).run()


if __name__ == "__main__":
    os.environ.setdefault("LOGURU_LEVEL", "ERROR")
    main()
