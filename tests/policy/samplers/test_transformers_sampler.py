import pytest
import torch

from contracts.errors import UserError
from policy.config import SamplingConfig
from policy.distribution import draw, processed_logprobs
from policy.logprobs import token_logprobs
from policy.samplers.transformers_sampler import TransformersSampler
from policy.weight_set import WeightSet


def repeated(prompts, n):
    return [prompt for prompt in prompts for _ in range(n)]


def test_greedy_in_a_left_padded_batch_equals_one_by_one_without_a_cache(decided, prompts):
    samples = TransformersSampler(decided, SamplingConfig(max_tokens=22)).sample(prompts, 1, seed=0, greedy=True)
    for prompt, ids, finish in zip(prompts, samples.ids, samples.finish, strict=True):
        sequence = list(prompt)
        while len(sequence) < len(prompt) + 22 and (len(sequence) == len(prompt) or sequence[-1] not in (1, 106)):
            with torch.no_grad():
                sequence.append(int(decided.model(torch.tensor([sequence])).logits[0, -1].argmax()))
        assert ids == sequence[len(prompt) :]
        assert len(ids) < 5 or len(set(ids)) > 1
        assert finish == ("stop" if ids[-1] in (1, 106) else "length")


def test_logprobs_equal_the_trainers(decided, prompts):
    samples = TransformersSampler(decided, SamplingConfig(max_tokens=24)).sample(prompts, 3, seed=1)
    expected, mask = token_logprobs(decided.model, repeated(prompts, 3), samples.ids)
    for row, logprobs in enumerate(samples.logprobs):
        assert logprobs == pytest.approx(expected[row][mask[row]].tolist(), abs=1e-4)


def test_logprobs_are_of_the_processed_distribution(decided, prompts):
    config = SamplingConfig(max_tokens=20, temperature=1.7, top_k=40, top_p=0.8)
    samples = TransformersSampler(decided, config).sample(prompts, 2, seed=1)
    for prompt, ids, logprobs in zip(repeated(prompts, 2), samples.ids, samples.logprobs, strict=True):
        with torch.no_grad():
            logits = decided.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        for row, token, logprob in zip(logits, ids, logprobs, strict=True):
            top = (row / 1.7).softmax(-1).sort(descending=True)
            kept = top.values[:40] / top.values[:40].sum()
            smallest = next(k for k in range(1, 41) if kept[:k].sum() >= 0.8 or k == 40)
            assert token in top.indices[:smallest].tolist()
            position = top.indices.tolist().index(token)
            assert logprob == pytest.approx(float((kept[position] / kept[:smallest].sum()).log()), abs=1e-4)


def test_either_end_id_stops_and_is_kept(tiny, prompts):
    """A head that always prefers one token: each end id ends the completion at once, any other runs to the limit."""
    for token, finish, length in ((1, "stop", 1), (106, "stop", 1), (400, "length", 4)):
        hook = tiny.model.lm_head.register_forward_hook(
            lambda module, args, logits, token=token: (
                torch.nn.functional.one_hot(torch.full(logits.shape[:-1], token), 512).float() * 100
            )
        )
        samples = TransformersSampler(tiny, SamplingConfig(max_tokens=4)).sample(prompts[:2], 2, seed=0)
        hook.remove()
        assert samples.ids == [[token] * length] * 4
        assert samples.finish == [finish] * 4
        assert all("turn" not in text and "eos" not in text for text in samples.text)


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


def test_samples_follow_the_policys_distribution(decided, prompts):
    """Frequencies of the first token over 4,000 samples lie within four standard errors of its probability."""
    samples = TransformersSampler(decided, SamplingConfig(max_tokens=1, batch=4000)).sample(prompts[:1], 4000, seed=0)
    with torch.no_grad():
        probability = decided.model(torch.tensor(prompts[:1])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([ids[0] for ids in samples.ids]), minlength=512) / 4000
    error = (probability * (1 - probability) / 4000).sqrt()
    likely = probability > 0.002
    assert likely.sum() >= 10
    assert ((counts - probability).abs()[likely] <= 4 * error[likely]).all()


def test_anchor_weights_sample_and_the_live_ones_come_back(decided, prompts):
    anchor = WeightSet(decided.model)
    sampler = TransformersSampler(decided, SamplingConfig(max_tokens=8), anchor)
    before = sampler.sample(prompts, 1, seed=0, greedy=True)
    with torch.no_grad():
        decided.model.model.embed_tokens.weight.neg_()
    moved = sampler.sample(prompts, 1, seed=0, greedy=True)
    assert moved.ids != before.ids
    assert sampler.sample(prompts, 1, seed=0, weights="anchor", greedy=True) == before
    assert sampler.sample(prompts, 1, seed=0, greedy=True) == moved


def test_an_anchor_that_is_not_there_is_an_error(tiny, prompts):
    with pytest.raises(ValueError, match="without an anchor"):
        TransformersSampler(tiny, SamplingConfig(max_tokens=2)).sample(prompts, 1, seed=0, weights="anchor")


def test_training_mode_is_restored_and_training_still_works(tiny, prompts):
    tiny.model.train()
    TransformersSampler(tiny, SamplingConfig(max_tokens=3)).sample(prompts, 1, seed=0)
    assert tiny.model.training and all(module.training for module in tiny.model.modules())
    token_logprobs(tiny.model, prompts[:1], [[400]])[0].sum().backward()
    assert tiny.model.model.embed_tokens.weight.grad is not None


def test_a_prompt_longer_than_the_context_is_refused(tiny):
    with pytest.raises(UserError, match="500 tokens and max_tokens 20 exceed the model's context of 512"):
        TransformersSampler(tiny, SamplingConfig(max_tokens=20)).sample([[2] * 500], 1, seed=0)


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
