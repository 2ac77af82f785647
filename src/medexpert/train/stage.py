"""Run one stage: open its input model, feed it, train, save what the next stage starts from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from medexpert import manifest
from medexpert.model import base, checkpoint
from medexpert.model.adapters import ADAPTERS
from medexpert.model.folder import model_digest, read_lineage
from medexpert.model.text import TextEncoder
from medexpert.prompt.template import ChatFormat
from medexpert.recipe import Run, StageName
from medexpert.recipe_train import Stage
from medexpert.records import UserError
from medexpert.train import adapt, instruct, knowledge
from medexpert.train.batches import Account, Piece, Plan
from medexpert.train.loop import Outcome, train

Say = Callable[[str], None]
LINEAGE = (
    "stage", "recipe", "parent", "parent_digest", "data_sha256", "licence", "steps", "tokens",
    "seed", "quarantine", "leaks",
)  # fmt: skip
"""Facts of a stage that go with its weights."""


def run_stage(
    recipe: Run, name: StageName, *, parent: Path, data: Path, folder: Path, key: str, say: Say
) -> dict[str, Any]:
    """Train stage `name` from model folder `parent` on JSONL `data`; results under `folder`.

    Writes `folder/model` (a plain Hugging Face folder), `folder/adapter` (peft, when LoRA is used),
    `folder/log.jsonl`, and `folder/manifest.json` last; its checkpoints are then removed.
    Returns the manifest.
    """
    settings = recipe.stage(name)
    checked = quarantine_of(data, parent, allow_leaks=recipe.data.allow_leaks)
    (folder / manifest.MANIFEST).unlink(missing_ok=True)
    set_threads(recipe.threads)
    model: Any
    model, tokenizer = base.load(parent, dtype=torch.float32)
    _check_context(name, settings, model)
    account = Account()
    pieces = stage_pieces(name, data, tokenizer, settings, account)
    plan = Plan(
        pieces,
        capacity=settings.sequence_length,
        epochs=settings.epochs,
        max_tokens=settings.max_tokens,
        rows_per_step=settings.rows_per_step,
        seed=recipe.seed,
        shuffle=name != "knowledge",
    )
    _announce(name, plan, account, say)
    if settings.method != "full":
        model = ADAPTERS[settings.method](model, settings.lora, recipe.seed)
    outcome = train(
        model,
        plan,
        settings,
        name=name,
        folder=folder,
        key=key,
        seed=recipe.seed,
        pad=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
        vocabulary=model.config.get_text_config().vocab_size,
        say=say,
    )
    facts = {**_facts(recipe, name, parent, data, plan, account, outcome), **checked}
    lineage = {name: facts[name] for name in LINEAGE}
    shutil.rmtree(folder / "adapter", ignore_errors=True)  # of earlier settings
    if settings.method != "full":
        checkpoint.save_adapter(model, folder / "adapter", lineage=lineage)
        # Training rounded the frozen weights to its dtype: merge into the parent's own, which is
        # also what the adapter folder gives when it is opened.
        model = None
        model, _ = base.load(folder / "adapter", dtype=torch.float32)
    checkpoint.save_model(model, tokenizer, folder / "model", lineage=lineage, dtype=torch.float32)
    return _finish(folder, key, facts)


def quarantine_of(data: Path, parent: Path, *, allow_leaks: bool) -> dict[str, Any]:
    """`quarantine`: the benchmarks kept out of this data and of all that the parent learned from.

    `leaks`: whether data without any quarantine is behind the weights. Raises UserError for such
    data unless leaks are allowed.
    """
    built = manifest.read_manifest(data.parent)
    kept_out = set(built.get("quarantine", {}))
    if not built.get("quarantined") and not allow_leaks:
        raise UserError(
            "this data was built without quarantine: benchmark items may be in it",
            where=str(data),
            allowed="data.quarantine = [benchmarks], or --allow-leaks, which stamps every result",
        )
    before = read_lineage(parent)
    if "quarantine" in before:
        kept_out &= set(before["quarantine"])
    leaks = not built.get("quarantined") or bool(before.get("leaks"))
    return {"quarantine": sorted(kept_out), "leaks": leaks}


def _check_context(name: str, settings: Stage, model: Any) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and settings.sequence_length > limit:
        raise UserError(
            f"{name}.sequence_length is {settings.sequence_length}, but the model reads at most "
            f"{limit} tokens",
            where=name,
        )


def set_threads(threads: int) -> None:
    """CPU threads of torch; 0 keeps its default (all cores)."""
    if threads:
        torch.set_num_threads(threads)


def stage_pieces(
    name: StageName, data: Path, tokenizer: Any, settings: Stage, account: Account
) -> list[Piece]:
    """The stage's data as token pieces. Raises UserError when the tokenizer has no end of text."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise UserError("its tokenizer has no end-of-text token", where=str(data))
    encode = TextEncoder(tokenizer)
    length = settings.sequence_length
    # With one epoch the cap says how much is read; a share of an epoch, or more, is of all data.
    cap = settings.max_tokens if settings.epochs == 1 else 0
    if name == "knowledge":
        return knowledge.pieces(data, encode, eos, length, account, cap)
    chat = ChatFormat(*base.chat_format(tokenizer))
    room = {"instruct": instruct.pieces, "adapt": adapt.pieces}[name]
    return room(data, encode, chat, length, account, cap)


def _announce(name: str, plan: Plan, account: Account, say: Say) -> None:
    lost = ", ".join(f"{n} {why}" for why, n in account.dropped.items())
    say(
        f"{name}: {account.items} items ({account.split_items} split, {account.not_read} beyond "
        f"max_tokens{', dropped: ' + lost if lost else ''}), {plan.tokens} tokens in "
        f"{len(plan.rows)} rows, {plan.steps} steps"
    )


def _facts(
    recipe: Run,
    name: StageName,
    parent: Path,
    data: Path,
    plan: Plan,
    account: Account,
    outcome: Outcome,
) -> dict[str, Any]:
    return {
        "stage": name,
        "recipe": recipe.hash(),
        "seed": recipe.seed,
        "settings": recipe.stage(name).model_dump(mode="json"),
        "parent": str(parent),
        "parent_digest": model_digest(parent),
        "licence": base.describe(parent)["licence"],
        "data_sha256": manifest.sha256_file(data),
        "steps": outcome.steps,
        "rows": len(plan.rows),
        **{k: v for k, v in asdict(outcome.progress).items() if k != "step"},
        "first_loss": outcome.first_loss,
        "last_loss": outcome.last_loss,
        "head": outcome.head,
        "threads": torch.get_num_threads(),
        **account.facts(),
    }


def _finish(folder: Path, key: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the stage's manifest; only then are its checkpoints not needed any more."""
    files = [
        path
        for part in ("model", "adapter", "log.jsonl")
        for path in ([folder / part] if (folder / part).is_file() else (folder / part).glob("*"))
    ]
    entry = manifest.write_manifest(folder, key=key, files=files, facts=facts)
    shutil.rmtree(folder / "state", ignore_errors=True)
    return entry
