"""The policy's numbers are Gemma 3's: against transformers' plainest path, however the batch is laid out."""

from functools import cache
from pathlib import Path
from typing import get_args

import pytest
import torch
from transformers import AutoModelForCausalLM

from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.head.logprobs import sequence_logprobs, token_logprobs
from gemsmith.policy.loading import gguf_file
from gemsmith.policy.loading.load import load_policy, save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.rl.stages.sft.config import SftStage
from gemsmith.rl.stages.sft.stage import run as run_sft

GGUF = Path(__file__).parents[2] / "models/gemma-3-270m-q4_k_m.gguf"
TAKEN = get_args(PolicyConfig.model_fields["attention"].annotation)
WINDOW = 16

attention = pytest.mark.parametrize(
    "attention",
    [
        pytest.param(name, marks=pytest.mark.skipif(name not in TAKEN, reason=f"policy.attention has no {name}"))
        for name in ("sdpa", "fused")
    ],
)
real = pytest.mark.skipif(not GGUF.exists(), reason=f"needs the real weights at models/{GGUF.name}")


@pytest.fixture
def saved(decided, tmp_path):
    save_policy(decided, tmp_path / "saved")
    return tmp_path / "saved"


def loaded(folder, attention):
    return load_policy(PolicyConfig(model=str(folder), attention=attention)).model


@cache
def gemma_270m():
    return load_policy(PolicyConfig(model=str(GGUF), dtype="float32"))


def random_ids(*shape):
    return torch.randint(363, 512, shape, generator=torch.Generator().manual_seed(0))


@attention
@pytest.mark.parametrize("length", [1, 7, WINDOW, WINDOW + 1, 100])
def test_logits_equal_transformers_eager_path(saved, attention, length):
    ids = random_ids(2, length)
    plain = AutoModelForCausalLM.from_pretrained(saved, attn_implementation="eager")
    torch.testing.assert_close(loaded(saved, attention)(ids).logits, plain(ids).logits, atol=1e-4, rtol=1e-5)


@attention
def test_gradients_equal_transformers_eager_path(saved, attention):
    ids = random_ids(2, 60)
    plain = AutoModelForCausalLM.from_pretrained(saved, attn_implementation="eager")
    ours = loaded(saved, attention)
    for model in (plain, ours):
        model.train()(ids, labels=ids).loss.backward()
    for (name, expected), got in zip(plain.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, atol=1e-4, rtol=1e-3, msg=name)


@real
@attention
def test_the_270ms_logits_equal_transformers_eager_path(attention):
    gemma = gemma_270m()
    text = Path(__file__).with_name("test_load.py").read_text()
    ids = torch.tensor([gemma.tokenizer(text)["input_ids"][:640]])
    assert ids.shape[1] > gemma.model.config.sliding_window
    named = load_policy(PolicyConfig(model="tiny", attention=attention)).model.config._attn_implementation
    logits = {}
    with torch.no_grad():
        for implementation in ("eager", named):
            gemma.model.set_attn_implementation(implementation)
            logits[implementation] = gemma.model(ids, logits_to_keep=128, use_cache=False).logits
    torch.testing.assert_close(logits[named], logits["eager"], atol=1e-4, rtol=0)


def padded(sequences, side):
    width = max(map(len, sequences))
    ids, mask = torch.zeros(len(sequences), width, dtype=torch.long), torch.zeros(len(sequences), width).long()
    for row, sequence in enumerate(sequences):
        columns = slice(width - len(sequence), width) if side == "left" else slice(0, len(sequence))
        ids[row, columns], mask[row, columns] = torch.tensor(sequence), 1
    return ids, mask


@attention
def test_padded_and_packed_batches_give_the_same_log_probabilities(saved, prompts, attention):
    model = loaded(saved, attention)

    def next_token(logits, ids):
        return logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0]

    alone = [next_token(model(torch.tensor([p]), use_cache=False).logits[0], torch.tensor(p)) for p in prompts]
    for side in ("left", "right"):
        ids, mask = padded(prompts, side)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        for row, expected in enumerate(alone):
            here = mask[row].bool()
            torch.testing.assert_close(next_token(logits[row, here], ids[row, here]), expected, atol=1e-4, rtol=1e-5)
    packed = torch.cat([torch.tensor(prompt) for prompt in prompts])[None]
    positions = torch.cat([torch.arange(len(prompt)) for prompt in prompts])[None]
    logits = model(packed, attention_mask=None, position_ids=positions, use_cache=False).logits[0]
    for piece, ids, expected in zip(
        logits.split([len(prompt) for prompt in prompts]), map(torch.tensor, prompts), alone, strict=True
    ):
        torch.testing.assert_close(next_token(piece, ids), expected, atol=1e-4, rtol=1e-5)


@attention
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_window_that_is_all_padding_gives_no_nan(saved, attention, side):
    model = loaded(saved, attention).train()
    ids, mask = padded([[400] * 3, [401] * (3 * WINDOW)], side)  # the first row has windows with nothing in them
    ids, mask = torch.cat([ids, ids[:1]]), torch.cat([mask, torch.zeros_like(mask[:1])])  # and the last is padding
    labels = ids.masked_fill(mask == 0, -100)
    output = model(ids, attention_mask=mask, labels=labels, use_cache=False)
    output.loss.backward()
    assert output.logits.isfinite().all() and output.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@attention
