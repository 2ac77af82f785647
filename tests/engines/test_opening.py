"""What a person types -> which engine: one parser, cheap mistakes first, no torch for endpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from endpoint import EVERYTHING, Endpoint, Words, running
from medexpert.__main__ import main
from medexpert.engines.http.settings import HttpSettings, settings_from
from medexpert.engines.opening import EngineSpec, open_engine, options_from
from medexpert.records import UserError

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
URL = "http://localhost:8000/v1"


@pytest.mark.parametrize(
    ("model", "kind", "name"),
    [
        ("smollm2-135m-instruct", "local", "smollm2-135m-instruct"),
        ("owner/name", "local", "owner/name"),
        ("runs/a:b/model", "local", "runs/a:b/model"),
        ("./x.gguf", "local", "./x.gguf"),
        ("C:\\models", "local", "C:\\models"),
        ("local:owner/name", "local", "owner/name"),
        ("openvino:owner/name", "openvino", "owner/name"),
        ("openai:gpt-5", "openai", "gpt-5"),
        ("openai:llama3:8b", "openai", "llama3:8b"),
        (f"{URL}#m", "openai", f"{URL}#m"),
    ],
)
def test_kinds(model: str, kind: str, name: str) -> None:
    spec = EngineSpec(model)
    assert (spec.kind, spec.name) == (kind, name)


def test_endpoint_settings() -> None:
    spec = EngineSpec("openai:llama3:8b", URL + "/", {"concurrency": "3", "price_in": "0.5"})
    assert spec.endpoint() == HttpSettings(URL, "llama3:8b", concurrency=3, price_in=0.5)
    assert settings_from(f"{URL}#owner/m") == HttpSettings(URL, "owner/m")
    assert settings_from(URL) == HttpSettings(URL)


BAD: list[tuple[EngineSpec, str]] = [
    (EngineSpec("opnai:m", URL), "unknown engine 'opnai'.*did you mean 'openai'"),
    (EngineSpec("openai:m"), "the address of the endpoint of 'm' is missing.*--base-url"),
    (EngineSpec(f"{URL}#m", URL), "the address is given twice"),
    (EngineSpec("openai:m", "localhost:8000"), "'localhost:8000' is no address"),
    (EngineSpec("openai:m", "ftp://x/v1"), "is no address of an endpoint"),
    (EngineSpec("openai:m", "http://x:99999/v1"), "is no address"),
    (EngineSpec("openai:m", "http://me:secret@x/v1"), "holds a user, a query or a fragment"),
    (EngineSpec("openai:m", URL, {"concurency": "3"}), "did you mean 'concurrency'"),
    (EngineSpec("openai:m", URL, {"concurrency": "many"}), "'many'; allowed: a whole number"),
    (EngineSpec("openai:m", URL, {"concurrency": "0"}), "concurrency = 0; allowed: 1 or more"),
    (EngineSpec("openai:m", URL, {"patience": "nan"}), "patience = nan; allowed: seconds"),
    (EngineSpec("openai:m", URL, {"api": "chats"}), "unknown api 'chats'.*did you mean 'chat'"),
    (EngineSpec("openai:m", URL, {"api": "chat", "labels": "echo"}), "needs api = 'completions'"),
    (EngineSpec("openai:m", URL, {"price_in": "-1"}), "price_in = -1.0; allowed: 0 or more"),
    (EngineSpec("m", URL), "base_url is for an endpoint, and m is a model on this machine"),
    (EngineSpec("m", dtype="float8"), "unknown dtype 'float8'"),
    (EngineSpec("m", options={"rows": "3"}), "rows is for an endpoint"),
    (EngineSpec("openvino:m", URL), "base_url is for an endpoint"),
    (EngineSpec("openvino:m", options={"row": "3"}), "did you mean 'rows'"),
    (EngineSpec("openvino:m", options={"rows": "x"}), "rows = 'x'; allowed: a number"),
    (EngineSpec("openvino:m", options={"rows": "0"}), "rows = 0; allowed: more than 0"),
    (EngineSpec("openvino:m", options={"cache_gb": "nan"}), "cache_gb = nan"),
    (EngineSpec("openvino:m", options={"gguf": "q8"}), "unknown gguf 'q8'.*did you mean 'q8_0'"),
    (EngineSpec("openvino:m", options={"dtype": "f32"}), "unknown dtype 'f32'"),
]


@pytest.mark.parametrize(("spec", "line"), BAD, ids=[line[:30] for _, line in BAD])
def test_bad_specs(spec: EngineSpec, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        spec.check()
    assert "secret" not in str(caught.value)


def test_options() -> None:
    assert options_from(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(UserError, match="NAME=VALUE"):
        options_from(["a"])
    with pytest.raises(UserError, match="a is given twice"):
        options_from(["a=1", "a=2"])


def test_the_digest_of_an_endpoint_changes_with_what_it_is() -> None:
    with running(Endpoint(models=("one", "two"))) as state:
        digests = []
        top = {"labels": "top"}
        asked: list[tuple[str, dict[str, str]]] = [
            ("one", {}), ("one", {}), ("two", {}), ("one", top),
            ("one", {**top, "top_logprobs": "4"}), ("one", {"top_logprobs": "4"}),
        ]  # fmt: skip
        for model, extra in asked:
            engine, digest = open_engine(
                EngineSpec(f"openai:{model}", state.address, extra), lambda line: None
            )
            digests.append(digest)
            engine.close()  # type: ignore[attr-defined]
    assert digests[0] == digests[1] == digests[-1]
    assert len(set(digests)) == 4


def test_openvino_is_another_engine_on_the_same_weights(
    base_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medexpert.engines.paired import PairedEngine

    asked: list[Any] = []
    able = ["float32"]  # what the CPU of the moment computes in, asked for nothing else

    def opened(folder: Path, **settings: Any) -> Any:
        asked.append((folder, settings))
        dtype = settings["writer"].dtype or able[0]
        return SimpleNamespace(facts=lambda: {"generator": {"dtype": dtype}})

    monkeypatch.setattr(PairedEngine, "open", opened)

    def identity(**options: str) -> str:
        spec = EngineSpec(f"openvino:{base_model}", options=options, threads=1)
        return open_engine(spec, lambda line: None)[1]

    one = identity()
    local, other = open_engine(EngineSpec(str(base_model)), lambda line: None)
    assert asked[0][0] == base_model
    assert asked[0][1]["threads"] == 1
    assert local.facts()["engine"] == "local"
    assert one != other
    assert one == identity(dtype="float32")
    able[0] = "bfloat16"  # another machine
    assert identity() == identity(dtype="bfloat16") != one
    assert identity(dtype="float32") == one


def test_an_endpoint_needs_no_torch(tmp_path: Path, base_model: Path) -> None:
    code = (
        "import sys\n"
        "from medexpert.engines.opening import EngineSpec, open_engine\n"
        "engine, _ = open_engine(EngineSpec(sys.argv[1], options={'tokenizer': sys.argv[2],"
        " 'api': 'chat'}), print)\n"
        "print(engine.complete(['x'], max_tokens=4)[0].text, engine.count_tokens('some words'))\n"
        "print([n for n in ('torch', 'transformers', 'peft') if n in sys.modules])"
    )
    with running(Endpoint(offers=EVERYTHING - {"completions"})) as state:
        done = subprocess.run(
            [sys.executable, "-c", code, state.address, str(base_model)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_door_asks_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    mind = Words(lambda prompt: " Because the trial found it")
    mind.top = {" yes": -0.3, " no": -1.6, " maybe": -2.5}
    with running(Endpoint(mind, EVERYTHING - {"echo", "prompt_logprobs", "forced"})) as state:
        code = main(
            ["ask", "Does it help?", "--model", "openai:tiny", "--base-url", state.address,
             "--engine-option", "concurrency=2"]
        )  # fmt: skip
    assert code == 0
    assert capsys.readouterr().out.startswith("Answer: yes")


def test_the_door_tells_a_dead_endpoint_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["ask", "Does it help?", "--model", "http://127.0.0.1:9/v1#m"])
    assert code == 2
    words: Any = capsys.readouterr().err.strip().splitlines()
    assert words[-1].startswith("medexpert: http://127.0.0.1:9/v1/models: cannot connect")


def test_openvino_writes_and_the_local_engine_scores(
    model_folder: Path, open_openvino: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDEXPERT_CACHE", str(tmp_path))
    options = {"dtype": "float32", "cache_gb": "0.01"}
    spec = EngineSpec(f"openvino:{model_folder}", options=options, threads=1)
    engine, identity = open_engine(spec, lambda line: None)
    _, local = open_engine(EngineSpec(str(model_folder)), lambda line: None)
    facts = engine.facts()
    assert (facts["generator"]["engine"], facts["scorer"]["engine"]) == ("openvino", "local")
    assert facts["generator"]["dtype"] == "float32"
    assert engine.complete(["Q:"], max_tokens=3) == open_openvino().complete(["Q:"], max_tokens=3)
    assert identity != local
