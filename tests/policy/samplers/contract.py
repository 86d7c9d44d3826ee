"""Tests that every sampler must pass; a module uses them by subclassing `SamplerContract`.

The module gives a fixture `sampler`: over a policy with `decided`'s weights, with an anchor that has the same weights.
"""

import math
from itertools import chain

import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import SamplingConfig
from gemsmith.policy.head.logprobs import token_logprobs


def repeated(prompts, n):
    return [prompt for prompt in prompts for _ in range(n)]


def changed(sampler):
    """The sampler after its policy's weights have changed."""
    if hasattr(sampler, "sync"):
        sampler.sync()
    return sampler


@torch.no_grad()
def prefer(policy, token, logit):
    """Lift one token's logit above the others by so much, whatever the prompt: no layer adds anything."""
    model = policy.model.model
    for layer in model.layers:
        layer.post_attention_layernorm.weight.fill_(-1.0)
        layer.post_feedforward_layernorm.weight.fill_(-1.0)
    model.embed_tokens.weight.fill_(1.0)
    model.embed_tokens.weight[token] = 1.0 + logit
    model.norm.weight.fill_(1 / policy.model.config.hidden_size - 1)


def largest_gap(policy, prompts, samples):
    """Largest difference of log-probabilities to those that the trainer computes, in nats."""
    expected, mask = token_logprobs(policy.model, prompts, samples.ids)
    rows = [expected[row][mask[row]].tolist() for row in range(len(prompts))]
    assert [len(row) for row in rows] == [len(row) for row in samples.logprobs]
    pairs = zip(chain(*samples.logprobs), chain(*rows), strict=True)
    return max(abs(ours - trainers) for ours, trainers in pairs)


