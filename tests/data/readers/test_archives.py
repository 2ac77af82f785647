from __future__ import annotations

import gzip
import io
import random
import tarfile
import zipfile
from pathlib import Path

import pytest

from medexpert.data.readers import archives
from medexpert.data.readers.archives import members
from medexpert.data.readers.rows import Fault
from medexpert.records import UserError


def tar(files: dict[str, bytes], *, kind: bytes = tarfile.REGTYPE) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(data), kind
            archive.addfile(entry, io.BytesIO(data))
    return raw.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return raw.getvalue()


def write(tmp_path: Path, raw: bytes) -> str:
    path = tmp_path / "a.dat"
    path.write_bytes(raw)
    return str(path)


FILES = {"x/one.xml": b"1", "x/skip.txt": b"no", "two.XML": b"2" * 3000}
WANTED = [("x/one.xml", b"1"), ("two.XML", b"2" * 3000)]


def test_members_of_zip_and_tar(tmp_path: Path) -> None:
    for raw in (tar(FILES), gzip.compress(tar(FILES)), zipped(FILES)):
        assert list(members(write(tmp_path, raw), (".xml",))) == WANTED


@pytest.mark.parametrize("name", ["../up.xml", "/etc/up.xml", "a/../../up.xml", "C:\\up.xml"])
def test_a_name_that_points_outside_is_refused(tmp_path: Path, name: str) -> None:
    for raw in (tar({name: b"1"}), zipped({name: b"1"})):
        with pytest.raises(UserError, match="points outside the archive"):
            list(members(write(tmp_path, raw), (".xml",)))
    assert [path.name for path in tmp_path.iterdir()] == ["a.dat"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    raw = tar({"a.xml": b""}, kind=tarfile.SYMTYPE)
    assert list(members(write(tmp_path, raw), (".xml",))) == []


def test_a_large_member_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER", 1000)
    for raw in (tar(FILES), zipped(FILES)):
        first, second = members(path := write(tmp_path, raw), (".xml",))
        assert first == ("x/one.xml", b"1")
        assert second == Fault(f"{path} [two.XML]", "the member is larger than 0 MiB")


def test_bombs(tmp_path: Path) -> None:
    files = {f"{i}.xml": b" " * (40 << 20) for i in range(3)}
    with pytest.raises(UserError, match="inflates more than 200-fold"):
        list(members(write(tmp_path, zipped(files)), (".xml",)))
    with pytest.raises(UserError, match="inflates more than 200-fold"):
        list(members(write(tmp_path, gzip.compress(tar(files))), (".xml",)))


def test_cut_archives_do_not_end_in_silence(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes
    files = {f"{i}.xml": noise(2000) for i in range(20)}
    whole = tar(files)
    second = 512 + 2048
    for raw in (
        whole[: second + 100],  # inside the second header
        whole[: second + 512 + 100],  # inside the second member
        whole[:second],  # before the second header, without the end mark
        whole[:second] + b"\xff" * 512 + whole[second + 512 :],
        b"no archive at all" * 100,
        b"",
    ):
        with pytest.raises(
            UserError, match=r"a\.dat: (damaged or truncated tar|the file is empty)"
        ):
            list(members(write(tmp_path, raw), (".xml",)))
    packed = zipped(files)
    for raw in (packed[:-30], packed[: len(packed) // 2]):
        with pytest.raises(UserError, match=r"a\.dat: damaged or unreadable zip file"):
            list(members(write(tmp_path, raw), (".xml",)))


@pytest.mark.parametrize("make", [tar, zipped])
def test_flipped_bytes_bring_no_traceback(tmp_path: Path, make: object) -> None:
    assert callable(make)
    whole = make(FILES)
    dice = random.Random(7)
    told: list[str] = []
    for _ in range(600):
        raw = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        try:
            list(members(write(tmp_path, bytes(raw)), (".xml",)))
        except UserError as error:
            told.append(str(error))
    assert len(told) > 100
    assert all(str(tmp_path / "a.dat") in line for line in told)