def test_training_on_text_needs_no_token_type_ids(saved, attention):
    model = loaded(saved, attention).train()
    ids = random_ids(2, 20)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("end", [1, 106])
def test_either_end_id_is_trained(tiny, prompts, end):
    completions = [[400, 401, end]] * len(prompts)
    before, mask = token_logprobs(tiny.model, prompts, completions)
    assert mask[:, 2].all()
    (-before[:, 2].sum()).backward()
    with torch.no_grad():
        for parameter in tiny.model.parameters():
            parameter.sub_(parameter.grad, alpha=1e-4)
    after, _ = token_logprobs(tiny.model, prompts, completions)
    assert (after[:, 2] > before[:, 2]).all()


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_the_head_stays_tied_through_training_saving_and_loading(tmp_path, lora):
    sums = ReasoningGymData(
        source="reasoning_gym", task="chain_sum", size=40, prompt="{metadata[expression]} =", synthesise={"right": 1.0}
    )
    config = SftStage.model_validate(
        {
            **{"id": "s", "kind": "sft", "policy": {"model": "tiny"}, "data": "sums", "lora": lora},
            **{"steps": 2, "batch": 4, "learning_rate": 1e-3},
        }
    )
    run_sft(config, Stage("s", tmp_path, 0, root=tmp_path, data={"sums": sums}))
    model = load_policy(PolicyConfig(model=str(tmp_path / "output"))).model
    assert model.lm_head.weight is model.model.embed_tokens.weight and model.config.tie_word_embeddings
    start = load_policy(PolicyConfig(model="tiny")).model
    moved = not torch.equal(model.model.layers[0].mlp.up_proj.weight, start.model.layers[0].mlp.up_proj.weight)
    assert moved
    assert torch.equal(model.lm_head.weight, start.lm_head.weight) == (lora is not None)
    ids = random_ids(1, 8)
    hidden = model.model(ids).last_hidden_state
    torch.testing.assert_close(model(ids).logits, hidden @ model.model.embed_tokens.weight.T, atol=1e-4, rtol=1e-5)


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name):
    name = name.removesuffix(".weight").removeprefix("model.")
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"
    return {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight"}[name]


@real
def test_the_270m_from_gguf_has_the_files_dequantised_tensors():
    gguf = pytest.importorskip("gguf")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(GGUF).tensors}
    parameters = dict(gemma_270m().model.named_parameters())
    assert {gguf_name(name) for name in parameters} == stored.keys()
    for name, parameter in parameters.items():
        tensor = stored[gguf_name(name)]
        expected = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
        if name.endswith("norm.weight"):
            expected = expected - 1  # a GGUF file holds the gain, Gemma's weights the gain less one
        assert torch.equal(parameter, expected.reshape(parameter.shape)), name


def test_a_gguf_files_rescaling_of_global_positions_is_read(tiny, tmp_path, monkeypatch):
    metadata = {  # as the conversion of gemma-3-4b has it
        "general.architecture": "gemma3",
        "gemma3.rope.scaling.type": "linear",
        "gemma3.rope.scaling.factor": 8.0,
        **{f"gemma3.{size}": 1 for size in ("block_count", "embedding_length", "feed_forward_length")},
        "gemma3.attention.head_count": 1,
    }
    original = tiny_policy().model.model.rotary_emb
    tiny.model.config.quantization_config = None
    monkeypatch.setattr(gguf_file, "read_gguf_metadata", lambda path: (metadata, ()))
    monkeypatch.setattr(gguf_file.Gemma3ForCausalLM, "from_pretrained", lambda *args, **kwargs: tiny.model)
    monkeypatch.setattr(gguf_file.GemmaTokenizer, "from_pretrained", lambda *args, **kwargs: tiny.tokenizer)
    (tmp_path / "x.gguf").touch()
    model = load_policy(PolicyConfig(model=str(tmp_path / "x.gguf"))).model
    rope = model.model.rotary_emb
    torch.testing.assert_close(rope.full_attention_inv_freq, original.full_attention_inv_freq / 8)
    assert torch.equal(rope.sliding_attention_inv_freq, original.sliding_attention_inv_freq)
    assert model.config.max_position_embeddings == 512  # a file's context is the longer one already


@real
def test_the_270m_is_gemma_and_saves_bit_for_bit(tmp_path):
    gemma = gemma_270m()
    known = gemma.tokenizer("The capital of France is Paris, and the capital of Italy is")["input_ids"]
    rome, lyon = (gemma.tokenizer(word, add_special_tokens=False)["input_ids"] for word in (" Rome", " Lyon"))
    likely, unlikely = sequence_logprobs(gemma.model, [known, known], [rome, lyon])
    assert likely > -1 and unlikely < -5
    save_policy(gemma, tmp_path / "out")
    again = load_policy(PolicyConfig(model=str(tmp_path / "out"), dtype="float32")).model
    for name, tensor in gemma.model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
