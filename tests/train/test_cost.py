"""The cost model: parameters against modules, FLOPs against torch's counter, memory by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from medexpert.recipe_train import CPoly, Infill, Lora, Stage
from medexpert.records import UserError
from medexpert.train import cost, forecast
from medexpert.train.cost import Shape, flops_per_token, memory_bytes, shape_of, trained_parameters
from medexpert.train.forecast import h100


def meta(kind: str, **settings: Any) -> Any:
    """A model of a transformers config class on the meta device: no weights exist."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**settings)
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config)


def smollm2() -> Any:
    return meta(
        "Llama", vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        tie_word_embeddings=True,
    )  # fmt: skip


def qwen3() -> Any:
    return meta(
        "Qwen3", vocab_size=151936, hidden_size=4096, intermediate_size=12288,
        num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
        max_position_embeddings=40960, tie_word_embeddings=False,
    )  # fmt: skip


def glm4() -> Any:
    return meta(
        "Glm4", vocab_size=151552, hidden_size=4096, intermediate_size=13696,
        num_hidden_layers=40, num_attention_heads=32, num_key_value_heads=2, head_dim=128,
        max_position_embeddings=32768, attention_bias=True, tie_word_embeddings=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "millions", "layers", "head"),
    [
        (smollm2, 134.515, 30, 49152 * 576),
        (qwen3, 8190.735, 36, 151936 * 4096),
        (glm4, 9400.279, 40, 151552 * 4096),
    ],
)
def test_known_architectures_by_their_config_alone(
    model: Callable[[], Any], millions: float, layers: int, head: int
) -> None:
    shape = shape_of(model())
    assert shape.total / 1e6 == pytest.approx(millions, abs=0.001)
    assert (shape.layers, shape.head) == (layers, head)
    assert all("lm_head" not in layer.name for layer in shape.linears)


def test_a_folder_needs_only_its_config(tmp_path: Path) -> None:
    model = glm4()
    model.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["Glm4ForCausalLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cost.read_shape(tmp_path) == shape_of(model)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config\.json"):
        cost.read_shape(tmp_path)


def test_a_mixture_of_experts_is_refused() -> None:
    model = meta(
        "Mixtral", vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip
    with pytest.raises(UserError, match="mixture of experts"):
        shape_of(model)


@pytest.mark.parametrize(
    "targets", ["all-linear", ("q_proj", "v_proj"), r"model\.layers\.0\..*_proj"]
)
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_adapter_parameters_are_those_peft_makes(
    tiny_model: Callable[..., Any], targets: Any, method: str
) -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny_model()
    settings = Stage(method=method, lora=Lora(rank=3, target_modules=targets))
    told = trained_parameters(shape_of(model), settings)
    config = LoraConfig(
        r=3, target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM", use_dora=method == "dora",
    )  # fmt: skip
    wrapped = get_peft_model(model, config)
    assert told == sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


def test_cpoly_has_a_lora_a_skill_and_a_logit_a_task_and_skill(
    tiny_model: Callable[..., Any],
) -> None:
    shape = shape_of(tiny_model())
    lora = trained_parameters(shape, Stage(method="lora", lora=Lora(rank=4)))
    cpoly = CPoly(rank=4, common=3, private=1, tasks={"a": ("x",), "b": ("y",)})
    settings = Stage(method="cpoly", cpoly=cpoly)
    assert trained_parameters(shape, settings) == 5 * lora + len(shape.linears) * 2 * 4
    unnamed = settings.model_copy(update={"cpoly": cpoly.model_copy(update={"tasks": {}})})
    more = trained_parameters(shape, unnamed, tasks=4)
    assert more == 7 * lora + len(shape.linears) * 4 * 4


def test_frozen_parameters_are_not_trained(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    settings = Stage(freeze=("model.layers.0.*",))
    still = sum(p.numel() for n, p in model.named_parameters() if ".layers.0." in n)
    shape = shape_of(model)
    assert trained_parameters(shape, settings) == shape.total - still


def test_targets_that_match_nothing_name_the_candidates(tiny_model: Callable[..., Any]) -> None:
    settings = Stage(method="lora", lora=Lora(target_modules=("qproj",)))
    with pytest.raises(UserError, match=r"matches no linear layer.*q_proj"):
        trained_parameters(shape_of(tiny_model()), settings)


def counted(model: Any, ids: torch.Tensor, trained: Callable[[str], bool]) -> int:
    """Operations of forward and backward as torch counts them, eager attention, all logits."""
    from torch.utils.flop_counter import FlopCounterMode

    model.set_attn_implementation("eager")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained(name))
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embeddings, use_cache=False).logits.float().sum().backward()
    return int(counter.get_total_flops())


