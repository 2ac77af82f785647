from __future__ import annotations

from pathlib import Path

import pytest

from medexpert.data import catalogue
from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Change, Drop
from medexpert.records import UserError

FREE = ("MIT", "Apache-2.0", "CC BY 4.0", "CC0", catalogue.OWN)


def test_names_and_readers_are_known() -> None:
    for name, entry in catalogue.SOURCES.items():
        assert name == entry.name
        assert entry.stage in ("knowledge", "instruct", "adapt")
        assert entry.reader in READERS or entry.reader in ("pubmedqa", "trialgen")
        assert bool(entry.file) + bool(entry.builtin) == (entry.reader != "trialgen")


def test_only_free_licences_are_in_the_default_mix() -> None:
    for entry in catalogue.SOURCES.values():
        if entry.default_mix:
            assert all(part in FREE for part in entry.licence.split("; ")), entry.name
    assert not catalogue.SOURCES["pubmed-rct-abstracts"].default_mix
    assert catalogue.SOURCES["medquad-qa"].default_mix


def test_unknown_source_names_the_nearest() -> None:
    with pytest.raises(
        UserError, match=r"data: unknown source 'medquad'.*did you mean 'medquad-qa'"
    ):
        catalogue.find("medquad", where="data")


STARTER = sorted(name for name in catalogue.SOURCES if name.startswith("starter-"))


@pytest.mark.parametrize("name", STARTER)
def test_starter_sources_read_without_a_drop(name: str) -> None:
    entry = catalogue.find(name)
    items = list(READERS[entry.reader](catalogue.locate(entry, "")))
    assert items
    assert not [item for item in items if isinstance(item, Drop | Change)]


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
    unpacked = tmp_path / "medquad_qa.jsonl"
    unpacked.touch()
    assert catalogue.locate(entry, tmp_path) == [unpacked]
    assert catalogue.locate(entry, "", unpacked) == [unpacked]
    packed = tmp_path / "stage2" / "medquad_qa.jsonl.gz"
    packed.parent.mkdir()
    packed.touch()
    assert catalogue.locate(entry, tmp_path) == [packed]


def test_generated_source_has_no_file() -> None:
    assert catalogue.locate(catalogue.find("trialgen"), "") == []


def test_published_files_are_where_the_catalogue_says(real_data: Path) -> None:
    for entry in catalogue.SOURCES.values():
        assert all(path.exists() for path in catalogue.locate(entry, real_data)), entry.name
