"""MMLU and CMMLU: a task a subject, and the groups of subjects that are reported together."""

from __future__ import annotations

from medexpert.evaluate.tasks.items import Source, exam, mcq
from medexpert.evaluate.tasks.task import Task

MEDICAL = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics",
    "professional_medicine", "virology", "nutrition", "human_aging", "human_sexuality",
)  # fmt: skip
GENERAL = (
    "computer_security", "elementary_mathematics", "high_school_world_history", "sociology",
)  # fmt: skip
CHINESE = (
    "anatomy", "clinical_knowledge", "college_medicine", "college_medical_statistics", "genetics",
    "nutrition", "professional_medicine", "traditional_chinese_medicine", "virology",
    "human_sexuality",
)  # fmt: skip


def _mmlu(subject: str, benchmark: str) -> Task:
    return exam(
        f"mmlu-{subject}",
        {split: Source(benchmark, f"{subject}_{split}.csv") for split in ("test", "val", "dev")},
        benchmark=benchmark, convert=mcq("mmlu", subject), shots="dev", official=True,
        note=f"MMLU, {subject.replace('_', ' ')}",
    )  # fmt: skip


def _cmmlu(subject: str) -> Task:
    return exam(
        f"cmmlu-{subject}",
        {
            split: Source("cmmlu-medical", f"{subject}_{split}.csv", reader="cmmlu")
            for split in ("test", "dev")
        },
        benchmark="cmmlu-medical", convert=mcq("cmmlu", subject), shots="dev", official=True,
        note=f"CMMLU, {subject.replace('_', ' ')}",
    )  # fmt: skip


TASKS: tuple[Task, ...] = (
    *(_mmlu(subject, "mmlu-medical") for subject in MEDICAL),
    *(_mmlu(subject, "mmlu-general") for subject in GENERAL),
    *(_cmmlu(subject) for subject in CHINESE),
)
GROUPS: dict[str, tuple[str, ...]] = {
    "mmlu-medical": tuple(f"mmlu-{subject}" for subject in MEDICAL),
    "mmlu-general": tuple(f"mmlu-{subject}" for subject in GENERAL),
    "cmmlu-medical": tuple(f"cmmlu-{subject}" for subject in CHINESE),
}
