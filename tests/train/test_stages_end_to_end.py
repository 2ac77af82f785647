"""Whole stages from files to files, one for each way to train: they end, add up, and continue."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert import instruments, manifest
from medexpert.engines.local import LocalEngine
from medexpert.model import base
from medexpert.model.folder import read_lineage
from medexpert.model.special_tokens import infill_ids
from medexpert.pipeline import Pipeline
from medexpert.recipe import StageName, load
from medexpert.records import Document, Example, UserError, to_json
from medexpert.train.faults import Guard
from medexpert.train.stage import run_stage

SHORT = {
    "knowledge": ["max_tokens=0", "epochs=2", "sequence_length=64", "rows_per_step=4"],
    "instruct": ["max_tokens=0", "epochs=2", "sequence_length=128", "rows_per_step=2"],
    "adapt": ["max_tokens=0", "epochs=2", "sequence_length=128", "rows_per_step=2"],
}
SAME = ['dtype="float32"', 'compile="off"', "checkpoint_every=1", "learning_rate=3e-3"]


@dataclass
class Bench:
    """A base model, data and a recipe; `train` runs a stage of it."""

    recipe: Callable[..., Path]
    base: Path
    data: Path

    def train(
        self, name: StageName, *settings: str, to: str = "out", **meters: Any
    ) -> tuple[dict[str, Any], Path]:
        """(manifest, folder) of a stage with these settings of its own."""
        lines = [*SHORT[name], *SAME, *settings]
        recipe = load(self.recipe(), [f"{name}.{line}" for line in lines])
        folder = self.data.parent / to
        entry = run_stage(
            recipe, name, parent=self.base, data=self.data / f"{name}.jsonl", folder=folder,
            key="k", say=lambda line: None, **meters,
        )  # fmt: skip
        return entry, folder


@pytest.fixture
def bench(recipe: Callable[..., Path], base_model: Path, tmp_path: Path) -> Bench:
    folder = tmp_path / "data"
    folder.mkdir()
    texts = [
        Document(str(n), f"Drug {n} helped {n + 3} of 20 patients. They slept well. " * 3, "s")
        for n in range(16)
    ]
    examples = []
    for n in range(8):
        asked = {"question": f"Does drug {n} help?", "answer": "yes", "rejected": "no"}
        read = {**asked, "contexts": [f"It helped {n + 3} of 20 patients."]}
        examples.append(Example(f"r{n}", "s", "task", "pubmedqa.lm_eval", read))
        examples.append(Example(f"a{n}", "s", "qa", "chat.qa", asked))
    told = {"knowledge": texts, "instruct": examples, "adapt": examples}
    for name, rows in told.items():
        (folder / f"{name}.jsonl").write_text("".join(to_json(row) + "\n" for row in rows))
    facts = {"quarantined": True, "quarantine": {"pubmedqa": {}}}
    manifest.write_manifest(folder, key="d", files=sorted(folder.iterdir()), facts=facts)
    return Bench(recipe, base_model, folder)


def steps(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == "step"]


def tensors(folder: Path, **more: Any) -> dict[str, torch.Tensor]:
    model, _ = base.load(folder, dtype=torch.float32, **more)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def files(folder: Path) -> dict[str, bytes]:
    """What the stage saved of tensors, and its losses."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.safetensors")}
    return {**found, "losses": repr([row["loss"] for row in steps(folder)]).encode()}


def adds_up(entry: dict[str, Any], folder: Path) -> None:
    """The manifest's facts agree with its files, the log and each other."""
    manifest.verify(folder)
    log = steps(folder)
    assert len(log) == entry["steps"] >= 4
    assert (log[0]["loss"], log[-1]["loss"]) == (entry["first_loss"], entry["last_loss"])
    assert all(math.isfinite(row["loss"]) for row in log)
    assert entry["tokens"] == log[-1]["tokens"] == entry["plan"]["fed_tokens"]
    assert entry["loss_tokens"] == log[-1]["loss_tokens"] <= entry["tokens"]
    assert entry["skipped"].get("not finite", 0) == 0
    assert not (folder / "state").exists()
    assert not (folder / "tokens").exists()


