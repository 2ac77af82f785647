"""Invented data in the published schemas; no sentence of it is anyone's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers.pubmedqa import official_split
from medexpert.recipe import Run


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """write(name, rows) -> a JSONL file under tmp_path, gzip'd when the name ends in .gz."""

    def write(name: str, rows: Iterable[Mapping[str, Any]]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return path

    return write


def pqal_item(pmid: str, answer: str = "yes") -> dict[str, Any]:
    """One invented item in PubMedQA's JSON schema."""
    return {
        "QUESTION": f"Does treatment {pmid} shorten the stay?",
        "CONTEXTS": [f"Patients of ward {pmid} were allotted by lot.", "The stay was measured."],
        "LABELS": ["METHODS", "RESULTS"],
        "MESHES": ["Humans"],
        "YEAR": "2020",
        "reasoning_required_pred": answer,
        "reasoning_free_pred": answer,
        "final_decision": answer,
        "LONG_ANSWER": f"The stay was shorter on ward {pmid}.",
    }


@pytest.fixture(scope="session")
def pqal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a full set of 1,000 invented items under the official PMIDs."""
    root = tmp_path_factory.mktemp("root")
    folder = root / "stage3" / "pubmedqa"
    folder.mkdir(parents=True)
    pmids = sorted(official_split().everything())
    items = {p: pqal_item(p, ("yes", "no", "maybe")[int(p) % 3]) for p in pmids}
    (folder / "ori_pqal.json").write_text(json.dumps(items), encoding="utf-8")
    return root


@pytest.fixture
def make_recipe() -> Callable[..., Run]:
    """make(knowledge=[...], adapt=[...], **data): a stage without a source is switched off."""

    def make(seed: int = 7, **data: Any) -> Run:
        stages = ("knowledge", "instruct", "adapt")
        off = {stage: {"enabled": False} for stage in stages if not data.get(stage)}
        settings = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return Run.model_validate({"name": "t", "seed": seed, "data": settings, **off})

    return make