class SamplerContract:
    def test_greedy_takes_the_likeliest_token_each_time(self, sampler, prompts):
        sampler.config = SamplingConfig(max_tokens=22)
        samples = sampler.sample(prompts, 1, seed=0, greedy=True)
        for prompt, ids, finish in zip(prompts, samples.ids, samples.finish, strict=True):
            sequence = list(prompt)
            while len(sequence) < len(prompt) + 22 and (len(sequence) == len(prompt) or sequence[-1] not in (1, 106)):
                with torch.no_grad():
                    sequence.append(int(sampler.policy.model(torch.tensor([sequence])).logits[0, -1].argmax()))
            assert ids == sequence[len(prompt) :]
            assert len(ids) < 5 or len(set(ids)) > 1
            assert finish == ("stop" if ids[-1] in (1, 106) else "length")

    def test_logprobs_equal_the_trainers(self, sampler, prompts):
        sampler.config = SamplingConfig(max_tokens=24)
        samples = sampler.sample(prompts, 3, seed=1)
        assert largest_gap(sampler.policy, repeated(prompts, 3), samples) < 1e-3
        greedy = sampler.sample(prompts, 1, seed=1, greedy=True)
        assert largest_gap(sampler.policy, prompts, greedy) < 1e-3

    def test_logprobs_are_of_the_processed_distribution(self, sampler, prompts):
        sampler.config = SamplingConfig(max_tokens=20, temperature=1.7, top_k=40, top_p=0.8)
        samples = sampler.sample(prompts, 2, seed=1)
        for prompt, ids, logprobs in zip(repeated(prompts, 2), samples.ids, samples.logprobs, strict=True):
            with torch.no_grad():
                logits = sampler.policy.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
            for row, token, logprob in zip(logits, ids, logprobs, strict=True):
                top = (row / 1.7).softmax(-1).sort(descending=True)
                kept = top.values[:40] / top.values[:40].sum()
                smallest = next(k for k in range(1, 41) if kept[:k].sum() >= 0.8 or k == 40)
                assert token in top.indices[:smallest].tolist()
                position = top.indices.tolist().index(token)
                assert logprob == pytest.approx(float((kept[position] / kept[:smallest].sum()).log()), abs=1e-3)

    def test_either_end_id_stops_and_is_kept(self, sampler, prompts):
        """Each end id ends the completion at once where it is preferred; any other token runs to the limit."""
        sampler.config = SamplingConfig(max_tokens=4)
        for token, finish, length in ((1, "stop", 1), (106, "stop", 1), (400, "length", 4)):
            prefer(sampler.policy, token, 60.0)
            samples = changed(sampler).sample(prompts[:2], 2, seed=0)
            assert samples.ids == [[token] * length] * 4
            assert samples.finish == [finish] * 4
            assert all("turn" not in text and "eos" not in text for text in samples.text)

    def test_completions_end_one_by_one(self, sampler, prompts):
        """An end id of probability 0.15 ends completions at many lengths; ids and log-probabilities stay as long."""
        prefer(sampler.policy, 106, math.log(511 * 0.15 / 0.85))
        sampler.config = SamplingConfig(max_tokens=8)
        samples = changed(sampler).sample(prompts, 4, seed=2)
        assert len({len(ids) for ids in samples.ids}) >= 5
        assert set(samples.finish) == {"stop", "length"}
        for ids, logprobs, finish in zip(samples.ids, samples.logprobs, samples.finish, strict=True):
            assert not {1, 106} & set(ids[:-1]) and (ids[-1] in (1, 106)) == (finish == "stop")
            expected = [math.log(0.15 if token == 106 else 0.85 / 511) for token in ids]
            assert logprobs == pytest.approx(expected, abs=1e-3)

    def test_a_seed_fixes_the_samples_and_the_global_generator_does_not(self, sampler, prompts):
        sampler.config = SamplingConfig(max_tokens=12)
        torch.manual_seed(1)
        state = torch.random.get_rng_state()
        first = sampler.sample(prompts, 3, seed=7)
        assert torch.equal(torch.random.get_rng_state(), state)
        torch.manual_seed(2)
        assert sampler.sample(prompts, 3, seed=7).ids == first.ids
        assert sampler.sample(prompts, 3, seed=8).ids != first.ids
        assert len({tuple(ids) for ids in first.ids}) == 15

    def test_a_completion_depends_on_its_place_and_not_on_what_is_drawn_with_it(self, sampler, prompts):
        sampler.config = SamplingConfig(max_tokens=12)
        together = sampler.sample(prompts, 3, seed=7)
        for p, prompt in enumerate(prompts):
            assert sampler.sample([prompt], 3, seed=7, before=3 * p).ids == together.ids[3 * p : 3 * p + 3]

    def test_many_long_prompts_are_drawn_in_one_call(self, sampler):
        """More tokens of prompts than an engine takes in one pass."""
        sampler.config = SamplingConfig(max_tokens=2)
        many = [[2, *((7 * i + 3 * k) % 149 + 363 for k in range(99))] for i in range(100)]
        samples = sampler.sample(many, 1, seed=1)
        assert sampler.sample(many[60:61], 1, seed=1, before=60).ids == samples.ids[60:61]

    def test_samples_follow_the_policys_distribution(self, sampler, prompts):
        """Frequencies of the first token over 4,000 samples lie within four standard errors of its probability."""
        sampler.config = SamplingConfig(max_tokens=1)
        samples = sampler.sample(prompts[:1], 4000, seed=0)
        with torch.no_grad():
            probability = sampler.policy.model(torch.tensor(prompts[:1])).logits[0, -1].softmax(-1)
        counts = torch.bincount(torch.tensor([ids[0] for ids in samples.ids]), minlength=512) / 4000
        error = (probability * (1 - probability) / 4000).sqrt()
        likely = probability > 0.002
        assert likely.sum() >= 10
        assert ((counts - probability).abs()[likely] <= 4 * error[likely]).all()

    def test_anchor_weights_sample_and_the_live_ones_come_back(self, sampler, prompts):
        sampler.config = SamplingConfig(max_tokens=8)
        before = sampler.sample(prompts, 1, seed=0, greedy=True)
        with torch.no_grad():
            sampler.policy.model.model.embed_tokens.weight.neg_()
        moved = changed(sampler).sample(prompts, 1, seed=0, greedy=True)
        assert moved.ids != before.ids
        assert sampler.sample(prompts, 1, seed=0, weights="anchor", greedy=True) == before
        assert sampler.sample(prompts, 1, seed=0, greedy=True) == moved

    def test_an_anchor_that_is_not_there_is_an_error(self, sampler, prompts, monkeypatch):
        monkeypatch.setattr(sampler, "anchor", None)
        with pytest.raises(ValueError, match="no anchor"):
            sampler.sample(prompts, 1, seed=0, weights="anchor")

    def test_a_prompt_longer_than_the_context_is_refused(self, sampler):
        sampler.config = SamplingConfig(max_tokens=20)
        with pytest.raises(UserError, match="500 tokens and max_tokens 20 exceed the model's context of 512"):
            sampler.sample([[2] * 500], 1, seed=0)
