"""The training part of a recipe: one class for the three stages, because the loop is one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medexpert.recipe_data import Count, Positive, Share, Strict

Decay = Annotated[float, Field(ge=0, lt=1)]
Method = Literal["full", "lora", "dora", "qlora", "cpoly"]
DROPOUT = "share of an adapter's inputs set to 0 while training"
TARGETS = "where adapters sit: all-linear, ends of names, or a regular expression"


class Lora(Strict):
    """Low-rank adapters as in peft; for the methods lora, dora and qlora."""

    rank: Positive = Field(16, description="rank of each update")
    alpha: Positive = Field(32, description="an update is scaled by alpha / rank")
    dropout: float = Field(0.05, ge=0, lt=1, description=DROPOUT)
    target_modules: str | tuple[str, ...] = Field("all-linear", description=TARGETS)


class CPoly(Strict):
    """Customised Polytropon: low-rank skills shared by all tasks, and skills of each task's own."""

    rank: Positive = Field(8, description="rank of each skill")
    alpha: Positive = Field(16, description="a skill is scaled by alpha / rank")
    common: Count = Field(3, description="skills shared by all tasks")
    private: Count = Field(1, description="skills of each task's own")
    tasks: dict[str, tuple[str, ...]] = Field(
        default={},
        description="task = names of templates or sources, * allowed; empty = a task a template",
    )
    merge: str = Field(
        "", description="task whose weights become the stage's model; empty = the first"
    )
    target_modules: str | tuple[str, ...] = Field("all-linear", description=TARGETS)
    dropout: float = Field(0.05, ge=0, lt=1, description=DROPOUT)
    norm: Literal["joint", "separate"] = Field(
        "joint", description="the weights that sum to 1: all of a task, or its shared ones alone"
    )
    gumbel: bool = Field(True, description="sample the shared logits while training")
    temperature: float = Field(
        1.0, gt=0, description="of the sampled logits; lower is nearer 0 or 1"
    )
    router_learning_rate: float = Field(
        5e-2, gt=0, lt=10, description="peak learning rate of the routing logits"
    )

    @model_validator(mode="after")
    def _usable(self) -> CPoly:
        if self.common + self.private == 0:
            raise ValueError("common and private are both 0: there is no skill to learn")
        if self.merge and self.tasks and self.merge not in self.tasks:
            raise ValueError(
                f"merge = {self.merge!r} is none of the tasks: {', '.join(self.tasks)}"
            )
        return self


class Infill(Strict):
    """GLM blank infilling: shares of the items that become each task; the rest is causal."""

    words: Share = Field(0.0, description="[MASK]: spans of about 3 tokens, 15 % of the text")
    sentences: Share = Field(0.0, description="[sMASK]: whole sentences, 15 % of the text")
    suffix: Share = Field(0.0, description="[gMASK]: the end of the text, read both ways before")
    corrupt: Share = Field(0.0, description="share of the answer's inputs replaced at random")
    anneal: Share = Field(0.0, description="last share of the steps that is all [gMASK]")

    @property
    def total(self) -> float:
        return self.words + self.sentences + self.suffix

    @property
    def on(self) -> bool:
        return self.total > 0 or self.anneal > 0

    @model_validator(mode="after")
    def _at_most_all(self) -> Infill:
        if self.total > 1 + 1e-9:
            raise ValueError(f"words + sentences + suffix = {self.total:g}, more than 1")
        return self


class Preference(Strict):
    """Direct preference optimisation, for examples that carry a `rejected` answer."""

    beta: float = Field(
        0.1, gt=0, description="of DPO: larger stays nearer to the model at the start"
    )
    likelihood: float = Field(0.1, ge=0, description="weight of the chosen answer's own loss")


class Meter(Strict):
    """What is measured while a stage trains, and what it decides."""

    at: tuple[Share, ...] = Field(
        (), description="shares of the steps at which bits/byte on held-out text is measured"
    )
    stop_general: float = Field(
        0.0, ge=0, description="stop when general text costs more bits/byte by this share; 0 = off"
    )
    select: Literal["last", "accuracy", "macro_f1", "log_loss"] = Field(
        "last", description="which weights are kept: the last, or the best on the dev fold"
    )
    select_every: Share = Field(0.25, description="share of the steps between two measurements")


class Stage(Strict):
    """Settings of one training stage."""

    enabled: bool = Field(True, description="false leaves the stage out")
    method: Method = Field(
        "full", description="what moves: every weight, low-rank adapters, or C-Poly's skills"
    )
    freeze: tuple[str, ...] = Field((), description="parameters kept still: names, * allowed")
    objective: Literal["likelihood", "preference"] = Field(
        "likelihood", description="preference: pairs of a chosen and a `rejected` answer (DPO)"
    )
    attention: Literal["causal", "prefix"] = Field(
        "causal", description="prefix: what is given is read both ways, what is learned causally"
    )
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    max_tokens: Count = Field(0, description="stop after so many tokens; 0 = no cap")
    sequence_length: int = Field(
        512, ge=16, description="tokens a row; longer items are split or dropped, counted"
    )
    rows_per_step: Positive = Field(8, description="rows behind one optimiser step, all processes")
    micro_rows: Positive = Field(1, description="rows in memory at once, each process")
    learning_rate: float = Field(1e-4, gt=0, lt=1, description="peak of the schedule")
    warmup_share: Share = Field(0.05, description="first share of the steps, rising to the peak")
    schedule: Literal["cosine", "linear", "wsd", "constant"] = Field(
        "cosine", description="learning rate after the warm-up; wsd: stable, then decay"
    )
    decay_share: Share = Field(0.2, description="wsd: last share of the steps that decays")
    final_share: Share = Field(0.1, description="last learning rate as a share of the peak")
    weight_decay: float = Field(
        0.1, ge=0, lt=1, description="of matrices; vectors, embeddings and routers do not decay"
    )
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="of AdamW's two averages")
    clip: float = Field(1.0, gt=0, description="gradient-norm clip")
    dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="compute; masters are fp32"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile; auto: where the stage is long enough to repay it"
    )
    recompute: bool = Field(False, description="activations made again on the way back, not kept")
    sharding: Literal["full", "replicate"] = Field(
        "full", description="of weights and optimiser over the processes"
    )
    deterministic: bool = Field(
        True, description="on a GPU: only kernels that give the same bits every time"
    )
    spike: float = Field(
        0.0,
        ge=0,
        description="skip a step with a gradient norm so many times the recent median",
    )
    skips: Count = Field(3, description="steps in a row that may be skipped before the run stops")
    checkpoint_every: Count = Field(0, description="steps between checkpoints; 0 = by their cost")
    checkpoints: Positive = Field(2, description="checkpoints kept")
    lora: Lora = Lora()
    cpoly: CPoly = CPoly()
    infill: Infill = Infill()
    preference: Preference = Preference()
    meter: Meter = Meter()

    def learned_by(self, seed: int) -> dict[str, Any]:
        """What decides what is learned, as JSON; how often a checkpoint is written does not."""
        left = {"enabled", "checkpoint_every", "checkpoints"}
        found = {**self.model_dump(mode="json", exclude=left), "seed": seed}
        found["cpoly"]["order"] = list(self.cpoly.tasks)  # a digest sorts names
        return found