def test_operations_are_those_that_torch_counts(tiny_model: Callable[..., Any]) -> None:
    ids = torch.arange(64)[None] % 97
    # Eager attention computes every pair, so a token sees 64 keys.
    for settings, trained in [
        (Stage(sequence_length=64), lambda name: True),
        (Stage(sequence_length=64, freeze=("model.*",)), lambda name: "model." not in name),
        (
            Stage(sequence_length=64, freeze=("*.mlp.*",)),
            lambda name: ".mlp." not in name,
        ),
    ]:
        model = tiny_model(tie_word_embeddings=False)
        told = flops_per_token(shape_of(model), settings, keys=64).total * 64
        assert told == pytest.approx(counted(model, ids, trained), rel=0.01)


def test_lora_saves_the_products_with_frozen_weights(tiny_model: Callable[..., Any]) -> None:
    shape = shape_of(tiny_model())
    full = flops_per_token(shape, Stage(), keys=0)
    lora = flops_per_token(shape, Stage(method="lora", lora=Lora(rank=1)), keys=0)
    assert full.total == 6 * (shape.body + shape.head)
    rank_one = sum(layer.inputs + layer.outputs for layer in shape.linears)
    assert lora.total == 4 * (shape.body + shape.head) + 6 * rank_one


def test_the_head_is_paid_at_loss_positions_and_recompute_is_told_apart(
    tiny_model: Callable[..., Any],
) -> None:
    shape = shape_of(tiny_model())
    quarter = flops_per_token(shape, Stage(), loss_share=0.25, keys=0)
    assert quarter.total == 6 * (shape.body + 0.25 * shape.head)
    again = flops_per_token(shape, Stage(recompute=True), keys=0)
    assert again.total == 6 * (shape.body + shape.head)
    assert again.executed == again.total + 2 * shape.body


def test_prefix_attention_sees_whole_rows(tiny_model: Callable[..., Any]) -> None:
    shape = shape_of(tiny_model())
    causal = flops_per_token(shape, Stage()).attention
    assert flops_per_token(shape, Stage(attention="prefix")).attention == 2 * causal


def states(parts: dict[str, float]) -> float:
    return sum(parts[k] for k in ("weights", "masters", "gradients", "moments"))


def test_memory_of_weights_by_hand(tiny_model: Callable[..., Any]) -> None:
    shape = shape_of(tiny_model())
    assert states(memory_bytes(shape, Stage())) == 18 * shape.total
    assert states(memory_bytes(shape, Stage(dtype="float32"))) == 20 * shape.total
    lora = Stage(method="lora", lora=Lora(rank=2))
    parts = memory_bytes(shape, lora)
    assert parts["frozen weights"] == 2 * shape.total
    assert states(parts) == 18 * trained_parameters(shape, lora)
    four = memory_bytes(shape, lora.model_copy(update={"method": "qlora"}))
    bits = 4 + 8 / 64 + 32 / (64 * 256)  # QLoRA, section 3: 0.127 bits a weight beside the four
    assert four["frozen weights"] == shape.body * bits / 8 + (shape.total - shape.body) * 2
    alone = memory_bytes(shape, lora.model_copy(update={"method": "qlora"}), processes=8)
    assert alone == four  # 4-bit weights are not sharded


