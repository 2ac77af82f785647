"""Copy the small, redistributable part of a run: numbers and labels, no text of the data.

What may leave: the resolved recipe, manifests, logs, results, labels and probabilities, and a
report without examples. What stays: documents, questions, rationales, weights. Paths of this
machine are replaced by names.
"""

from __future__ import annotations

import html
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.records import NO_ANSWER, UserError

STAGES = ("knowledge", "instruct", "adapt")
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
    # Where each question has its own choices, a label is a text of the benchmark.
    labels = [p.with_name("predictions.json") for p in results if not _lettered(p)]
    for path in [*_small(root), *results, *labels]:
        written.append(_copy(path, out / path.relative_to(root), names))
    written += publish_cards(root / "data", out / "data", names)
    written.append(_manifest(root / "data", out / "data", names))
    for path in results:
        written.append(_predictions(path.with_name("predictions.jsonl"), out, root))
    for path in write(root, examples=False):
        written.append(_copy(path, out / "report" / path.name, names))
    write(root)  # the run's own report keeps its examples
    written.append(_machine(command, out, names))
    say(f"{len(written)} files without text of the data in {out}")
    return written


def publish_data(root: Path, out: Path, *, command: str, say: Callable[[str], None]) -> list[Path]:
    """The card and the manifest of a finished build, without samples; returns the files."""
    names = _names(root)
    files = publish_cards(root / "data", out, names)
    files.append(_manifest(root / "data", out, names))
    files.append(_machine(command, out, names))
    say(f"{len(files)} files without text of the data in {out}")
    return files


def publish_cards(data: Path, out: Path, names: Mapping[str, str]) -> list[Path]:
    """The data card anew without samples, Markdown and HTML: no sentence of the data."""
    from medexpert.data.card import render_html, render_markdown

    facts: Any = without_text(manifest.read_manifest(data))
    cards = {"card.md": render_markdown(facts, []), "card.html": render_html(facts, [])}
    for name, text in cards.items():
        manifest.write_text(out / name, _renamed(text, names))
    return [out / name for name in cards]


def without_text(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A build's facts without what was wrong with a row, which may quote it: its place stays."""
    stages = {
        stage: {
            **made,
            "sources": {
                name: {
                    **source,
                    "first_faults": [{"where": f["where"]} for f in source["first_faults"]],
                }
                for name, source in made["sources"].items()
            },
        }
        for stage, made in facts["stages"].items()
    }
    return {**facts, "stages": stages}


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
    yield from sorted(root.glob("evaluate/*/heldout.json"))
    for stage in STAGES:
        yield from (
            p for name in ("manifest.json", "log.jsonl") if (p := root / stage / name).is_file()
        )


def _names(root: Path) -> dict[str, str]:
    """Paths of this machine, as text may hold them -> what is written instead, longest first."""
    from medexpert.model.staging import cache_root

    found = {
        **_named_in(root / "recipe.json"),
        str(Path.home()): "~",
        str(Path.cwd()): ".",
        str(cache_root().resolve()): "CACHE",
        str(root.resolve()): "RUN",
    }
    forms = {
        form: name
        for path, name in found.items()
        for form in (path, json.dumps(path)[1:-1], html.escape(path))
    }
    return dict(sorted(forms.items(), key=lambda pair: -len(pair[0])))


def _named_in(file: Path) -> dict[str, str]:
    """The places that a recipe names: DATA its data.root, SOURCE a source's, PATH any other."""
    if not file.is_file():
        return {}
    recipe = manifest.read_json(file)
    found = {
        path: f"PATH/{os.path.basename(path)}"
        for text in _texts(recipe)
        for path in _absolute(text)
    }
    data = recipe.get("data") or {}
    for stage in STAGES:
        for source in data.get(stage) or ():
            paths = _absolute(source.get("path") or "")
            # A private file's name may be a patient's, wherever it lies.
            if source.get("phi", "off") != "off" and "/" in source["path"]:
                paths = [*paths, source["path"]]
            found |= dict.fromkeys(paths, f"SOURCE({source.get('source', '')})")
    return found | dict.fromkeys(_absolute(data.get("root") or ""), "DATA")


def _absolute(text: str) -> list[str]:
    """The local absolute path that a setting holds, as it is and with links followed."""
    path = re.sub(r"^(?:file:(?://)?|local://)(?=/)", "", text)
    if path.startswith("~/"):
        return [path, os.path.expanduser(path)]
    if not path.startswith("/") or "\n" in path or len(path) > 4096:
        return []
    path = path.rstrip("/")
    return [path, os.path.realpath(path)] if path else []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _copy(source: Path, target: Path, names: Mapping[str, str]) -> Path:
    manifest.write_text(target, _renamed(source.read_text("utf-8"), names))
    return target


def _manifest(data: Path, out: Path, names: Mapping[str, str]) -> Path:
    facts = without_text(manifest.read_manifest(data))
    return _write_renamed(facts, out / manifest.MANIFEST, names)


def _machine(command: str, out: Path, names: Mapping[str, str]) -> Path:
    return _write_renamed(machine(command), out / "machine.json", names)


def _write_renamed(value: Any, target: Path, names: Mapping[str, str]) -> Path:
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    manifest.write_text(target, _renamed(text, names))
    return target


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """Whole paths only: one that begins inside a URL or another path, or goes on, is another."""
    wanted = [path for path in names if path.strip("/. ")]
    if not wanted:
        return text
    inside = "|".join(map(re.escape, wanted))
    # Before it: nothing that a path or an address may be made of, or file://. After it: no more of
    # the last name.
    border = rf"(?:(?<![\w.~/%-])|(?<=file://)|(?<=local://))({inside})(?![\w-]|\.\w)"
    return re.sub(border, lambda found: names[found[1]], text, flags=re.ASCII)


def _lettered(result: Path) -> bool:
    """Whether an evaluation's questions have choices of their own."""
    return bool(manifest.read_json(result).get("labels") == "letters")


def _predictions(source: Path, out: Path, root: Path) -> Path:
    """Labels and probabilities without traces, which may quote the benchmark, as may the reason of
    a refusal; of questions with choices of their own only whether the answer was right."""
    rows = [json.loads(line) for line in source.read_bytes().splitlines()]
    refused = [bool(row["trace"].get("refused")) for row in rows]
    kept = [
        {key: row[key] for key in KEPT} | ({"trace": {"refused": "not published"}} if lost else {})
        for row, lost in zip(rows, refused, strict=True)
    ]
    if _lettered(source.with_name("result.json")):
        kept = [
            {"id": row["id"], "correct": row["choice"] == row["answer"],
             "unparsed": row["choice"] == NO_ANSWER and not lost, "refused": lost}
            for row, lost in zip(rows, refused, strict=True)
        ]  # fmt: skip
    lines = [json.dumps(row) + "\n" for row in kept]
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
