"""Copy the small, redistributable part of a run: numbers and labels, no text of the data.

What may leave: the resolved recipe, manifests, logs, results, labels and probabilities, and a
report without examples. What stays: documents, questions, rationales, weights. Paths of this
machine are replaced by names.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.records import UserError

KEPT = ("id", "choice", "answer", "probabilities")


def publish(root: Path, out: Path, *, command: str, say: Callable[[str], None]) -> list[Path]:
    """Write the publishable part of run folder `root` to `out`; returns the files.

    Raises UserError when `root` holds no finished evaluation.
    """
    from medexpert.evaluate.report import write

    results = sorted(root.glob("evaluate/*/*/result.json"))
    if not results:
        raise UserError("no finished evaluation to publish", where=str(root))
    names = _names(root)
    written = []
    for path in [*_small(root), *results, *(p.with_name("predictions.json") for p in results)]:
        written.append(_copy(path, out / path.relative_to(root), names))
    written += publish_cards(root / "data", out / "data", _names(root))
    for path in results:
        written.append(_predictions(path.with_name("predictions.jsonl"), out, root))
    for path in write(root, examples=False):
        written.append(_copy(path, out / "report" / path.name, names))
    write(root)  # the run's own report keeps its examples
    manifest.write_json(out / "machine.json", machine(command))
    say(f"{len(written) + 1} files without text of the data in {out}")
    return [*written, out / "machine.json"]


def publish_data(root: Path, out: Path, *, command: str, say: Callable[[str], None]) -> list[Path]:
    """The card and the manifest of a finished build, without samples; returns the files."""
    names = _names(root)
    files = publish_cards(root / "data", out, names)
    files.append(_copy(root / "data" / "manifest.json", out / "manifest.json", names))
    manifest.write_json(out / "machine.json", machine(command))
    say(f"{len(files) + 1} files without text of the data in {out}")
    return [*files, out / "machine.json"]


def publish_cards(data: Path, out: Path, names: dict[str, str]) -> list[Path]:
    """The data card anew without samples, Markdown and HTML: no sentence of the data."""
    from medexpert.data.card import render_html, render_markdown

    facts: Any = manifest.read_manifest(data)
    cards = {"card.md": render_markdown(facts, []), "card.html": render_html(facts, [])}
    for name, text in cards.items():
        manifest.write_text(out / name, _renamed(text, names))
    return [out / name for name in cards]


def machine(command: str) -> dict[str, Any]:
    """What the numbers were measured on, and with which command."""
    return {
        "command": command,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": _gpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": manifest.versions(),
    }


def _small(root: Path) -> Iterable[Path]:
    yield root / "recipe.json"
    yield root / "data" / "manifest.json"
    yield from sorted(root.glob("evaluate/*/heldout.json"))
    for stage in ("knowledge", "instruct", "adapt"):
        yield from (
            p for name in ("manifest.json", "log.jsonl") if (p := root / stage / name).is_file()
        )


def _names(root: Path) -> dict[str, str]:
    """Absolute paths of this machine -> what is written instead, longest first."""
    from medexpert.model.staging import cache_root

    found = {
        str(root.resolve()): "RUN",
        str(cache_root().resolve()): "CACHE",
        str(Path.cwd()): ".",
        str(Path.home()): "~",
    }
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def _copy(source: Path, target: Path, names: dict[str, str]) -> Path:
    manifest.write_text(target, _renamed(source.read_text("utf-8"), names))
    return target


def _renamed(text: str, names: dict[str, str]) -> str:
    for path, name in names.items():
        text = text.replace(path, name)
    return text


def _predictions(source: Path, out: Path, root: Path) -> Path:
    """Labels and probabilities without traces, which may quote the benchmark."""
    rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    lines = [json.dumps({key: row[key] for key in KEPT}) + "\n" for row in rows]
    target = out / source.relative_to(root)
    manifest.write_text(target, "".join(lines))
    return target


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or "unknown"
    lines = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return lines[0] if lines else platform.processor() or "unknown"


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