def test_sharding_divides_the_states_and_replication_does_not(
    tiny_model: Callable[..., Any],
) -> None:
    shape = shape_of(tiny_model())
    four = memory_bytes(shape, Stage(), processes=4)
    assert states(four) == 16 * shape.total / 4
    assert four["whole layers"] > 0
    same = memory_bytes(shape, Stage(sharding="replicate"), processes=4)
    assert same == memory_bytes(shape, Stage())


def saved_for_backward(model: Any, ids: torch.Tensor) -> int:
    """Bytes of distinct storages that autograd keeps, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    assert hidden.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_activations_are_about_what_autograd_keeps(
    tiny_model: Callable[..., Any], dtype: str
) -> None:
    model = tiny_model(
        hidden_size=64, intermediate_size=160, num_hidden_layers=4, num_attention_heads=4
    ).train()
    shape = shape_of(model)
    model.to(getattr(torch, dtype))
    kept = saved_for_backward(model, torch.arange(256)[None] % 97)
    told = cost.activation_bytes(shape, Stage(sequence_length=256, dtype=dtype))
    assert told == pytest.approx(kept, rel=0.25)


def test_recompute_keeps_little(tiny_model: Callable[..., Any]) -> None:
    shape = shape_of(tiny_model(num_hidden_layers=12))
    kept = cost.activation_bytes(shape, Stage())
    assert cost.activation_bytes(shape, Stage(recompute=True)) < kept / 4


@pytest.fixture(scope="module")
def glm_shape() -> Shape:
    return shape_of(glm4())


def test_a_nine_billion_model_needs_sharding_and_is_told_so(glm_shape: Shape) -> None:
    settings = Stage(sequence_length=2048, recompute=True)
    one = forecast.forecast("knowledge", settings, glm_shape, 10**9, h100(1))
    assert not one.fits
    assert one.change == 'method = "lora"'
    eight = forecast.forecast("knowledge", settings, glm_shape, 10**9, h100(8))
    assert eight.fits
    assert eight.change == ""
    assert eight.memory < 80e9 < one.memory
    kept = settings.model_copy(update={"recompute": False, "micro_rows": 16})
    lacking = forecast.forecast("knowledge", kept, glm_shape, 10**9, h100(8))
    assert not lacking.fits
    assert lacking.change == "micro_rows = 1"


def test_what_fits_names_settings_that_a_run_accepts(glm_shape: Shape) -> None:
    settings = Stage(sequence_length=1024, recompute=True)
    small = replace(h100(8), processes=2, memory=15e9)
    told = forecast.forecast("instruct", settings, glm_shape, 10**9, small)
    assert told.change == 'method = "qlora", sharding = "replicate"'
    alone = replace(h100(1), memory=15e9)
    told = forecast.forecast("instruct", settings, glm_shape, 10**9, alone)
    assert told.change == 'method = "qlora"'


def test_lora_of_nine_billion_fits_one_gpu(glm_shape: Shape) -> None:
    settings = Stage(method="lora", sequence_length=2048, recompute=True)
    assert forecast.forecast("instruct", settings, glm_shape, 10**6, h100(1)).fits


def test_hours_and_money_follow_from_operations(glm_shape: Shape) -> None:
    settings = Stage(sequence_length=2048)
    machine = h100(8, dollars=2.0, euros=1.0)
    told = forecast.forecast("knowledge", settings, glm_shape, 10**9, machine)
    rate = 8 * 989e12 * 0.40 * 0.95
    assert told.hours == pytest.approx(10**9 * told.flops_per_token / rate / 3600)
    assert told.dollars == pytest.approx(told.hours * 8 * 2.0)
    assert told.euros == pytest.approx(told.hours * 8)


def test_infilling_learns_fewer_positions() -> None:
    mix = Stage(infill=Infill(words=0.15, sentences=0.05, suffix=0.3, anneal=0.2))
    mixed = 0.5 + 0.3 * 0.625 + 0.2 * 0.15
    told = forecast.loss_share("knowledge", mix)
    assert told == pytest.approx(0.8 * mixed + 0.2 * 0.625)
    assert forecast.loss_share("knowledge", Stage()) == 1


def test_the_table_and_the_json_say_what_is_assumed(
    recipe: Callable[..., Path], tiny_model: Callable[..., Any], monkeypatch: Any
) -> None:
    from medexpert.recipe import load

    monkeypatch.setattr(forecast, "matmul_rate", lambda dtype, threads: 1e9)
    run = load(recipe())
    machines = [forecast.this_machine(run), h100(1), h100(8), h100(64)]
    tokens = {"knowledge": 6000, "instruct": 4000, "adapt": 2000}
    found = forecast.plan(run, shape_of(tiny_model()), tokens, machines)
    text = forecast.table(found, machines)
    rows = [line.split()[:2] for line in text.splitlines()]
    for machine in ("here", "1xH100", "8xH100", "64xH100"):
        for stage in ("knowledge", "instruct", "adapt"):
            assert [machine, stage] in rows
    assert text.count("assumed, not measured: ") == 3
    assert "measured just now here: 1 GFLOP/s bfloat16" in text
    assert all(f"{d:.2f}" in text for d in (forecast.DOLLARS, forecast.EUROS))
    whole = json.loads(json.dumps(forecast.as_json(found, machines)))
    assert len(whole["stages"]) == 12
    assert len(whole["assumed"]) == 3
    assert whole["measured"] == {"here": {"bfloat16": 1e9}}
    first = whole["stages"][0]
    assert sum(first["memory_by"].values()) == pytest.approx(first["memory"])


def test_a_gpu_here_has_a_measured_rate_and_an_assumed_share(
    recipe: Callable[..., Path], monkeypatch: Any
) -> None:
    from types import SimpleNamespace

    from medexpert.recipe import load

    monkeypatch.setattr(forecast, "matmul_rate", lambda dtype, threads: 1e12)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    memory = SimpleNamespace(total_memory=24e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: memory)
    text = forecast.table([], [forecast.this_machine(load(recipe()))])
    assert "assumed, not measured: here: the share of a GPU's rate" in text
    assert "measured just now here: 1,000 GFLOP/s bfloat16" in text


def test_the_comparison_of_a_missing_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        forecast.main([str(tmp_path / "no-run")])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_stage_that_does_not_fit_says_what_to_set(
    recipe: Callable[..., Path], glm_shape: Shape
) -> None:
    from medexpert.recipe import load

    run = load(recipe())
    tokens = {"knowledge": 6000, "instruct": 4000, "adapt": 2000}
    found = forecast.plan(run, glm_shape, tokens, [h100(1)])
    lines = forecast.table(found, [h100(1)])
    assert 'knowledge does not fit: set recompute = true, method = "lora"' in lines


def test_comparison_with_a_log(tmp_path: Path, tiny_model: Callable[..., Any]) -> None:
    log = tmp_path / "log.jsonl"
    events = [
        {"event": "step", "step": 1, "tokens": 500, "seconds": 10.0, "memory": 2e9},
        {"event": "measure", "step": 1, "kind": "heldout"},
        {"event": "step", "step": 2, "tokens": 1000, "seconds": 20.0, "memory": 1e9},
    ]
    log.write_text("".join(json.dumps(e) + "\n" for e in events))
    shape = shape_of(tiny_model())
    said = forecast.forecast("knowledge", Stage(), shape, 2000, h100(1))
    found = forecast.compare(said, log)
    assert found["tokens_error"] == 1.0
    assert found["tokens_per_second_measured"] == 50
    assert found["memory_measured"] == 2e9
    assert found["memory_error"] == pytest.approx(said.memory / 2e9 - 1)
    log.write_text("")
    with pytest.raises(UserError, match="no step is recorded"):
        forecast.compare(said, log)
