"""Every source a recipe may name: what it is, its licence, where its file lies, who reads it.

Nothing is fetched here: published files are looked for under the recipe's `data.root` (or a
source's own `path`); the starter corpus is inside the package; `trialgen` is generated.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from medexpert.data.readers.pubmedqa import find_pubmedqa
from medexpert.records import UserError, unknown_name


@dataclass(frozen=True)
class SourceEntry:
    """One source. `licence` is what upstream states, `default_mix` whether we may ship it in a mix.

    `default_mix` is true only for MIT, Apache-2.0, CC BY, CC0 and our own text; naming another
    source in a recipe is the opt-in, and the data card shows its licence. `stage` is the first
    stage that can use it: `knowledge` sources give documents, the others examples. `file` is the
    path looked for under `data.root`, empty for what is inside the package (`builtin`).
    `ids` says what identifies a row; `pmid` rows can be checked against a benchmark's list.
    """

    name: str
    stage: str
    lang: str
    licence: str
    default_mix: bool
    reader: str
    file: str = ""
    builtin: tuple[str, ...] = ()
    ids: str = "id"
    url: str = ""
    citation: str = ""
    note: str = ""


OWN = "this package's licence"
_STARTER = "written for this package; checked by no clinician"


def _starter(kind: str, lang: str, reader: str, *files: str) -> SourceEntry:
    return SourceEntry(
        name=f"starter-{kind}-{lang}",
        stage="knowledge" if kind in ("passages", "general") else "instruct",
        lang=lang,
        licence=OWN,
        default_mix=True,
        reader=reader,
        builtin=files or (f"{kind}_{lang}.jsonl",),
        note=_STARTER,
    )


_ENTRIES: tuple[SourceEntry, ...] = (
    _starter("passages", "en", "documents", "passages_en_1.jsonl", "passages_en_2.jsonl"),
    _starter("passages", "zh", "documents"),
    *(_starter("general", lang, "documents") for lang in ("en", "zh")),
    *(_starter("qa", lang, "qa") for lang in ("en", "zh")),
    *(_starter("reasoning", lang, "reasoning") for lang in ("en", "zh")),
    *(_starter("mcq", lang, "mcq") for lang in ("en", "zh")),
    *(_starter("conversations", lang, "conversations") for lang in ("en", "zh")),
    SourceEntry(
        "trialgen",
        "adapt",
        "en",
        OWN,
        True,
        "trialgen",
        ids="generated id",
        note="simulated trial abstracts with a yes/no/maybe question; labels follow from numbers",
    ),
    SourceEntry(
        "pubmedqa",
        "adapt",
        "en",
        "MIT",
        True,
        "pubmedqa",
        "stage3/pubmedqa",
        ids="pmid",
        url="https://github.com/pubmedqa/pubmedqa",
        citation="Jin et al. 2019, PubMedQA",
        note="yields the 450 training items of its fold; dev and test items never leave the reader",
    ),
    SourceEntry(
        "pubmed-abstracts",
        "knowledge",
        "en",
        "mixed, by collection (MIT; public domain; CC BY 4.0; CC BY-SA 4.0; none stated)",
        False,
        "pubmed_abstracts",
        "stage1/pubmed_abstracts.jsonl.gz",
        ids="pmid (empty in three collections)",
        note="ohsumed, medical-abstracts-tc, kd-dti, gutbrainie2025, bc5cdr, "
        "cochrane-simplification; HTML entities decoded, MEDLINE truncation marks removed",
    ),
    SourceEntry(
        "pubmed-rct-abstracts",
        "knowledge",
        "en",
        "per row (CC BY 61 %, rest NC, ND, SA, CC0, other)",
        False,
        "structured_abstracts",
        "stage1/pubmed_rct_abstracts.jsonl.gz",
        ids="pmid, pmcid",
        url="https://github.com/jayded/evidence-inference",
        citation="DeYoung et al. 2020",
    ),
    SourceEntry(
        "textbooks-openstax-medical",
        "knowledge",
        "en",
        "CC BY 4.0",
        True,
        "documents",
        "stage1/textbooks_openstax_medical.jsonl.gz",
        url="https://github.com/openstax/osbooks-anatomy-physiology",
        citation="OpenStax",
        note="Anatomy and Physiology 2e; Microbiology",
    ),
    SourceEntry(
        "zh-drug-monographs",
        "knowledge",
        "zh",
        "MIT",
        True,
        "documents",
        "stage1/zh_drug_monographs.jsonl.gz",
        url="https://github.com/WangRongsheng/CareGPT",
    ),
    SourceEntry(
        "zh-tcm-classics",
        "knowledge",
        "zh",
        "none stated (texts are pre-1912)",
        False,
        "tcm_classics",
        "stage1/zh_tcm_classics.jsonl.gz",
        url="https://github.com/xiaopangxia/TCM-Ancient-Books",
        note="classical Chinese; directory marks removed, hard-wrapped lines joined",
    ),
    SourceEntry(
        "general-en",
        "knowledge",
        "en",
        "per row (CC BY 4.0; CC BY-SA 3.0; ODC-BY; Apache-2.0)",
        False,
        "documents",
        "stage1/general_en.jsonl.gz",
        note="general-domain replay",
    ),
    SourceEntry(
        "general-zh",
        "knowledge",
        "zh",
        "per row (CC BY-SA 4.0; CC BY-SA 3.0; MIT; CC BY 4.0)",
        False,
        "documents",
        "stage1/general_zh.jsonl.gz",
        note="general-domain replay",
    ),
    SourceEntry(
        "medquad-qa",
        "instruct",
        "en",
        "CC BY 4.0",
        True,
        "qa",
        "stage2/medquad_qa.jsonl.gz",
        url="https://github.com/abachaa/MedQuAD",
        citation="Ben Abacha and Demner-Fushman 2019",
    ),
    SourceEntry(
        "consumer-health-qa",
        "instruct",
        "en",
        "MIT",
        True,
        "qa",
        "stage2/consumer_health_qa.jsonl.gz",
        url="https://github.com/LasseRegin/medical-question-answer-data",
        note="answers by doctors on public forums, of uneven quality",
    ),
    SourceEntry(
        "medqa-us-mcq",
        "instruct",
        "en",
        "research and educational use only (train part); CC BY 4.0 (dev part)",
        False,
        "mcq",
        "stage2/medqa_us_mcq.jsonl.gz",
        url="https://github.com/jind11/MedQA",
        citation="Jin et al. 2021, MedQA (MIT)",
    ),
    SourceEntry(
        "openstax-medical-mcq",
        "instruct",
        "en",
        "CC BY 4.0",
        True,
        "mcq",
        "stage2/openstax_medical_mcq.jsonl.gz",
        citation="OpenStax",
    ),
    SourceEntry(
        "o1-reasoning-demo",
        "instruct",
        "en",
        "none stated",
        False,
        "reasoning",
        "stage2/o1_reasoning_demo.jsonl.gz",
        url="https://github.com/FreedomIntelligence/HuatuoGPT-o1",
        note="rationales written by GPT-4o; the open question and answer are used",
    ),
    SourceEntry(
        "doctor-patient-dialogues-en",
        "instruct",
        "en",
        "CC BY 4.0",
        True,
        "conversations",
        "stage2/doctor_patient_dialogues_en.jsonl.gz",
        url="https://github.com/abachaa/MTS-Dialog",
        citation="Ben Abacha et al. 2023, MTS-Dialog; Yim et al. 2023, ACI-Bench",
        note="patient = user, doctor = assistant; opening doctor and closing patient turns are cut",
    ),
    SourceEntry(
        "cmexam-val-mcq",
        "instruct",
        "zh",
        "none stated (CMExam itself: Apache-2.0)",
        False,
        "mcq",
        "stage2/cmexam_val_mcq.jsonl.gz",
        url="https://github.com/williamliujl/CMExam",
        citation="Liu et al. 2023, CMExam",
        note="questions with several right answers are dropped",
    ),
    SourceEntry(
        "zh-medical-qa",
        "instruct",
        "zh",
        "Apache-2.0; MIT",
        True,
        "qa",
        "stage2/zh_medical_qa.jsonl.gz",
        note="partly written by GPT-3.5; forum answers, uneven quality",
    ),
    SourceEntry(
        "zh-conversations",
        "instruct",
        "zh",
        "Apache-2.0 (a third: data for research only)",
        False,
        "conversations",
        "stage2/zh_conversations.jsonl.gz",
    ),
    SourceEntry(
        "general-instructions",
        "instruct",
        "en, zh",
        "Apache-2.0 (a third: data for research only)",
        False,
        "conversations",
        "stage2/general_instructions.jsonl.gz",
        note="general-domain replay",
    ),
    SourceEntry(
        "headqa-train",
        "instruct",
        "en",
        "none stated (HEAD-QA itself: MIT)",
        False,
        "headqa",
        "stage2/train_HEAD_EN.json.gz",
        url="https://github.com/aghie/head-qa",
        citation="Vilares and Gomez-Rodriguez 2019, HEAD-QA",
        note="machine-translated from Spanish; questions that need a picture are dropped",
    ),
)

SOURCES: dict[str, SourceEntry] = {entry.name: entry for entry in _ENTRIES}


def find(name: str, *, where: str = "") -> SourceEntry:
    """The entry of that name. Raises UserError with the nearest name."""
    if name not in SOURCES:
        raise unknown_name("source", name, SOURCES, where=where)
    return SOURCES[name]


def locate(entry: SourceEntry, root: str | Path, path: str | Path = "") -> list[Path]:
    """Files (PubMedQA: the folder or file) of a source; empty for a generated one.

    `path` wins over `root`. Raises UserError naming each place that was tried.
    """
    if entry.reader == "trialgen":
        return []
    if entry.builtin and not path:
        folder = Path(str(resources.files("medexpert.data"))) / "starter"
        return [_existing(entry, [folder / name]) for name in entry.builtin]
    if not (path or root):
        raise UserError(
            f"source {entry.name!r} is not inside the package: it needs a local copy",
            allowed="data.root = folder of the published files, or path = this source's file",
        )
    if entry.reader == "pubmedqa":
        return [find_pubmedqa(Path(path or root).expanduser())]
    names = entry.builtin or (entry.file,)
    base = Path(path or root).expanduser()
    if base.is_file():
        return [base]
    if path and not base.is_dir():
        raise UserError(f"source {entry.name!r}: no such file", where=str(base))
    return [_existing(entry, _candidates(base, name)) for name in names]


def _candidates(base: Path, name: str) -> list[Path]:
    """`base/stage1/x.jsonl.gz`, `base/x.jsonl.gz`, and both unpacked."""
    places = [base / name, base / Path(name).name]
    return places + [place.with_suffix("") for place in places if place.suffix == ".gz"]


def _existing(entry: SourceEntry, places: list[Path]) -> Path:
    for place in places:
        if place.is_file():
            return place
    raise UserError(
        f"source {entry.name!r}: file not found", allowed=", ".join(str(p) for p in places)
    )
