"""Medical examinations: MedQA, MedMCQA, HEAD-QA (English), CMExam, CMB, MedQA mainland (Chinese).

Where only a fixed part of a published test is at hand (`-a`), it is a task of its own: its numbers
are not the benchmark's.
"""

from __future__ import annotations

from medexpert.evaluate.tasks.items import Source, exam, mcq
from medexpert.evaluate.tasks.task import Task

_MEDQA_SHOTS = Source("medqa-us-mcq", prefix="medqa-us-train-")
_CMEXAM_VAL = Source("cmexam-val-mcq")
_HEADQA_TRAIN = Source("headqa-train")

ENGLISH: tuple[Task, ...] = (
    exam(
        "medqa-us",
        {
            "test": Source("medqa-us"),
            "dev": Source("medqa-us-mcq", prefix="medqa-us-dev-"),
            "train": _MEDQA_SHOTS,
        },
        benchmark="medqa-us", convert=mcq("medqa"), shots="train", official=True,
        note="MedQA, USMLE questions with four options",
    ),
    exam(
        "medqa-us-5",
        {"test": Source("medqa-us-5-options"), "train": _MEDQA_SHOTS},
        benchmark="medqa-us-5-options", convert=mcq("medqa-5"), shots="train", official=True,
        note="MedQA, the same USMLE questions with five options; the examples have four",
    ),
    exam(
        "medmcqa",
        {"test": Source("medmcqa")},
        benchmark="medmcqa", convert=mcq("medmcqa"), official=True,
        note="MedMCQA, the published dev split, since the answers of its test are not public",
    ),
    exam(
        "medmcqa-a",
        {"test": Source("medmcqa-a")},
        benchmark="medmcqa-a", convert=mcq("medmcqa"), official=False,
        note="a fixed half of MedMCQA's dev split",
    ),
    exam(
        "headqa",
        {"test": Source("headqa-test"), "dev": Source("headqa-dev"), "train": _HEADQA_TRAIN},
        benchmark="headqa-test", convert=mcq("headqa"), shots="train", official=True,
        note="HEAD-QA in English; questions that need a picture are left out",
    ),
    exam(
        "headqa-dev",
        {"test": Source("headqa-dev"), "train": _HEADQA_TRAIN},
        benchmark="headqa-dev", convert=mcq("headqa"), shots="train", official=False,
        note="the dev split of HEAD-QA in English, without questions that need a picture",
    ),
)  # fmt: skip

CHINESE: tuple[Task, ...] = (
    exam(
        "medqa-mcmle",
        {"test": Source("medqa-mainland")},
        benchmark="medqa-mainland", convert=mcq("medqa-mcmle"), official=True,
        note="MedQA, questions of the mainland Chinese examination",
    ),
    exam(
        "medqa-mcmle-a",
        {"test": Source("medqa-mainland-a")},
        benchmark="medqa-mainland-a", convert=mcq("medqa-mcmle"), official=False,
        note="a fixed half of MedQA's mainland Chinese test, four options",
    ),
    exam(
        "medqa-taiwan",
        {"test": Source("medqa-taiwan")},
        benchmark="medqa-taiwan", convert=mcq("medqa-taiwan"), official=True,
        note="MedQA, questions of the Taiwanese examination, traditional script",
    ),
    exam(
        "cmexam",
        {"test": Source("cmexam"), "val": _CMEXAM_VAL},
        benchmark="cmexam", convert=mcq("cmexam"), shots="val", official=True,
        note="CMExam's questions with one right answer; those with several are counted, not asked",
    ),
    exam(
        "cmexam-a",
        {"test": Source("cmexam-a"), "val": _CMEXAM_VAL},
        benchmark="cmexam-a", convert=mcq("cmexam"), shots="val", official=False,
        note="a fixed half of CMExam's test, questions with one right answer",
    ),
    exam(
        "cmb-a",
        {"test": Source("cmb-a")},
        benchmark="cmb-a", convert=mcq("cmb"), official=False,
        note="a fixed part of CMB's questions with one right answer",
    ),
)  # fmt: skip
