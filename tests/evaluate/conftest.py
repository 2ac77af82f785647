"""A small task, a strategy and an engine without weights, and whole run folders made with them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medexpert import manifest
from medexpert.engines.base import Usage
from medexpert.evaluate import run
from medexpert.evaluate.report import write
from medexpert.evaluate.tasks import Task
from medexpert.prompt import strategies as table_of
from medexpert.records import NO_ANSWER, Prediction, Question, digest

CHOICES = ("yes", "no", "maybe")
RATIONALES = {"yes": {"text": "<b>because</b>", "tokens": 1}, "no": "plain"}


def questions(n: int, note: str = "") -> list[Question]:
    """Questions with a fixed gold label each: 11 yes, 7 no, 2 maybe in every 20."""
    gold = ["yes"] * 11 + ["no"] * 7 + ["maybe"] * 2
    return [
        Question(
            id=f"q{i:03d}",
            question=f"Does <drug {i}> & co. help{note}?",
            choices=CHOICES,
            answer=gold[i * 7 % 20],
            contexts=(f"Abstract number {i}: 5 < 6.",),
        )
        for i in range(n)
    ]


def toy_task(n: int = 40, *, name: str = "toy", version: str = "1", official: bool = True) -> Task:
    return Task(
        name=name,
        version=version,
        protocols=("reasoning-required", "question-only"),
        choices=CHOICES,
        load=lambda root, split: questions(n),
        official=official,
        note="A toy",
    )


class FakeEngine:
    """An engine that is never asked: the strategy below makes its answers from its own seed."""

    chat = ("", "", "")

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.asked = 0

    def facts(self) -> dict[str, Any]:
        return {"engine": "fake", "dtype": "none"}

    def usage(self) -> Usage:
        return Usage(
            calls=self.asked, prompt_tokens=10 * self.asked, generated_tokens=2 * self.asked
        )

    def text_logprobs(self, texts: Sequence[str]) -> list[Any]:
        return [
            SimpleNamespace(
                logprob=-0.5 * len(t.encode()), tokens=len(t.split()), bytes=len(t.encode())
            )
            for t in texts
        ]


class FakeStrategy:
    """Right with probability `skill`; a share `lost` of its answers names no choice."""

    version = 1
    seeded = True

    def __init__(
        self, skill: float = 0.7, lost: float = 0.0, stop_after: int | None = None
    ) -> None:
        self.skill, self.lost, self.stop_after = skill, lost, stop_after
        self.asked: list[str] = []

    def predict(
        self,
        asked: Sequence[Question],
        engine: Any,
        *,
        protocol: str,
        seed: int,
        examples: Any = (),
    ) -> Iterator[Prediction]:
        for index, question in enumerate(asked):
            if self.stop_after is not None and index >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(question.id)
            engine.asked += 1
            rng = random.Random(f"{engine.name} {question.id} {seed}")
            choice = question.answer if rng.random() < self.skill else rng.choice(CHOICES)
            top = 0.4 + 0.5 * rng.random()
            shares = {c: top if c == choice else (1 - top) / 2 for c in CHOICES}
            if rng.random() < self.lost:
                choice = NO_ANSWER
            yield Prediction(
                id=question.id,
                choice=choice,
                answer=question.answer,
                probabilities=shares,
                trace={"rationales": RATIONALES, "tokens": {"prompt": 10, "new": 2}},
            )


@pytest.fixture
def strategies(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeStrategy]:
    """The strategy table as the runner sees it; a test may add to it."""
    table = {"direct": FakeStrategy(), "voc": FakeStrategy(0.5, lost=0.15)}
    monkeypatch.setattr(table_of, "STRATEGIES", table)
    return table


@pytest.fixture
def evaluate(strategies: dict[str, FakeStrategy]) -> Callable[..., dict[str, Any]]:
    """`run.evaluate` with defaults; `lines` collects its messages."""

    def call(out: Path, **changes: Any) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "data": Path(), "strategy": "direct", "protocol": "reasoning-required", "limit": 0,
            "seed": 1, "key": "k1", "progress": lambda line: None,
        } | changes  # fmt: skip
        engine: Any = settings.pop("engine", None) or FakeEngine()
        task = settings.pop("task", None) or toy_task()
        return run.evaluate(engine, task, out=out, **settings)

    return call


SKILLS = {"base": 0.3, "knowledge": 0.35, "instruct": 0.5, "adapt": 0.85}


def make_run(folder: Path, points: Sequence[str], task: Task) -> None:
    """A synthetic run folder with everything a pipeline writes, up to the points asked for."""
    recipe = {
        "name": "toy", "seed": 2312, "base": {"model": "tiny", "revision": ""},
        "knowledge": {"method": "full", "enabled": True},
        "instruct": {"method": "full", "enabled": True},
        "adapt": {"method": "lora", "enabled": True},
        "evaluate": {"points": list(SKILLS), "strategies": ["direct", "voc"]},
    }  # fmt: skip
    manifest.write_json(folder / "recipe.json", {"recipe": recipe, "hash": digest(recipe)})
    _data(folder / "data")
    for number, point in enumerate(points):
        skill = SKILLS[point]
        table = {"direct": FakeStrategy(skill), "voc": FakeStrategy(skill, 0.1)}
        engine: Any = FakeEngine(point)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(table_of, "STRATEGIES", table)
            for strategy in table:
                run.evaluate(
                    engine, task, data=Path(), strategy=strategy, protocol="reasoning-required",
                    out=folder / "evaluate" / point / strategy, key="k1", seed=1,
                    progress=lambda line: None,
                )  # fmt: skip
        manifest.write_json(folder / "evaluate" / point / "heldout.json", _heldout(number))
        if point != "base":
            _stage(folder / point, number)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run folders made once a session; they must not be changed."""
    made: dict[tuple[str, ...], Path] = {}

    def build(points: Sequence[str] = tuple(SKILLS), task: Task | None = None) -> Path:
        chosen = task or toy_task(100)
        key = (chosen.name, *points)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("run")
            make_run(made[key], points, chosen)
        return made[key]

    return build


