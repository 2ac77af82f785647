"""Recipe file (TOML) -> typed settings; every mistake is reported at once, each with its place.

TOML keeps `yes` a string and `5e-5` a number. Unknown keys are errors that name the nearest valid
key, so a typo cannot train for a day. The resolved recipe is printed, hashed and stored with every
artefact. Imports nothing heavy.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from medexpert.recipe_ablation import Ablation, Overrides, applied
from medexpert.recipe_data import Count, Data, Positive, Source, Strict
from medexpert.recipe_train import Stage
from medexpert.records import UserError, digest

StageName = Literal["knowledge", "instruct", "adapt"]
STAGES: tuple[StageName, ...] = get_args(StageName)
PointName = Literal["base", "knowledge", "instruct", "adapt"]


class Base(Strict):
    """The model to start from."""

    model: str = Field(
        "smollm2-135m-instruct", description="catalogue name, hub id, folder or .gguf"
    )
    revision: str = Field("", description="hub revision; empty = the default branch, recorded")


class Evaluate(Strict):
    """The benchmark at the end of every stage."""

    task: str = Field("pubmedqa", description="a task of docs/tasks.md, or file:PATH")
    data: str = Field("", description="folder of the benchmark; empty = data.root")
    points: tuple[PointName, ...] = Field(
        ("base", "knowledge", "instruct", "adapt"), description="models that are evaluated"
    )
    strategies: tuple[str, ...] = Field(
        ("direct",), description="ways to ask, with options, as voc:k=3 (docs/evaluate.md)"
    )
    protocol: Literal["reasoning-required", "question-only", "reasoning-free"] = Field(
        "reasoning-required",
        description="what is shown: question and passage, the question alone, or the conclusion",
    )
    limit: Count = Field(0, description="questions of the split, a fixed sample; 0 = all")
    voc_limit: Count = Field(0, description="questions for voc strategies; 0 = all")
    batch_tokens: Positive = Field(4096, description="tokens scored in one forward pass")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="what the weights are held and computed in"
    )


ADAPT_DEFAULTS: dict[str, Any] = {
    "method": "lora",
    "learning_rate": 5e-4,
    "schedule": "linear",
    "weight_decay": 0.0,
}


class Run(Strict):
    """A whole recipe."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="names the run and, by default, its folder",
    )
    seed: int = Field(2312, ge=0, lt=2**32, description="decides all that is random")
    output: str = Field("", description="run folder; empty = runs/NAME")
    threads: Count = Field(0, description="CPU threads; 0 = all cores")
    processes: Positive = Field(1, description="training processes on this machine, one a GPU")
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = Field(
        "none", description="where training is shown besides its own log.jsonl"
    )
    base: Base = Base()
    data: Data
    knowledge: Stage = Stage()
    instruct: Stage = Stage()
    adapt: Stage = Stage(**ADAPT_DEFAULTS)
    evaluate: Evaluate = Evaluate()
    ablation: Ablation = Ablation()

    @model_validator(mode="before")
    @classmethod
    def _adapt_defaults(cls, values: Any) -> Any:
        """Keys given under [adapt] change the adapt defaults, not the general stage defaults."""
        if isinstance(values, dict) and isinstance(values.get("adapt"), dict):
            values = {**values, "adapt": {**ADAPT_DEFAULTS, **values["adapt"]}}
        return values

    @model_validator(mode="after")
    def _fitting(self) -> Run:
        """Settings that a stage has no use for are mistakes, not wishes."""
        wrong = []
        if self.knowledge.attention == "prefix":
            wrong.append("knowledge.attention: plain text has no question; see knowledge.infill")
        if self.knowledge.objective != "likelihood":
            wrong.append("knowledge.objective: preferences are learned in instruct or adapt")
        if self.knowledge.method == "cpoly":
            wrong.append("knowledge.method: C-Poly needs tasks; text has none")
        if self.processes > 1:
            wrong += [
                f"{name}.sharding: 4-bit weights cannot be sharded; allowed: replicate"
                for name in self.stages()
                if self.stage(name).method == "qlora" and self.stage(name).sharding == "full"
            ]
        blanks = [name for name in STAGES[1:] if self.stage(name).infill.on]
        wrong += [f"{name}.infill: blanks are for knowledge" for name in blanks]
        wrong += self.ablation.faults() or self._variant_faults()
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def _variant_faults(self) -> list[str]:
        """Values of an axis that make no recipe, each tried on its own."""
        wrong = []
        for axis, values in self.ablation.axes.items():
            for value, overrides in values.items():
                try:
                    self.changed(overrides)
                except (ValidationError, ValueError) as error:
                    wrong.append(f"ablation.axes.{axis}.{value}: {_first_fault(error)}")
        return wrong

    def changed(self, overrides: Overrides) -> Run:
        """This recipe without its ablation and with dotted keys set; raises pydantic's error."""
        values = self.model_dump(mode="json", exclude={"ablation"})
        return restore(applied(values, overrides))

    def stage(self, name: StageName) -> Stage:
        return {"knowledge": self.knowledge, "instruct": self.instruct, "adapt": self.adapt}[name]

    def sources(self, name: StageName) -> tuple[Source, ...]:
        d = self.data
        return {"knowledge": d.knowledge, "instruct": d.instruct, "adapt": d.adapt}[name]

    def folder(self) -> Path:
        return Path(self.output or f"runs/{self.name}")

    def stages(self) -> tuple[StageName, ...]:
        return tuple(name for name in STAGES if self.stage(name).enabled)

    def hash(self) -> str:
        return digest(self.model_dump(mode="json"))


