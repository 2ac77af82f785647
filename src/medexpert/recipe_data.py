"""The `[data]` part of a recipe: sources, what is taken out of them, and where the work runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    """Settings that turn no value into another: "16" is no number and "no" is no switch."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


class Source(Strict):
    """One source of a stage's data."""

    source: str = Field(description="name in the data catalogue (`medexpert data sources`)")
    path: str = Field(
        "", description="a local copy or any fsspec URL; empty = under data.root, or built in"
    )
    role: Literal["train", "replay"] = Field("train", description="replay = general-domain text")
    limit: Count = Field(0, description="records to read at most; 0 = all")
    weight: float = Field(0.0, ge=0, description="share of the mix; 0 = min(n, cap)^tau")
    heldout: Count = Field(0, description="documents kept out of training for bits/byte")
    fold: int = Field(0, ge=0, le=9, description="PubMedQA: the dev fold left out of training")
    of: tuple[str, ...] = Field(
        (), description="builders: names of the catalogue sources that they build from"
    )
    label_ratio: float = Field(
        0.0,
        ge=0,
        description="builders: no label above this multiple of the rarer of yes, no; 0 = any",
    )
    phi: Literal["off", "redact", "refuse"] = Field(
        "off", description="protected health information: redact it, or refuse the file"
    )
    phi_model: str = Field("", description="folder of a spaCy model that finds names; empty = none")


class Filters(Strict):
    """What is repaired in a text and what drops it; each reason can be switched off by its name."""

    off: tuple[str, ...] = Field(
        (), description='reasons to drop that are not used, e.g. ["language"]'
    )
    repair: bool = Field(
        True,
        description="undo mojibake, HTML entities, tags and wiki, LaTeX, Markdown residue; counted",
    )
    boilerplate: bool = Field(
        True, description="take out lines of copyright, navigation, references, funding; counted"
    )
    languages: tuple[str, ...] = Field(
        ("en", "zh"), description="languages kept (ISO 639-1); empty = all"
    )
    language_confidence: Share = Field(
        0.95, description="drop only when another language is at least this probable"
    )
    language_min_chars: Count = Field(200, description="shorter texts are not judged by language")
    min_words: Count = Field(5, description="fewer words (Chinese: characters / 2) drop a document")
    max_markup: Share = Field(
        0.3, description="share of characters that are markup, above which a text is dropped"
    )
    min_alpha: Share = Field(
        0.5, description="least share of letters among characters other than blanks"
    )
    max_symbols: Share = Field(
        0.2, description="largest share of signs that are no letter, digit, blank or punctuation"
    )
    max_digits: Share = Field(
        0.4, description="largest share of digits among characters other than blanks"
    )
    min_word_length: float = Field(
        2.5, ge=0, description="least mean length of a word (not Chinese)"
    )
    max_word_length: float = Field(
        14.0, gt=0, description="largest mean length of a word (not Chinese)"
    )
    min_stop_words: Count = Field(
        2,
        description="least number of different stop words in an English text of 50 words",
    )
    max_ellipsis_lines: Share = Field(
        0.5, description="largest share of lines that end with an ellipsis"
    )
    max_bullet_lines: Share = Field(0.95, description="largest share of lines that are bullets")
    min_sentences: Count = Field(
        1, description="least number of sentence ends in a text of 100 words or more"
    )
    max_duplicate_lines: Share = Field(
        0.3, description="largest share of lines that are repeats (Gopher)"
    )
    max_duplicate_line_chars: Share = Field(
        0.3, description="largest share of characters in repeated lines (Gopher)"
    )
    max_duplicate_ngram_chars: Share = Field(
        0.4,
        description="largest share of characters in repeated runs of 10 words (Chinese: 20)",
    )
    max_top_ngram_chars: Share = Field(
        0.25,
        description="largest share of characters in the most frequent run of 4 words (Chinese: 8)",
    )
    max_contents_lines: Share = Field(
        0.6,
        description="largest share of lines that are entries of a table of contents or an index",
    )


class Slurm(Strict):
    """How the build's tasks are submitted to Slurm (executor = "slurm")."""

    partition: str = Field("", description="sbatch --partition; empty = the cluster's default")
    time: str = Field("04:00:00", description="limit of one task")
    cpus_per_task: Positive = Field(1, description="cores of one task")
    mem_per_cpu_gb: Positive = Field(4, description="memory of each core, in GB")
    max_jobs: Positive = Field(200, description="array tasks running at once")
    account: str = Field("", description="sbatch --account; empty = your default")
    activate: str = Field("", description="shell line that activates the environment on a node")


class Data(Strict):
    """Where the data of each stage comes from and what is taken out of it."""

    root: str = Field(
        "", description="folder or fsspec URL that holds the copies of published sources"
    )
    quarantine: tuple[str, ...] = Field(
        ("pubmedqa",), description='benchmarks whose items leave; "all" = each one found under root'
    )
    allow_leaks: bool = Field(
        False, description="train on data built without quarantine; stamps every result"
    )
    min_chars: Count = Field(
        80, description="shorter documents are dropped (too_short); a Chinese character counts as 3"
    )
    max_chars: Positive = Field(
        40_000, description="longer documents are cut into parts, none lost"
    )
    max_bad_rows: Share = Field(0.05, description="a file with a larger share of bad rows stops")
    near_duplicates: bool = Field(True, description="take near-duplicates out (MinHash, verified)")
    jaccard: float = Field(
        0.8, gt=0, le=1, description="5-gram Jaccard from which two texts are near-duplicates"
    )
    numbers_must_agree: bool = Field(
        True, description="texts that differ in a number (5 mg, 10 mg) are never near-duplicates"
    )
    replay_share: Share = Field(0.1, description="share of stage-1 characters that is replay")
    tau: float = Field(0.8, gt=0, le=1, description="mix exponent: p ~ min(n, cap)^tau")
    cap: Positive = Field(200_000, description="mix cap")
    max_epochs: float = Field(
        1.0, ge=1, description="passes over a small source, to hold its share of the mix"
    )
    filters: Filters = Filters()
    workers: Count = Field(0, description="processes of a local build; 0 = all cores")
    executor: Literal["local", "slurm", "ray"] = Field(
        "local", description="where a build runs: the cores here, a Slurm or a Ray cluster"
    )
    work: str = Field(
        "",
        description="folder or fsspec URL for intermediate shards; empty = in the run folder",
    )
    slurm: Slurm = Slurm()
    knowledge: tuple[Source, ...] = ()
    instruct: tuple[Source, ...] = ()
    adapt: tuple[Source, ...] = ()

    @property
    def dev_fold(self) -> int:
        """The PubMedQA fold that stage 3 does not train on."""
        return next((source.fold for source in self.adapt if source.source == "pubmedqa"), 0)


PLACE = ("workers", "executor", "work", "slurm", "allow_leaks")
"""Settings of `[data]` that say where and whether, not what: no digest of the data holds them."""