@pytest.fixture
def run_folder(tmp_path: Path, built: Callable[..., Path]) -> Callable[..., Path]:
    """A copy of a run folder, free to be changed."""

    def make(points: Sequence[str] = tuple(SKILLS), task: Task | None = None) -> Path:
        return shutil.copytree(built(points, task), tmp_path / "run")

    return make


@pytest.fixture(scope="session")
def whole(built: Callable[..., Path]) -> tuple[Path, str, str]:
    """(run folder, report.md, report.html) of a whole run, written once."""
    folder = built()
    markdown, page = write(folder)
    return folder, markdown.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")


def _data(folder: Path) -> None:
    def source(role: str, read: int, kept: int, characters: int, share: float) -> dict[str, Any]:
        nothing: dict[str, Any] = {"faults": 0, "refused": {}, "quarantined": {}, "dropped": {}}
        return {
            **nothing, "role": role, "read": read, "heldout": 20, "kept": kept,
            "characters": characters, "realised": share, "duplicates": {"exact": 0, "near": 0},
        }  # fmt: skip

    starter = source("train", 1200, 1157, 912_345, 0.9)
    starter |= {"dropped": {"too_short": 18}, "duplicates": {"exact": 3, "near": 0}}
    starter |= {"quarantined": {"pubmedqa": {"13gram": 2}}}
    sources = {"starter": starter, "general": source("replay", 300, 280, 101_234, 0.1)}
    facts = {
        "quarantined": True,
        "stages": {"knowledge": {"sources": sources}},
        "quarantine": {"pubmedqa": {"listed": 1000}},
    }
    folder.mkdir(parents=True)
    manifest.write_manifest(folder, key="data-key", files=[], facts=facts)


def _stage(folder: Path, number: int) -> None:
    folder.mkdir(parents=True)
    rng = random.Random(number)
    lines = [{"event": "start"}]
    for step in range(1, 121):
        loss = 2.5 / number + 1.5 / (1 + step / 20) + rng.gauss(0, 0.15)
        rate = 1e-4 * min(1.0, step / 6) * (1 - step / 140)
        lines.append({"event": "step", "step": step, "loss": loss, "learning_rate": rate})  # type: ignore[dict-item]
    (folder / "log.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines) + '{"torn')
    facts = {"steps": 120, "items": 4321, "not_read_beyond_max_tokens": 8765, "rows": 960,
             "tokens": 491_520, "loss_tokens": 300_000,
             "seconds": 5400.0, "dropped": {"too_long": 4}}  # fmt: skip
    manifest.write_manifest(folder, key=f"stage-{number}", files=[], facts=facts)


def _heldout(number: int) -> dict[str, Any]:
    value = {"documents": 40, "tokens": 9000, "bytes": 40_000, "interval": None, "empty": 0}
    return {
        "starter": {"role": "medical", **value, "bits_per_byte": 1.10 - 0.05 * number},
        "general": {"role": "general", **value, "bits_per_byte": 1.00 + 0.01 * number},
    }


@pytest.fixture
def fakes() -> SimpleNamespace:
    """The classes above (test folders hold no `__init__.py`, so a conftest cannot be imported)."""
    return SimpleNamespace(
        engine=FakeEngine, strategy=FakeStrategy, task=toy_task, questions=questions
    )
