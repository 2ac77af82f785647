"""The samples that lm-evaluation-harness logs (`--log_samples`) -> a task file, or predictions.

A line holds `doc` (the row of its dataset), `doc_id`, `target`, `arguments`, `resps` and
`filtered_resps`; of a multiple-choice task the latter are one [ln p, is greedy] a choice, as
numbers or as text. Docs of the shapes in `SHAPES` are read; another is an error that lists them.
`convert` writes `{id, question, choices, answer (index), context?}`, one a line, which any strategy
can be asked; `predictions` gives what the harness answered, for a paired test.

    python -m medexpert.evaluate.lm_eval_samples samples_pubmedqa.jsonl questions.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medexpert import manifest
from medexpert.prompt.options import distinct
from medexpert.records import Prediction, UserError

Row = Mapping[str, Any]
VERDICTS = ["yes", "no", "maybe"]


def _pubmedqa(doc: Row) -> dict[str, Any]:
    return {
        "question": doc["QUESTION"], "context": "\n".join(doc["CONTEXTS"]), "choices": VERDICTS,
        "answer": VERDICTS.index(doc["final_decision"]),
    }  # fmt: skip


def _pubmedqa_hub(doc: Row) -> dict[str, Any]:
    return {
        "question": doc["question"], "context": "\n".join(doc["context"]["contexts"]),
        "choices": VERDICTS, "answer": VERDICTS.index(doc["final_decision"]),
    }  # fmt: skip


def _medqa(doc: Row) -> dict[str, Any]:
    endings = sorted(key for key in doc if key.startswith("ending"))
    question = f"{doc['sent1']} {doc.get('sent2', '')}".strip()
    return {
        "question": question, "choices": [doc[key] for key in endings], "answer": int(doc["label"])
    }  # fmt: skip


def _medmcqa(doc: Row) -> dict[str, Any]:
    choices = [doc[key] for key in ("opa", "opb", "opc", "opd")]
    return {"question": doc["question"], "choices": choices, "answer": int(doc["cop"])}


def _mmlu(doc: Row) -> dict[str, Any]:
    return {
        "question": doc["question"], "choices": list(doc["choices"]), "answer": int(doc["answer"])
    }  # fmt: skip


def _keyed(doc: Row) -> dict[str, Any]:
    choices = doc["choices"]
    answer = list(choices["label"]).index(doc["answerKey"])
    return {"question": doc["question"], "choices": list(choices["text"]), "answer": answer}


SHAPES: dict[tuple[str, ...], Callable[[Row], dict[str, Any]]] = {
    ("QUESTION", "CONTEXTS", "final_decision"): _pubmedqa,
    ("question", "context", "final_decision"): _pubmedqa_hub,
    ("sent1", "ending0", "label"): _medqa,
    ("question", "opa", "cop"): _medmcqa,
    ("question", "choices", "answerKey"): _keyed,
    ("question", "choices", "answer"): _mmlu,
}
"""Fields of a `doc` -> its reader: PubMedQA (two forms), MedQA, MedMCQA, ARC-like, MMLU."""


def rows(path: Path) -> list[dict[str, Any]]:
    """The questions as rows of a task file, in the file's order, `id` = the harness's doc_id.

    Of a task with several filters, which logs a question once each, the first is taken. Raises
    UserError with file:line.
    """
    return [row for row, _ in _read(path)]


def predictions(path: Path) -> list[Prediction]:
    """What the harness answered: the choice with the highest ln p (its metric `acc`), the first of
    equals. Raises UserError for a task whose responses are no log-probabilities of the choices."""
    from medexpert.prompt.asking import decided
    from medexpert.records import Question

    found = []
    for number, (row, sample) in enumerate(_read(path), 1):
        where = f"{path}: question {number}"
        values = _logprobs(sample, len(row["choices"]), where)
        choices = tuple(row["choices"])
        question = Question(row["id"], row["question"], choices, choices[row["answer"]])
        trace = {"logprobs": dict(zip(choices, values, strict=True))}
        found.append(decided(question, values, trace))
    return found


def convert(source: Path, out: Path) -> int:
    """Write the task file; the number of its questions."""
    found = rows(source)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    manifest.write_text(out, "".join(lines))
    return len(found)


def _read(path: Path) -> Iterator[tuple[dict[str, Any], Row]]:
    seen: dict[str, str] = {}
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")  # texts hold other line ends
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 (byte {error.start})", where=str(path)) from None
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        if not line.strip():
            continue
        try:
            sample = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"not a JSON line ({error})", where=where) from None
        if not isinstance(sample, dict) or not isinstance(sample.get("doc"), dict):
            raise UserError("no sample of lm-evaluation-harness", where=where, allowed="a `doc`")
        identity, name = str(sample.get("doc_id", number - 1)), str(sample.get("filter", ""))
        if identity in seen:
            if seen[identity] == name:
                raise UserError(f"doc_id {identity} is there twice", where=where)
            continue
        seen[identity] = name
        yield {"id": identity, **_question(sample["doc"], where)}, sample
    if not seen:
        raise UserError("no samples in it", where=str(path))


def _question(doc: Row, where: str) -> dict[str, Any]:
    for shape, reader in SHAPES.items():
        if set(shape) <= set(doc):
            try:
                found = reader(doc)
                # Two choices of one text are told apart as in our own tasks, by their letter.
                found["choices"] = list(distinct([text.strip() for text in found["choices"]]))
            except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
                raise UserError(f"doc of shape {', '.join(shape)}: {error}", where=where) from None
            if not 0 <= found["answer"] < len(found["choices"]):
                raise UserError(f"answer {found['answer']} is no choice", where=where)
            return found
    raise UserError(
        f"a doc with {', '.join(map(str, doc)) or 'nothing'}",
        where=where,
        allowed=" | ".join(" ".join(shape) for shape in SHAPES),
    )


def _logprobs(sample: Row, size: int, where: str) -> list[float]:
    given = sample.get("filtered_resps")
    try:
        values = [float(pair[0]) for pair in given]  # type: ignore[union-attr]
    except (TypeError, ValueError, IndexError):
        values = []
    if len(values) != size:
        raise UserError(
            "its filtered_resps are not one log-probability a choice", where=where,
            allowed="samples of a task with output_type multiple_choice",
        )  # fmt: skip
    return values


def main(arguments: Sequence[str]) -> int:
    """SAMPLES OUT; tells how many questions were written. 2 after a UserError."""
    if len(arguments) != 2:
        print("usage: python -m medexpert.evaluate.lm_eval_samples SAMPLES OUT", file=sys.stderr)
        return 2
    source, out = map(Path, arguments)
    try:
        number = convert(source, out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{out}: {number} questions")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
