import json

import pytest
import torch
from pydantic import ValidationError

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.quantised import Scheme, read_mark
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.qat.stage import run
from gemsmith.weights.quantise import quantised
from tests.messages import raises_facts

SUMS = ReasoningGymData.model_validate(
    {"source": "reasoning_gym", "task": "chain_sum", "size": 60, "prompt": "{metadata[expression]} =",
     "options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}, "holdout": 0.3,
     "synthesise": {"right": 1.0}}
)  # fmt: skip


def config(**fields):
    given = {"id": "int4", "kind": "qat", "policy": {"model": "tiny"}, "data": "sums", "format": "int4_channel"}
    return QatStage.model_validate({**given, "steps": 2, "batch": 4, "learning_rate": 1e-3, "held_out": 6, **fields})


def stage(tmp_path, **fields):
    return Stage(id="int4", folder=tmp_path / "int4", seed=3, root=tmp_path, data={"sums": SUMS}, **fields)


@pytest.mark.parametrize(
    ("format", "embedding", "scheme"),
    [
        ("q4_0", "f16", Scheme("q4_0", "f16")),
        ("int4_channel", "q8_0", Scheme("int4_channel", "q8_0")),
        ("sfp8", "format", Scheme("sfp8", "sfp8")),
    ],
)
def test_the_policy_that_comes_out_is_on_the_grid_and_says_so(tmp_path, format, embedding, scheme):
    work = stage(tmp_path)
    run(config(format=format, embedding=embedding), work)
    assert read_mark(work.output) == scheme
    state = load_policy(PolicyConfig(model=str(work.output))).model.state_dict()
    for name, weight in state.items():
        if (kind := scheme.of(name)) is not None:
            assert torch.equal(quantised(weight, kind), weight), name
    start = load_policy(PolicyConfig(model="tiny"), seed=3).model.state_dict()
    changed = "model.norm.weight"
    assert not torch.equal(state[changed], start[changed])  # the weights were trained, not only rounded
    assert not (tmp_path / "int4" / "checkpoints").exists()


def test_training_brings_the_quantised_policy_nearer_to_the_unquantised_one(tmp_path):
    work = stage(tmp_path)
    run(config(steps=20, batch=16, learning_rate=3e-4, sampled_logits=512, mode="topk"), work)  # K = vocabulary size
    found = json.loads((work.output / "qat.json").read_text())
    assert (found["format"], found["embedding"], found["rows"]) == ("int4_channel", "f16", 6)
    assert 0 < found["qat"]["kl"] < 0.7 * found["ptq"]["kl"]
    assert found["qat"]["tokens"] == found["ptq"]["tokens"] > 6


def test_ptq_is_what_a_training_that_moves_nothing_gives(tmp_path):
    work = stage(tmp_path)
    run(config(steps=1, learning_rate=0.0), work)
    found = json.loads((work.output / "qat.json").read_text())
    assert found["qat"] == found["ptq"]
    state = load_policy(PolicyConfig(model=str(work.output))).model.state_dict()
    start = load_policy(PolicyConfig(model="tiny"), seed=3).model.state_dict()
    name = "model.layers.2.self_attn.q_proj.weight"
    assert torch.equal(state[name], quantised(start[name], "int4_channel"))


def test_a_policy_that_is_on_the_grid_already_is_not_moved_by_rounding(tmp_path):
    first = stage(tmp_path)
    run(config(steps=1), first)
    again = Stage(id="b", folder=tmp_path / "b", seed=3, root=tmp_path, data={"sums": SUMS}, inputs={"a": first.output})
    run(config(steps=1, policy={"from": "a"}), again)
    assert json.loads((again.output / "qat.json").read_text())["ptq"]["kl"] == pytest.approx(0.0, abs=1e-6)


def test_a_stage_that_was_saved_whole_is_not_trained_again(tmp_path):
    work = stage(tmp_path)
    work.output.mkdir(parents=True)
    run(config(data="missing"), work)
    assert list(work.output.iterdir()) == []


def test_adapters_bfloat16_and_unknown_formats_are_refused():
    for fields, facts in [
        ({"lora": {}}, ["qat", "`lora`"]),
        ({"policy": {"model": "tiny", "dtype": "bfloat16"}}, ["bfloat16", "float32", "`dtype`"]),
        ({"format": "int3"}, ["format", "'q4_0', 'int4_channel' or 'sfp8'"]),
    ]:
        with raises_facts(ValidationError, *facts):
            config(**fields)


def test_a_width_that_no_block_divides_is_refused_before_anything_trains(tmp_path):
    from transformers import Gemma3ForCausalLM

    from gemsmith.policy.loading.tiny import tiny_config, tiny_policy
    from gemsmith.policy.policy import Policy

    odd = tiny_config()
    odd.intermediate_size = 100
    model = Gemma3ForCausalLM(odd)
    model.generation_config.eos_token_id = [1, 106]
    save_policy(Policy(model, tiny_policy().tokenizer), tmp_path / "odd")
    with raises_facts(UserError, "down_proj", 100, "`format: int4_channel`", "`sfp8`"):
        run(config(format="q4_0", policy={"model": str(tmp_path / "odd")}), stage(tmp_path))
