"""One build of a generated corpus by `medexpert data`, as a process of its own.

Clean, exact and near-duplicates (MinHash, verified), quarantine against the corpus's benchmark.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SOURCES = {"en": "starter-passages-en", "zh": "starter-passages-zh"}


def main() -> None:
    """Build CORPUS into OUT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--language", choices=tuple(SOURCES), default="en")
    args = parser.parse_args()
    from medexpert.data.build import build
    from medexpert.recipe import Run

    # The source's name gives reader and licence; `path` puts the generated files in its place.
    shards = str(args.corpus.resolve() / "shards" / "*.jsonl")
    source = {"source": SOURCES[args.language], "path": shards}
    recipe = Run.model_validate(
        {
            "name": "benchmark",
            "seed": 1,
            "data": {
                "knowledge": (source,),
                "quarantine": (f"file:{(args.corpus / 'benchmark.jsonl').resolve()}",),
                "replay_share": 0.0,
                "workers": args.workers,
            },
            "instruct": {"enabled": False},
            "adapt": {"enabled": False},
        }
    )
    build(recipe, args.out, key="benchmark", progress=lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