KINDS: dict[str, tuple[StageName, list[str]]] = {
    "infill": ("knowledge", ["infill.words=0.3", "infill.sentences=0.2", "infill.suffix=0.3"]),
    "freeze": ("knowledge", ['freeze=["*embed_tokens*", "*layers.0.*"]', 'schedule="wsd"']),
    "prefix": ("instruct", ['attention="prefix"']),
    "lora": ("adapt", ['method="lora"', "lora.dropout=0.2"]),
    "dora": ("adapt", ['method="dora"']),
    "cpoly": ("adapt", ['method="cpoly"', "cpoly.rank=2"]),
    "preference": ("adapt", ['method="lora"', 'objective="preference"']),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_adds_up_and_continues_to_the_same_bytes(
    bench: Bench, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, settings = KINDS[kind]
    entry, whole = bench.train(name, *settings, to="whole")
    adds_up(entry, whole)
    assert entry["last_loss"] < entry["first_loss"]
    if name == "adapt":
        task = {"task": entry["tasks"][0]} if entry["tasks"] else {}
        opened, saved = tensors(whole / "adapter", **task), tensors(whole / "model")
        assert all(torch.equal(opened[n], saved[n]) for n in saved)
        assert set(opened) == set(saved)

    taken: list[float] = []
    usual = Guard.take

    def breaks(guard: Guard, norm: float) -> None:
        usual(guard, norm)
        taken.append(norm)
        if len(taken) == entry["steps"] // 2:
            raise ArithmeticError("in the middle")

    monkeypatch.setattr(Guard, "take", breaks)
    with pytest.raises(ArithmeticError, match="in the middle"):
        bench.train(name, *settings, to="cut")
    for thread in threading.enumerate():  # a process would end with its threads
        if thread.name.startswith("checkpoint"):
            thread.join()
    again, cut = bench.train(name, *settings, to="cut")
    assert len(taken) < 2 * entry["steps"] - 1  # it did not begin anew
    assert files(cut) == files(whole)
    for fact in ("steps", "tokens", "loss_tokens", "padding", "plan"):
        assert again[fact] == entry[fact]


# -- knowledge -----------------------------------------------------------------------------------


def test_infilling_adds_its_tokens_to_model_and_tokenizer(bench: Bench) -> None:
    entry, folder = bench.train("knowledge", *KINDS["infill"][1])
    model, tokenizer = base.load(folder / "model", dtype=torch.float32)
    before, plain = base.load(bench.base, dtype=torch.float32)
    with pytest.raises(UserError):
        infill_ids(plain)
    ids = infill_ids(tokenizer)
    added = [ids.mask, ids.smask, ids.gmask, ids.sop, ids.eop]
    rows = model.get_input_embeddings().weight
    assert len(set(added)) == 5
    assert max(added) < len(rows) == model.config.vocab_size
    assert tokenizer.encode("[gMASK]", add_special_tokens=False) == [ids.gmask]
    used = before.get_input_embeddings().weight
    assert not torch.equal(rows[: len(used)], used)
    assert len(torch.unique(rows[added].detach(), dim=0)) == 5  # each learned its own
    assert entry["steps"] == len(steps(folder))


def test_frozen_tensors_stay_and_wsd_holds_then_decays(bench: Bench) -> None:
    _, folder = bench.train(
        "knowledge", *KINDS["freeze"][1], "decay_share=0.4", "warmup_share=0.1", "weight_decay=0.3"
    )
    before, after = tensors(bench.base), tensors(folder / "model")
    still = {name for name in after if torch.equal(before[name], after[name])}
    # The head is tied to the embeddings, so it stands still with them.
    assert still == {
        n for n in after if "embed_tokens" in n or "layers.0." in n or n == "lm_head.weight"
    }
    rates = [row["learning_rate"] for row in steps(folder)]
    peak = max(rates)
    assert peak == pytest.approx(3e-3)
    falling = rates[round(0.6 * len(rates)) + 1 :]
    assert rates.count(peak) >= len(rates) // 3
    assert falling == sorted(falling, reverse=True)
    assert falling[0] < peak
    assert falling[-1] < 0.5 * peak


@pytest.mark.slow
def test_recomputing_activations_changes_nothing(bench: Bench) -> None:
    for name, settings in (("again", []), ("cpoly", KINDS["cpoly"][1])):
        stage: StageName = "adapt" if settings else "knowledge"
        _, kept = bench.train(stage, *settings, to=f"{name}-kept")
        _, again = bench.train(stage, *settings, "recompute=true", to=f"{name}-again")
        one, two = tensors(kept / "model"), tensors(again / "model")
        for tensor in one:
            torch.testing.assert_close(one[tensor], two[tensor], rtol=1e-5, atol=1e-6)
        losses = [[row["loss"] for row in steps(folder)] for folder in (kept, again)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# -- instruct ------------------------------------------------------------------------------------


def test_a_prefix_model_is_asked_through_its_prefix(bench: Bench) -> None:
    entry, folder = bench.train("instruct", 'attention="prefix"')
    assert entry["plan"]["rows"] < entry["items"]  # packed
    assert read_lineage(folder / "model")["attention"] == "prefix"
    engine = LocalEngine.open(folder / "model")
    assert engine.reading.prefix
    asked, choices = ["Context: It helped.\nQuestion: Does it?\nAnswer:"], [" yes", " no"]
    told = engine.choice_logprobs(asked, choices)
    plain = LocalEngine(engine.model, engine.tokenizer).choice_logprobs(asked, choices)
    assert told != plain
    assert _prefix_logprob(engine, asked[0], " yes") == pytest.approx(told[0][0], abs=1e-4)


@torch.no_grad()
def _prefix_logprob(engine: LocalEngine, prompt: str, answer: str) -> float:
    """ln p of the answer's tokens, all of the prompt visible to all of it: an own mask."""
    given = engine.encode(prompt)
    tokens = [*given, *engine.tokenizer.encode(answer, add_special_tokens=False)]
    place = torch.arange(len(tokens))
    seen = (place[None] <= place[:, None]) | (place[None] < len(given))
    mask = torch.zeros(1, 1, len(tokens), len(tokens)).masked_fill(~seen, -1e9)
    logits = engine.model(input_ids=torch.tensor([tokens]), attention_mask=mask).logits[0]
    log_p = torch.log_softmax(logits.float(), -1)
    at = range(len(given), len(tokens))
    return float(sum(log_p[i - 1, tokens[i]] for i in at))


# -- adapt ---------------------------------------------------------------------------------------


def test_cpoly_hands_on_the_task_that_merge_names(bench: Bench) -> None:
    settings = [*KINDS["cpoly"][1], 'cpoly.merge="pubmedqa.lm_eval"']
    entry, folder = bench.train("adapt", *settings)
    assert entry["tasks"] == ["chat.qa", "pubmedqa.lm_eval"]
    saved = tensors(folder / "model")
    merged = {task: tensors(folder / "adapter", task=task) for task in entry["tasks"]}
    assert all(torch.equal(saved[n], merged["pubmedqa.lm_eval"][n]) for n in saved)
    assert any(not torch.equal(saved[n], merged["chat.qa"][n]) for n in saved)
    for task in entry["tasks"]:  # a plain peft folder each
        assert (folder / "tasks" / task / "adapter_config.json").is_file()
        lora = tensors(folder / "tasks" / task)
        for name in saved:
            torch.testing.assert_close(lora[name], merged[task][name], rtol=1e-5, atol=1e-6)
    assert entry["routing"]
    with pytest.raises(UserError, match="for several tasks: name one"):
        tensors(folder / "adapter")
    with pytest.raises(UserError, match=r"unknown task 'chat\.q'"):
        tensors(folder / "adapter", task="chat.q")


def test_an_unknown_task_to_merge_is_refused(bench: Bench) -> None:
    with pytest.raises(UserError, match=r"adapt\.cpoly\.merge: unknown task 'chat\.qs'"):
        bench.train("adapt", *KINDS["cpoly"][1], 'cpoly.merge="chat.qs"')


@torch.no_grad()
def answer_logprobs(folder: Path, answer: str) -> list[tuple[float, int]]:
    """(summed ln p, number of tokens) of an answer and the end behind it, for each plain prompt."""
    model, tokenizer = base.load(folder, dtype=torch.float32)
    found = []
    for n in range(8):
        given = (
            f"Abstract: It helped {n + 3} of 20 patients.\nQuestion: Does drug {n} help?\nAnswer:"
        )
        start = tokenizer.encode(given, add_special_tokens=False)
        tokens = tokenizer.encode(given + answer, add_special_tokens=False)
        tokens = [*tokens, tokenizer.eos_token_id]
        assert tokens[: len(start)] == start
        log_p = torch.log_softmax(model(torch.tensor([tokens])).logits[0].float(), -1)
        at = range(len(start), len(tokens))
        found.append((float(sum(log_p[i - 1, tokens[i]] for i in at)), len(at)))
    return found


def test_preference_starts_at_ln_2_and_widens_the_margin(bench: Bench) -> None:
    pairs = [line for line in (bench.data / "adapt.jsonl").open() if "lm_eval" in line]
    (bench.data / "adapt.jsonl").write_text("".join(pairs))
    told = manifest.read_manifest(bench.data)
    manifest.write_manifest(
        bench.data, key="d", files=[bench.data / "adapt.jsonl"],
        facts={name: told[name] for name in ("quarantined", "quarantine")},
    )  # fmt: skip
    settings = [
        'objective="preference"', 'method="lora"', "lora.dropout=0.0", "rows_per_step=8",
        "epochs=6", "preference.likelihood=0.5", "learning_rate=1e-2",
    ]  # fmt: skip
    entry, folder = bench.train("adapt", *settings)
    prompted = {
        answer: (answer_logprobs(bench.base, answer), answer_logprobs(folder / "model", answer))
        for answer in (" yes", " no")
    }
    own = [-summed / count for summed, count in prompted[" yes"][0]]
    start = math.log(2) + 0.5 * sum(own) / len(own)
    assert entry["plan"]["rows"] <= 8 * 6
    assert entry["first_loss"] == pytest.approx(start, rel=1e-4)
    gained = [
        (yes_now[0] - yes[0]) - (no_now[0] - no[0])
        for yes, yes_now, no, no_now in zip(*prompted[" yes"], *prompted[" no"], strict=True)
    ]
    assert min(gained) > 0
    assert entry["last_loss"] < entry["first_loss"]
    assert not (folder / "reference.jsonl").exists()
    log = steps(folder)
    assert log[0]["margin"] == pytest.approx(0.0, abs=1e-4)
    assert log[-1]["margin"] > 0.1 * min(gained) / 2  # beta is 0.1
    assert log[-1]["accuracy"] == 1.0


# -- what is measured on the way -----------------------------------------------------------------


@pytest.mark.slow
def test_meters_through_the_real_pipeline(recipe: Callable[..., Path]) -> None:
    lines = [
        "knowledge.meter.at=[0.0, 0.5, 1.0]", 'knowledge.dtype="float32"',
        "instruct.enabled=false", 'adapt.meter.select="log_loss"', 'adapt.dtype="float32"',
        "adapt.meter.select_every=0.25", "adapt.learning_rate=1e-2",
    ]  # fmt: skip
    pipeline = Pipeline(load(recipe(), lines), lambda line: None)
    pipeline.run(
        [pipeline.data_step(), *(pipeline.stage_step(s) for s in pipeline.recipe.stages())]
    )
    measured = manifest.read_manifest(pipeline.root / "knowledge")["measured"]["meter"]
    total = manifest.read_manifest(pipeline.root / "knowledge")["steps"]
    assert [event["step"] for event in measured] == [0, round(total / 2), total]
    assert set(measured[0]["bits_per_byte"]) == {"starter-passages-en", "starter-general-en"}
    assert measured[-1]["medical"] < measured[0]["medical"]

    entry = manifest.read_manifest(pipeline.root / "adapt")
    events = [e for e in entry["measured"]["meter"] if e["kind"] == "dev"]
    assert len(events) >= 4
    assert events[-1]["step"] == entry["steps"]
    value, at = entry["measured"]["best"]
    assert value == min(event["log_loss"] for event in events)
    assert at == next(e["step"] for e in events if e["log_loss"] == value)
    # What was kept are the weights of that step.
    model, tokenizer = base.load(pipeline.root / "adapt" / "model", dtype=torch.float32)
    again = instruments.of_stage(pipeline, "adapt")["dev"](model, tokenizer)
    assert again["log_loss"] == pytest.approx(value, rel=1e-3)
