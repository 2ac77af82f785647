"""The data room's benchmark: ours against datatrove and daft on one generated corpus, and scale.

    python benchmarks/data.py --documents 50000                 # English, all tools, 5 repetitions
    python benchmarks/data.py --documents 10000 --language zh   # Chinese
    python benchmarks/data.py --scale 10000,100000,1000000 --repeats 3
    python benchmarks/data.py --report --plot                   # the table and the figure

Results go to results/data-benchmark as JSON, every repetition in it; the report is made from that
JSON alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpus import BLOCK, LANGUAGES, write_corpus
from measure import CommandFailed, machine, run
from peers import (
    OURS,
    PEERS,
    Outcome,
    Peer,
    command_of,
    environment_of,
    outcome_of,
    python_of,
    versions_of,
)
from report import plot, write_report
from truth import score, truth_of

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "data-benchmark"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for; returns the exit code."""
    args = _arguments(argv)
    args.results.mkdir(parents=True, exist_ok=True)
    try:
        if args.documents:
            compare(args)
        for size in args.scale:
            scale(args, size)
    except CommandFailed as error:
        print(error, file=sys.stderr)
        return 1
    if args.plot:
        plot(args.results)
    if args.report:
        write_report(args.results)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=_size, default=0, help="compare on so many documents")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated: %(default)s")
    parser.add_argument("--scale", type=_sizes, default=(), help="ours alone on each size")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="write README.md from the JSON")
    parser.add_argument("--plot", action="store_true", help="write scale.svg from the JSON")
    args = parser.parse_args(argv)
    args.chosen = [name for name in args.peers.split(",") if name]
    for name in args.chosen:
        if name not in PEERS:
            parser.error(f"--peers: {name!r} is not one of {', '.join(PEERS)}")
    if args.repeats < 1 or args.workers < 1:
        parser.error("--repeats and --workers are at least 1")
    if not (args.documents or args.scale or args.report or args.plot):
        parser.error("nothing to do: give --documents, --scale, --report or --plot")
    # What was asked, without the folders of this machine.
    given = list(sys.argv[1:] if argv is None else argv)
    kept = [word for word, before in zip(given, ["", *given], strict=False)
            if "--cache" not in (word, before) and "--results" not in (word, before)]  # fmt: skip
    args.command = " ".join(["python benchmarks/data.py", *kept])
    return args


def _size(text: str) -> int:
    size = int(text)
    if size < BLOCK or size % BLOCK:
        raise argparse.ArgumentTypeError(f"{text}: a multiple of {BLOCK} is needed")
    return size


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_size(part) for part in text.split(","))


def compare(args: argparse.Namespace) -> None:
    """All chosen tools on one corpus, interleaved; each repetition starts with another tool."""
    corpus = corpus_of(args, args.documents, args.language)
    peers = [PEERS[name] for name in args.chosen]
    pythons = {peer.name: python_of(peer, args.cache) for peer in peers}
    print("finding the truth (not timed)", flush=True)
    truth = truth_of(corpus)
    rows: list[dict[str, Any]] = []
    scores: dict[str, tuple[str, dict[str, Any]]] = {}
    for repeat in range(args.repeats):
        shift = repeat % len(peers)
        for peer in peers[shift:] + peers[:shift]:
            row, found = once(peer, pythons[peer.name], corpus, args, args.language)
            digest = _digest(found)
            if scores.get(peer.name, ("",))[0] != digest:
                told = score(truth, found.kept, found.leaked, found.filtered)
                scores[peer.name] = (digest, told)
            rows.append({"repeat": repeat + 1, **row, "output": digest,
                         "scores": scores[peer.name][1]})  # fmt: skip
    facts = {
        **_about(args, args.documents, args.language),
        "versions": {peer.name: versions_of(peer, pythons[peer.name]) for peer in peers},
        "runs": rows,
    }
    _write(args.results / f"compare-{args.language}.json", facts)


def scale(args: argparse.Namespace, size: int) -> None:
    """Ours alone on one size; the JSON holds the latest runs of each size."""
    file = args.results / "scale.json"
    held = json.loads(file.read_text("utf-8")) if file.exists() else {"sizes": {}}
    # A build of a hundred documents is hardly more than starting and ending.
    held["start"] = _alone(args, BLOCK)
    _write(file, held)
    held["sizes"][str(size)] = _alone(args, size)
    _write(file, held)


def _alone(args: argparse.Namespace, size: int) -> dict[str, Any]:
    corpus = corpus_of(args, size, args.language)
    rows = []
    for repeat in range(args.repeats):
        row, found = once(PEERS[OURS], sys.executable, corpus, args, args.language)
        kept = {"kept": len(found.kept), "leaked": len(found.leaked)}
        rows.append({"repeat": repeat + 1, **row, **kept})
    return {**_about(args, size, args.language), "runs": rows}


def corpus_of(args: argparse.Namespace, documents: int, language: str) -> Path:
    """The folder of a corpus, written if need be and read once, so that no run reads it cold."""
    folder: Path = args.cache / f"{language}-{documents}-{args.seed}"
    print(f"corpus of {documents:,} documents (not timed)", flush=True)
    write_corpus(folder, documents, seed=args.seed, language=language)
    for shard in sorted((folder / "shards").glob("*.jsonl")):
        with shard.open("rb") as lines:
            while lines.read(1 << 20):
                pass
    return folder


def once(
    peer: Peer, python: str, corpus: Path, args: argparse.Namespace, language: str
) -> tuple[dict[str, Any], Outcome]:
    """One measured run; its output is read and removed."""
    out = args.cache / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = command_of(peer, python, corpus, out, args.workers, language)
    took = run(command, environment_of(peer), args.cache / f"{peer.name}.log")
    found = outcome_of(peer, out)
    shutil.rmtree(out, ignore_errors=True)
    print(f"{peer.name}: {took.seconds:,.1f} s, {took.pss_mb:,.0f} MB, {len(found.kept):,} kept",
          flush=True)  # fmt: skip
    row = {"peer": peer.name, "seconds": took.seconds, "pss_mb": took.pss_mb,
           "rss_mb": took.rss_mb}  # fmt: skip
    return row, found


def _about(args: argparse.Namespace, documents: int, language: str) -> dict[str, Any]:
    folder = args.cache / f"{language}-{documents}-{args.seed}" / "shards"
    files = list(folder.glob("*.jsonl"))
    return {
        "command": args.command,
        "documents": documents,
        "language": language,
        "seed": args.seed,
        "bytes": sum(file.stat().st_size for file in files),
        "files": len(files),
        "workers": args.workers,
        "machine": machine(),
    }


def _digest(found: Outcome) -> str:
    text = "\n".join(sorted(found.kept)) + "\n\n" + "\n".join(sorted(found.leaked))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(file: Path, value: Any) -> None:
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
    partial.replace(file)


if __name__ == "__main__":
    raise SystemExit(main())
