import pytest
import torch

from gemsmith.policy.config import PolicyConfig, SamplingConfig
from gemsmith.policy.head.distribution import choose, draw, processed_logprobs
from gemsmith.policy.head.logprobs import token_logprobs
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.tiled_head import tiled_head
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.weight_set import WeightSet
from tests.policy.samplers.contract import SamplerContract, repeated


@pytest.fixture
def sampler(decided):
    return TransformersSampler(decided, SamplingConfig(), WeightSet(decided.model))


class TestTransformersSampler(SamplerContract):
    """In left-padded batches, whose rows leave as they end."""


def test_logprobs_equal_the_trainers(decided, prompts):
    samples = TransformersSampler(decided, SamplingConfig(max_tokens=24)).sample(prompts, 3, seed=1)
    expected, mask = token_logprobs(decided.model, repeated(prompts, 3), samples.ids)
    for row, logprobs in enumerate(samples.logprobs):
        assert logprobs == pytest.approx(expected[row][mask[row]].tolist(), abs=1e-4)


def test_rows_that_end_early_leave_the_others_as_they_were(decided, prompts):
    """With `<end_of_turn>` made likelier, completions end at many lengths and rows leave the batch as they end."""
    bias = torch.zeros(512)
    bias[106] = 6.5
    decided.model.lm_head.register_forward_hook(lambda module, args, logits: logits + bias)
    samples = TransformersSampler(decided, SamplingConfig(max_tokens=16)).sample(prompts, 4, seed=2)
    alone = TransformersSampler(decided, SamplingConfig(max_tokens=16, batch=1)).sample(prompts, 4, seed=2)
    assert len({len(ids) for ids in samples.ids}) >= 5
    assert set(samples.finish) == {"stop", "length"}
    assert samples.ids == alone.ids and samples.finish == alone.finish
    for prompt, ids, logprobs in zip(repeated(prompts, 4), samples.ids, samples.logprobs, strict=True):
        logits = decided.model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids).unsqueeze(-1)).squeeze(-1)
        assert logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_seed_fixes_the_samples_whatever_the_batch_and_the_global_generator(decided, prompts):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = TransformersSampler(decided, SamplingConfig(max_tokens=12)).sample(prompts, 3, seed=7)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    again = TransformersSampler(decided, SamplingConfig(max_tokens=12)).sample(prompts, 3, seed=7)
    assert first == again
    small = TransformersSampler(decided, SamplingConfig(max_tokens=12, batch=2)).sample(prompts, 3, seed=7)
    assert small.ids == first.ids
    other = TransformersSampler(decided, SamplingConfig(max_tokens=12)).sample(prompts, 3, seed=8)
    assert other.ids != first.ids
    assert first.ids[0] != first.ids[1]


def test_training_mode_is_restored_and_training_still_works(tiny, prompts):
    tiny.model.train()
    TransformersSampler(tiny, SamplingConfig(max_tokens=3)).sample(prompts, 1, seed=0)
    assert tiny.model.training and all(module.training for module in tiny.model.modules())
    token_logprobs(tiny.model, prompts[:1], [[400]])[0].sum().backward()
    assert tiny.model.model.embed_tokens.weight.grad is not None


def test_processed_distribution_of_four_entries():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    torch.testing.assert_close(processed_logprobs(logits, top_k=2).exp(), torch.tensor([[4 / 7, 3 / 7, 0, 0]]))
    torch.testing.assert_close(processed_logprobs(logits, top_p=0.65).exp(), torch.tensor([[4 / 7, 3 / 7, 0, 0]]))
    torch.testing.assert_close(processed_logprobs(logits, top_p=0.75).exp(), torch.tensor([[4, 3, 2, 0]]) / 9)
    squared = torch.tensor([[16.0, 9, 4, 1]]) / 30
    torch.testing.assert_close(processed_logprobs(logits, temperature=0.5).exp(), squared)


def test_a_nucleus_wider_than_the_first_candidates_is_whole():
    logprobs = processed_logprobs(torch.zeros(2, 1000), top_p=0.6)
    assert (logprobs > -torch.inf).sum(-1).tolist() == pytest.approx([600, 600], abs=1)
    torch.testing.assert_close(logprobs.exp().sum(-1), torch.ones(2))


def test_draw_takes_the_entry_whose_share_of_the_unit_interval_holds_the_number():
    logprobs = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.25, 0.0]).log().expand(6, 6)
    numbers = torch.tensor([0.0, 0.49, 0.51, 0.74, 0.76, 1 - 2**-24])
    assert draw(logprobs, numbers).tolist() == [1, 1, 3, 3, 4, 4]


def test_drawing_by_tiles_is_drawing_from_the_whole_row() -> None:
    """5,000 entries are three tiles, the last not full; masses from one entry to all of them."""
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(400, 5000, generator=generator) * torch.linspace(0.1, 12, 400).unsqueeze(-1)
    logits_BV[0, 4999] = 60.0  # all of the mass in the last entry
    logits_BV[1, :4000] = -torch.inf
    uniform_B = torch.rand(400, generator=generator)
    uniform_B[2:4] = torch.tensor([0.0, 1 - 2**-24])
    for temperature in (1.0, 0.7):
        logprobs_BV = processed_logprobs(logits_BV, temperature)
        token_B, logprob_B = choose(logits_BV, uniform_B, temperature)
        assert (token_B == draw(logprobs_BV, uniform_B)).float().mean() > 0.98  # neighbours where rounding decides
        assert torch.allclose(logprob_B, logprobs_BV.gather(-1, token_B.unsqueeze(-1)).squeeze(-1), atol=2e-5)
        assert token_B[0] == 4999 and token_B[1] >= 4000
        below_B = torch.where(torch.arange(5000) < token_B.unsqueeze(-1), logprobs_BV.double().exp(), 0.0).sum(-1)
        upto_B = below_B + logprob_B.double().exp()
        assert (below_B <= uniform_B + 1e-5).all() and (upto_B >= uniform_B - 1e-5).all()
        greedy_B, best_B = choose(logits_BV, None, temperature)
        assert torch.equal(greedy_B, logits_BV.argmax(-1)) and torch.allclose(best_B, logprobs_BV.amax(-1), atol=2e-5)


def test_the_head_in_tiles_is_the_head() -> None:
    head = torch.nn.Linear(64, 20_000, bias=False)
    model = torch.nn.Module()
    model.get_output_embeddings = lambda: head  # type: ignore[method-assign, assignment]
    hidden = torch.randn(3, 1, 64)
    with torch.no_grad():
        expected = head(hidden)
        with tiled_head(model):
            found = head(hidden).clone()
            fewer = head(hidden[:2])
            assert fewer.data_ptr() != expected.data_ptr()
            assert torch.allclose(fewer, expected[:2], atol=1e-6)
    assert torch.allclose(found, expected, atol=1e-6) and "forward" not in head.__dict__


@pytest.mark.parametrize("attention", ["gemsmith", "sdpa"])
def test_every_attention_draws_the_same(decided: Policy, prompts: list[list[int]], attention: str) -> None:
    config = SamplingConfig(max_tokens=20)
    expected = TransformersSampler(decided, config).sample(prompts, 3, seed=4)
    policy = load_policy(PolicyConfig(model="tiny", attention="auto" if attention == "gemsmith" else attention))
    policy.model.load_state_dict(decided.model.state_dict())
    found = TransformersSampler(policy, config).sample(prompts, 3, seed=4)
    assert found.ids == expected.ids
    assert largest_difference(found.logprobs, expected.logprobs) < 1e-4


def largest_difference(one: list[list[float]], other: list[list[float]]) -> float:
    return max(abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
