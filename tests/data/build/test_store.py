"""Intermediate files, and the folder that a build may call its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from medexpert.data.build import build
from medexpert.data.build.deliver import deliver
from medexpert.data.build.place import sole_builder, work_place
from medexpert.data.build.store import Store
from medexpert.recipe import Run
from medexpert.records import UserError

Make = Callable[..., Run]


@pytest.fixture
def source(write_rows: Callable[..., Path]) -> dict[str, Any]:
    rows = [{"id": f"d{i}", "text": prose(i, 6)} for i in range(12)]
    return {"source": "local-text", "path": str(write_rows("own/rows.jsonl", rows))}


def recipe_of(make: Make, source: dict[str, Any], **data: Any) -> Run:
    return make(knowledge=[source], workers=1, **data)


def quiet(line: str) -> None:
    pass


def test_a_name_that_is_not_utf8_is_written_and_read_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    store = Store(str(tmp_path))
    store.write_json("a/b.json", {"file": name})
    assert store.read_json("a/b.json") == {"file": name}


def test_names_of_a_folder(tmp_path: Path) -> None:
    for url in (str(tmp_path), "memory://names"):
        store = Store(url)
        assert store.names("clean", ".json") == []
        for name in ("clean/2.json", "clean/1.json", "clean/1.npz"):
            store.write(name, b"{}")
        assert store.names("clean", ".json") == ["1.json", "2.json"]


def test_what_lies_in_the_work_place_stays(
    tmp_path: Path, source: dict[str, Any], make_recipe: Make
) -> None:
    """Also where an earlier build's job lies, as if the folder were ours."""
    work = tmp_path / "home"
    (work / "clean").mkdir(parents=True)
    (work / "thesis.txt").write_text("years of work")
    (work / "job.json").write_text('{"key": "other"}')
    recipe = recipe_of(make_recipe, source, work=str(work))
    build(recipe, tmp_path / "out", key="k", progress=quiet)
    assert sorted(path.name for path in work.iterdir()) == ["clean", "job.json", "thesis.txt"]


def test_what_lies_beside_in_a_bucket_stays(
    tmp_path: Path, source: dict[str, Any], make_recipe: Make
) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/thesis.txt", b"years of work")
    recipe = recipe_of(make_recipe, source, work="memory://bucket")
    build(recipe, tmp_path / "out", key="k", progress=quiet)
    assert memory.find("/bucket") == ["/bucket/thesis.txt"]


def test_work_place_names(tmp_path: Path, make_recipe: Make, source: dict[str, Any]) -> None:
    def place(work: str, run: str = "a") -> str:
        return work_place(recipe_of(make_recipe, source, work=work), tmp_path / run)

    assert place("") == str(tmp_path / "a" / ".work")
    assert place(str(tmp_path)).startswith(f"{tmp_path}/medexpert-t-")
    assert place("s3://bucket/").startswith("s3://bucket/medexpert-t-")
    assert place("s3://bucket") == place("s3://bucket/")
    assert place("memory://").startswith("memory://medexpert-t-")
    assert place("near") == place(os.path.abspath("near"))
    assert place(str(tmp_path)) != place(str(tmp_path), "b")


@pytest.mark.parametrize("data", [{"workers": 2}, {"workers": 0}, {"executor": "ray"}])
def test_memory_is_one_process(
    tmp_path: Path, source: dict[str, Any], make_recipe: Make, data: dict[str, Any]
) -> None:
    recipe = make_recipe(knowledge=[source], work="memory://w", **{"workers": 1, **data})
    with pytest.raises(UserError, match=r"data\.work: memory:// is seen by one process alone"):
        build(recipe, tmp_path / "out", key="k", progress=quiet)


@pytest.mark.parametrize("executor", ["ray", "slurm"])
def test_a_relative_work_place_is_not_shared(
    tmp_path: Path, source: dict[str, Any], make_recipe: Make, executor: str
) -> None:
    recipe = recipe_of(make_recipe, source, work="near", executor=executor)
    with pytest.raises(UserError, match=r"data\.work: must be an absolute path or a URL"):
        build(recipe, tmp_path / "out", key="k", progress=quiet)


@pytest.mark.parametrize("work", ["", "shared"])
def test_a_second_build_of_one_run_is_refused(
    tmp_path: Path, source: dict[str, Any], make_recipe: Make, work: str
) -> None:
    recipe = recipe_of(make_recipe, source, work=work and str(tmp_path / work))
    out = tmp_path / "out"
    place = work_place(recipe, out)
    with (
        sole_builder(place, out),
        pytest.raises(UserError, match=rf"another build \(process {os.getpid()}\) works here"),
    ):
        build(recipe, out, key="k", progress=quiet)
    build(recipe, out, key="k", progress=quiet)
    assert not Path(f"{place}.lock").exists()


def test_the_own_folder_of_a_killed_build_goes_when_work_is_elsewhere(
    tmp_path: Path, source: dict[str, Any], make_recipe: Make
) -> None:
    left = tmp_path / "out" / ".work" / "clean"
    left.mkdir(parents=True)
    (left / "00000.jsonl").write_bytes(b"x" * 1000)
    recipe = recipe_of(make_recipe, source, work=str(tmp_path / "elsewhere"))
    build(recipe, tmp_path / "out", key="k", progress=quiet)
    assert not left.parent.exists()


@pytest.mark.parametrize("target", ["{out}", "{out}/copy", "{out}/../out", "file://{out}", "link"])
def test_the_run_is_not_delivered_into_itself(
    tmp_path: Path, source: dict[str, Any], make_recipe: Make, target: str
) -> None:
    out = tmp_path / "out"
    build(recipe_of(make_recipe, source), out, key="k", progress=quiet)
    before = (out / "manifest.json").read_bytes()
    (tmp_path / "link").symlink_to(out)
    url = str(tmp_path / "link") if target == "link" else target.format(out=out)
    with pytest.raises(UserError, match=r"this is the run's own data folder"):
        deliver(out, url, say=quiet)
    assert (out / "manifest.json").read_bytes() == before
    assert not (out / "copy").exists()
