"""The tools that are compared: how each is installed, started and read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"


@dataclass(frozen=True)
class Peer:
    """One tool in one setting. `environment` is the name of its requirements file, "" for ours."""

    name: str
    label: str
    does: str
    environment: str
    script: str
    arguments: tuple[str, ...] = ()


OURS = "ours"
PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "medexpert data build",
             "filters, exact, quarantine, MinHash, pairs confirmed, card", "", "ours.py"),
        Peer("datatrove-shipped", "datatrove as shipped",
             "MinHash 14x8, spaCy tokeniser", "datatrove", "peers_datatrove.py", ("shipped",)),
        Peer("datatrove-tuned", "datatrove tuned",
             "8-gram decontamination, MinHash 16x8, regular-expression tokeniser", "datatrove",
             "peers_datatrove.py", ("tuned",)),
        Peer("daft", "daft, full pipeline",
             "clean, exact, 8-gram decontamination, MinHash 16x8, pairs confirmed", "daft",
             "peers_daft.py"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Ids that a tool kept, took out as benchmark items, and took out for their quality."""

    kept: frozenset[str]
    leaked: frozenset[str]
    filtered: frozenset[str]


def python_of(peer: Peer, cache: Path) -> str:
    """The interpreter of a peer's environment, made from its pinned requirements if need be."""
    if not peer.environment:
        return sys.executable
    wanted = HERE / f"requirements-{peer.environment}.txt"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    folder = cache / "environments" / peer.environment
    python, marker = folder / "bin" / "python", folder / "requirements.sha256"
    if marker.exists() and marker.read_text() == digest:
        return str(python)
    print(f"installing {wanted.name} (not timed)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "-r", str(wanted)],
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    marker.write_text(digest)
    return str(python)


def command_of(
    peer: Peer, python: str, corpus: Path, out: Path, workers: int, language: str
) -> list[str]:
    """The command that runs a peer over a corpus."""
    return [
        python, str(HERE / peer.script), *peer.arguments, str(corpus), str(out),
        "--workers", str(workers), "--language", language,
    ]  # fmt: skip


def environment_of(peer: Peer) -> dict[str, str]:
    """Variables that a run gets: one thread a process, since each has a process a core."""
    found = {"OMP_NUM_THREADS": "1", "LOGURU_LEVEL": "ERROR", "DAFT_ANALYTICS_ENABLED": "0"}
    found["PYTHONPATH"] = "" if peer.environment else str(SOURCE)
    return found


def versions_of(peer: Peer, python: str) -> dict[str, str]:
    """Versions of what matters in a peer's environment."""
    names = ["medexpert", "datatrove", "daft", "numpy", "spacy", "xxhash", "pyarrow", "orjson"]
    code = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    env = {**os.environ, **environment_of(peer)}
    done = subprocess.run([python, "-c", code, *names], capture_output=True, check=True, env=env)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def outcome_of(peer: Peer, out: Path) -> Outcome:
    """What a finished run kept and took out."""
    if peer.name == OURS:
        leaked, filtered = set(), set()
        for row in _rows(out / "drops.jsonl"):
            if row["reason"].startswith("quarantine_"):
                leaked.add(row["id"])
            elif not row["reason"].endswith("duplicate"):
                filtered.add(row["id"])
        kept = frozenset(row["id"] for row in _rows(out / "knowledge.jsonl"))
        return Outcome(kept, frozenset(leaked), frozenset(filtered))
    kept = frozenset(row["id"] for file in (out / "kept").glob("*.json*") for row in _rows(file))
    if peer.environment == "daft":
        names = json.loads((out / "leaked.json").read_text("utf-8"))
    else:
        names = [row["id"] for file in (out / "leaked").glob("*.jsonl") for row in _rows(file)]
    return Outcome(kept, frozenset(names), frozenset())


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
