from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medexpert.data.readers
from medexpert.data import catalogue
from medexpert.data.catalogue import BENCHMARKS, SOURCES, Entry, Origin, SourceEntry
from medexpert.data.checksums import measure
from medexpert.data.readers.rows import Change, Drop, Fault, Part, Reader, read
from medexpert.records import UserError

ENTRIES: list[Entry] = [*SOURCES.values(), *BENCHMARKS.values()]
BUILT = {"pubmedqa", "trialgen", "pqa_builder", "evidence_builder", "own_examples"}
"""Readers of sources that the build opens itself."""

PROJECT = Path(__file__).resolve().parents[2]


def registered(table: str) -> dict[str, Any]:
    """Name -> reader of every reader module's own table."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(medexpert.data.readers.__path__):
        loaded = importlib.import_module(f"medexpert.data.readers.{module.name}")
        found |= getattr(loaded, table, {})
    return found


READERS: dict[str, Reader] = registered("READERS")


def test_every_source_has_its_reader() -> None:
    # evidence_rows is a table reader of its own shape, which a builder opens
    known = {*READERS, *BUILT, "evidence_inference", "evidence_tables"}
    assert not {entry.reader for entry in SOURCES.values()} - known


def test_every_benchmark_has_its_reader() -> None:
    known = registered("BENCHMARK_READERS")
    assert not {entry.reader for entry in BENCHMARKS.values()} - set(known)


def test_every_reader_has_a_source() -> None:
    # these two are benchmarks' formats and stay readable as a source by `path` of another
    assert not set(READERS) - {entry.reader for entry in SOURCES.values()} - {"cmmlu", "apollo"}


def test_the_licence_and_the_default_mix_agree() -> None:
    # free, but its files are the dev files of a benchmark
    left_out = {"mmlu-medical-dev"}
    for entry in SOURCES.values():
        free = catalogue.is_free(entry.licence) and entry.name not in left_out
        assert entry.default_mix == free, entry.name
    for name in left_out:
        assert "not in the default mix" in SOURCES[name].note
    # two collections of one site's text are under one rule, which both notes tell
    for name in ("consumer-health-qa", "icliniq"):
        assert not SOURCES[name].default_mix
        assert "default mix" in SOURCES[name].note
    assert not SOURCES["pubmed-rct-abstracts"].default_mix
    assert SOURCES["medquad-qa"].default_mix


def test_every_entry_says_what_it_is() -> None:
    for entry in ENTRIES:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.name)
        assert entry.ids
        local = entry.name in ("local-text", "guidelines-local", "text-jsonl")
        assert entry.size or local, entry.name
        own = entry.licence == catalogue.OWN or local or entry.reader in BUILT
        assert entry.url or own or entry.name.startswith("general-"), entry.name
    for source in SOURCES.values():
        inside = bool(source.builtin) or source.reader in catalogue.GENERATED
        assert inside or source.files or source.name in (
            "local-text", "guidelines-local", "text-jsonl", "own-examples",
        )  # fmt: skip


def test_the_sources_that_were_asked_for_are_here() -> None:
    words = {
        "pubmedqa", "pubmedqa-artificial", "pubmedqa-unlabelled", "medline-baseline",
        "pmc-open-access", "pubmed-rct-20k", "s2orc", "medquad", "liveqa-med", "medicationqa",
        "medqa-us", "medqa-mainland", "medqa-taiwan", "medmcqa", "headqa-en", "mmlu-medical-dev",
        "bioasq", "evidence-inference", "meddialog-en", "meddialog-zh", "healthcaremagic",
        "icliniq", "cmedqa2", "huatuo-encyclopedia", "cmexam", "cmb-exam", "promptcblue",
        "medical-o1-en", "medical-o1-zh", "ultramedical", "textbooks-openstax-medical",
        "guidelines", "guidelines-local", "fineweb-edu", "wikipedia-en", "wikipedia-zh",
        "local-text", "pqa-a-built", "evidence-built",
    }  # fmt: skip
    assert not words - set(SOURCES)


def test_an_origins_address_is_pinned_or_says_nothing_of_a_checksum() -> None:
    for entry in ENTRIES:
        for origin in entry.origin:
            if origin.blob and origin.url:
                assert re.search(r"githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/", origin.url)
            assert not origin.bytes or origin.sha256
            assert origin.url.startswith("https://") or not origin.url


def test_what_is_fetched_is_where_the_source_is_looked_for() -> None:
    for entry in ENTRIES:
        names = [origin.file for origin in entry.origin]
        for file in entry.files if names else ():
            pattern = re.escape(file.removesuffix(".gz")).replace(r"\*", "[^/]*") + r"(\.gz)?"
            assert any(re.fullmatch(pattern, name) for name in names), (entry.name, file)


def test_unknown_names_tell_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"data: unknown source 'medqud-qa'.*did you mean 'medquad-qa'"
    ):
        catalogue.find("medqud-qa", where="data")
    with pytest.raises(UserError, match=r"unknown benchmark 'pubmedq'.*did you mean 'pubmedqa'"):
        catalogue.find_benchmark("pubmedq")
    assert catalogue.find_benchmark("pubmedqa").ids == "pmid"


STARTER = sorted(name for name in SOURCES if name.startswith("starter-"))


@pytest.mark.parametrize("name", STARTER)
def test_starter_sources_read_without_a_drop(name: str) -> None:
    entry = catalogue.find(name)
    items = list(read(READERS[entry.reader], map(Part, catalogue.locate(entry, ""))))
    assert entry.size == f"{len(items)} rows"
    assert not [item for item in items if isinstance(item, Drop | Change | Fault)]


# -- the file itself -------------------------------------------------------------------------------

GOOD = """
[[source]]
name = "a"
stage = "knowledge"
lang = "en"
licence = "MIT"
reader = "documents"
files = ["a.jsonl"]
"""


def load(text: str) -> dict[str, SourceEntry]:
    return catalogue.load(text, where="c.toml")[0]


def test_a_small_catalogue() -> None:
    entry = load(GOOD + 'origin = [{file = "a.jsonl", url = "https://x.org/a", bytes = 3}]')["a"]
    assert entry.files == ("a.jsonl",)
    assert entry.origin == (Origin("a.jsonl", url="https://x.org/a", bytes=3),)


ORIGIN = 'origin = [{{file = "a", {}}}]'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = ", r"c\.toml: not TOML"),
        ("[[sources]]", r"c\.toml: unknown table 'sources'; .*did you mean 'source'"),
        (GOOD + 'licenc = "MIT"', r"source 'a': unknown key 'licenc'.*mean 'licence'"),
        (GOOD + GOOD, r"source 'a': the name occurs twice"),
        (GOOD.replace('lang = "en"', ""), r"c\.toml: source 'a': needs 'lang'"),
        (GOOD.replace('"MIT"', '""'), r"source 'a': needs 'licence'"),
        (GOOD.replace('name = "a"', ""), r"c\.toml: source 1: needs 'name'"),
        (GOOD.replace("knowledge", "knowlege"), r"unknown stage 'knowlege'.*mean 'knowledge'"),
        (GOOD + "default_mix = 1", r"source 'a': default_mix must be bool, not 1"),
        (GOOD + 'size = ["1"]', r"size must be str, not \['1'\]"),
        (GOOD + 'builtin = "b"', r"builtin must be list, not 'b'"),
        (GOOD + 'builtin = ["b"]', r"source 'a': has both files and builtin"),
        (GOOD.replace('["a.jsonl"]', "[1]"), r"files must be a list of texts"),
        (
            GOOD.replace("MIT", "MIT; GPL") + "default_mix = true",
            r"licence 'MIT; GPL' is not one for the default mix; allowed: MIT, Apache",
        ),
        (GOOD + 'origin = ["a"]', r"source 'a', origin: must be a table, not 'a'"),
        (GOOD + "origin = [{}]", r"source 'a', origin: needs 'file'"),
        (GOOD + ORIGIN.format('hub = "x/y"'), r"'a' needs one of url, hub and path, archive and"),
        (GOOD + ORIGIN.format('url = "https://x", member = "m"'), r"needs one of url"),
        (GOOD + ORIGIN.format('url = "ftp://x"'), r"origin 'a': url must be http or https"),
        (GOOD + ORIGIN.format('url = "https://x", sha256 = "12"'), r"sha256 is 64 hex digits"),
        (GOOD + ORIGIN.format('url = "https://x", blob = "zz"'), r"blob is 40 hex digits"),
        (GOOD + 'origin = [{file = "../a", url = "https://x"}]', r"'../a' leaves the data folder"),
        (GOOD + 'origin = [{file = "/a", url = "https://x"}]', r"'/a' leaves the data folder"),
    ],
)
def test_a_bad_catalogue_is_told_in_one_line(text: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        load(text)


@given(st.lists(st.sampled_from(catalogue.FREE), min_size=1), st.booleans())
def test_a_licence_is_free_when_all_its_parts_are(parts: list[str], spoiled: bool) -> None:
    text = "; ".join([*parts, *(["CC BY-NC 4.0"] if spoiled else [])])
    assert catalogue.is_free(text) != spoiled


# -- where files are -------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [str(folder / name) for name in names]


def test_locate(tmp_path: Path) -> None:
    entry = catalogue.find("medquad-qa")
    with pytest.raises(
        UserError, match=r"is not inside the package: it needs a local copy; .*root"
    ):
        catalogue.locate(entry, "")
    with pytest.raises(UserError, match=r"'medquad-qa': file not found; allowed: .*stage2/medquad"):
        catalogue.locate(entry, tmp_path)
    with pytest.raises(UserError, match=r"nowhere: source 'medquad-qa': no such file"):
        catalogue.locate(entry, "", tmp_path / "nowhere")
    (unpacked,) = touch(tmp_path, "medquad_qa.jsonl")
    assert catalogue.locate(entry, tmp_path) == [unpacked]
    assert catalogue.locate(entry, "", unpacked) == [unpacked]
    assert catalogue.locate(entry, "", tmp_path) == [unpacked]
    (packed,) = touch(tmp_path, "stage2/medquad_qa.jsonl.gz")
    assert catalogue.locate(entry, tmp_path) == [packed]


def test_locate_many_files(tmp_path: Path) -> None:
    entry = catalogue.find("pmc-fulltext")
    with pytest.raises(UserError, match=r"file not found; allowed: .*part-\*.jsonl.gz, .*part-\*"):
        catalogue.locate(entry, tmp_path)
    folder = tmp_path / "a [b]"  # a name that would be a pattern
    names = [f"stage1/pmc_fulltext/part-00{i}.jsonl" for i in (2, 0, 1)]
    touch(folder, names[0] + ".gz", names[1], names[2] + ".gz", names[2])
    found = [Path(path).name for path in catalogue.locate(entry, folder)]
    assert found == ["part-000.jsonl", "part-001.jsonl.gz", "part-002.jsonl.gz"]
    pattern = tmp_path / "x" / "*.jsonl"
    wanted = touch(tmp_path / "x", "a.jsonl", "b.jsonl")
    assert catalogue.locate(entry, "", pattern) == wanted


def test_one_of_several_patterns_is_enough_but_a_name_must_be_there(tmp_path: Path) -> None:
    found = touch(tmp_path, "pmc/PMC1.xml", "pmc/PMC2.xml")
    assert catalogue.locate(catalogue.find("pmc-open-access"), tmp_path) == found
    touch(tmp_path, "pubmed_rct/20k/train.txt", "pubmed_rct/20k/dev.txt")
    with pytest.raises(UserError, match=r"file not found; allowed: .*20k/train.txt.*20k/test.txt"):
        catalogue.locate(catalogue.find("pubmed-rct-20k"), tmp_path)


def test_locate_on_a_remote_system() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    names = ["/data/stage1/pmc_fulltext/part-001.jsonl.gz", "/data/medquad_qa.jsonl"]
    for name in names:
        memory.pipe_file(name, b"")
    try:
        found = catalogue.locate(catalogue.find("pmc-fulltext"), "memory://data/")
        assert found == [f"memory://{names[0]}"]
        found = catalogue.locate(catalogue.find("medquad-qa"), "memory://data")
        assert found == ["memory://data/medquad_qa.jsonl"]
        assert catalogue.locate(catalogue.find("medquad-qa"), "", found[0]) == found
        with pytest.raises(UserError, match=r"^memory://no: source 'medquad-qa': no such file"):
            catalogue.locate(catalogue.find("medquad-qa"), "", "memory://no")
        with pytest.raises(UserError, match=r"memory://data/stage2/zh_safety_qa.jsonl.gz, memory"):
            catalogue.locate(catalogue.find("zh-safety-qa"), "memory://data")
    finally:
        memory.rm("/data", recursive=True)


def test_a_remote_system_that_cannot_be_asked_is_one_line() -> None:
    with pytest.raises(UserError, match=r"nosuch://data/.*: cannot be opened: Protocol not known"):
        catalogue.locate(catalogue.find("medquad-qa"), "nosuch://data")


def test_a_source_of_the_users_own(tmp_path: Path) -> None:
    entry = catalogue.find("local-text")
    with pytest.raises(UserError, match=r"it needs a local copy; allowed: path = this source's"):
        catalogue.locate(entry, tmp_path)
    assert catalogue.locate(entry, "", tmp_path) == [str(tmp_path)]


def test_a_generated_source_has_no_file() -> None:
    for name in ("trialgen", "pqa-a-built", "evidence-built"):
        assert catalogue.locate(catalogue.find(name), "") == []


# -- the published files ---------------------------------------------------------------------------

NOT_DATA = {"README.md", "LICENSE"}
WITH_PQAL = {"pqal_train_dev.json", "test_ground_truth.json"}  # found beside ori_pqal.json


def located(entry: Entry, root: Path) -> set[Path]:
    try:
        return {Path(path) for path in catalogue.locate(entry, root)}
    except UserError:
        return set()


def test_every_published_file_in_hand_has_an_entry(real_data: Path) -> None:
    found = {path for entry in ENTRIES for path in located(entry, real_data)}
    files = {path for path in real_data.rglob("*") if path.is_file()}
    left = {path.name for path in files - found}
    assert left <= NOT_DATA | WITH_PQAL


def test_the_published_files_in_hand_have_their_checksums(real_data: Path) -> None:
    checked = 0
    for origin in {origin for entry in ENTRIES for origin in entry.origin if origin.sha256}:
        for path in (real_data / origin.file, real_data / f"{origin.file}.gz"):
            if path.is_file():
                found = measure(path, unpack=path.suffix == ".gz")
                assert (found.sha256, found.bytes) == (origin.sha256, origin.bytes), origin.file
                assert found.blob == origin.blob
                checked += 1
    assert checked >= 50


# -- the page about it -----------------------------------------------------------------------------


def test_the_documentation_names_every_source_and_no_other() -> None:
    page = (PROJECT / "docs" / "data.md").read_text("utf-8")
    section = page.split("## Sources\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| ")][1:]
    named = [name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row[2])]
    benchmarks = [name for row in rows if "enchmark" in row[1] for name in re.findall(
        r"`([a-z0-9-]+)`", row[2])]  # fmt: skip
    sources = [name for name in SOURCES if not name.startswith("starter-")]
    assert sorted(named) == sorted([*sources, *BENCHMARKS])
    assert sorted(benchmarks) == sorted(BENCHMARKS)