def load(path: Path, overrides: Sequence[str] = ()) -> Run:
    """Read and check a recipe; `overrides` are `section.key=value` (TOML values).

    Raises UserError whose text holds one line a mistake, all of them.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        near = (
            difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
            if path.parent.is_dir()
            else []
        )
        raise UserError(
            "no such recipe", where=str(path), nearest=near[0] if near else ""
        ) from None
    except IsADirectoryError:
        return load(_only_recipe(path), overrides)
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 (byte {error.start})", where=str(path)) from None
    if path.suffix == ".json":
        return _resolved(path, text, overrides)
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        number = line.group(1) if line else text.count("\n") + 1  # "at end of document"
        raise UserError(f"not valid TOML: {error}", where=f"{path}:{number}") from None
    given = {_override(values, override) for override in overrides}
    try:
        return Run.model_validate(_tuples(values))
    except ValidationError as error:
        lines = [_explain(path, text, problem, given) for problem in error.errors()]
        raise UserError("\n".join(lines)) from None


def _resolved(path: Path, text: str, overrides: Sequence[str]) -> Run:
    """The recipe that a run folder holds as `recipe.json`."""
    try:
        values = json.loads(text)["recipe"]
        for override in overrides:
            _override(values, override)
        return restore(values)
    except (ValueError, KeyError, TypeError) as error:
        line = str(error).splitlines()[0]
        raise UserError(f"not the recipe.json of a run folder: {line}", where=str(path)) from None


def restore(values: Mapping[str, Any]) -> Run:
    """A recipe from its JSON form (`model_dump(mode="json")`), which knows no tuples."""
    return Run.model_validate(_tuples(dict(values)))


def _first_fault(error: ValueError) -> str:
    """The first mistake of a recipe that cannot be, in one line."""
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors()[0]
    dotted = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1, cutoff=0.4)
        return f"unknown key {dotted}" + (f"; did you mean {near[0]!r}?" if near else "")
    message = problem["msg"].removeprefix("Value error, ").splitlines()[0]
    return f"{dotted} = {problem['input']!r}: {message}" if dotted else message


def _only_recipe(folder: Path) -> Path:
    found = sorted(folder.glob("*.toml"))
    if len(found) != 1:
        raise UserError(
            "a recipe file is expected",
            where=str(folder),
            allowed=", ".join(str(p) for p in found) or "no *.toml in this folder",
        )
    return found[0]


def _tuples(value: Any) -> Any:
    """TOML arrays as tuples, which is what the settings hold."""
    if isinstance(value, list):
        return tuple(map(_tuples, value))
    return {k: _tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


def _override(values: dict[str, Any], text: str) -> str:
    """Apply `a.b.c=value` in place; the value is read as TOML, else taken as a string.

    Returns the key.
    """
    key, sign, raw = text.partition("=")
    if not sign or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise UserError(f"--set {text!r} is not section.key=value", where="--set")
    try:
        value: Any = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    *parents, last = key.split(".")
    target = values
    for name in parents:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise UserError(f"--set {key}: {name} is not a section", where="--set")
    target[last] = value
    return key


def _explain(path: Path, text: str, problem: Mapping[str, Any], given: Collection[str]) -> str:
    """One line for one pydantic error: place, dotted key, what, allowed, nearest name.

    The place is file:line, or --set for a key that was `given` there.
    """
    location = tuple(problem["loc"])
    if not location:  # of the recipe as a whole: "key: what", a line each
        lines = problem["msg"].removeprefix("Value error, ").splitlines()
        places = [_line_of(text, tuple(line.split(":")[0].split("."))) for line in lines]
        return "\n".join(f"{path}:{n}: {line}" for n, line in zip(places, lines, strict=True))
    dotted = ".".join(str(part) for part in location)
    overridden = any(f"{dotted}.".startswith(f"{key}.") for key in given)
    where = "--set" if overridden else f"{path}:{_line_of(text, location)}"
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.4)
        return str(
            UserError(
                f"unknown key {dotted}",
                where=where,
                allowed=", ".join(valid),
                nearest=near[0] if near else "",
            )
        )
    meaning = f" ({told})" if (told := _meaning(location)) else ""
    if problem["type"] == "missing":
        return f"{where}: key {dotted} is required{meaning}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    line = f"{where}: {dotted} = {problem['input']!r}: {message}{meaning}"
    expected = re.findall(r"'([^']+)'", message) if problem["type"] == "literal_error" else []
    near = difflib.get_close_matches(str(problem["input"]), expected, n=1, cutoff=0.4)
    return line + (f"; did you mean {near[0]!r}?" if near else "")


def _fields_at(location: Iterable[Any]) -> list[str]:
    """Names of the settings that may stand at a place of the recipe."""
    model: type[BaseModel] | None = Run
    for part in location:
        if model is not None and not isinstance(part, int):
            model = section_of(model.model_fields[part])
    return sorted(model.model_fields) if model else []


def _meaning(location: Iterable[Any]) -> str:
    """What the key at a place of the recipe means; "" for a section and for what is no key."""
    model: type[BaseModel] | None = Run
    found = ""
    for part in location:
        if isinstance(part, int):
            continue
        if model is None or part not in model.model_fields:
            break
        found = model.model_fields[part].description or ""
        model = section_of(model.model_fields[part])
    return found


def section_of(key: FieldInfo) -> type[BaseModel] | None:
    """The settings of a key that is a table, or an array of tables; None for a value."""
    inner = [a for a in (key.annotation, *get_args(key.annotation)) if isinstance(a, type)]
    return next((a for a in inner if issubclass(a, BaseModel)), None)


def _line_of(text: str, location: tuple[Any, ...]) -> int:
    """Line of a key in the TOML text; of its section when the key is absent; else 1."""
    names = [str(part) for part in location if not isinstance(part, int)]
    wanted = next((part for part in location if isinstance(part, int)), 0)
    section: list[str] = []
    seen: dict[str, int] = {}
    best = 1
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]\]?", line)
        if header:
            section = header.group(1).split(".")
            if line.lstrip().startswith("[["):
                seen[header.group(1)] = seen.get(header.group(1), -1) + 1
            if section == names[: len(section)] and seen.get(".".join(section), wanted) == wanted:
                best = number
            continue
        key = re.match(r"\s*([\w.-]+)\s*=", line)
        here = seen.get(".".join(section), wanted) == wanted
        if key and here and section + key.group(1).split(".") == names:
            return number
    return best
