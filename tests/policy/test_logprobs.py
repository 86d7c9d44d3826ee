import pytest
import torch

from policy.config import LoraConfig
from policy.logprobs import sequence_logprobs, token_logprobs
from policy.lora import with_lora

COMPLETIONS = [[400, 106], [401, 402, 403, 404, 405, 106], [500], [364, 1], [365] * 20]


def plain(model, prompt, completion, temperature=1.0):
    """One sequence at a time, all logits, no padding."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].float() / temperature
    logprobs = logits.log_softmax(-1)
    return torch.stack([logprobs[len(prompt) - 1 + i, token] for i, token in enumerate(completion)])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_one_sequence_at_a_time(decided, prompts, temperature):
    logprobs, mask = token_logprobs(decided.model, prompts, COMPLETIONS, temperature)
    assert logprobs.shape == mask.shape == (5, 20)
    assert logprobs.dtype == torch.float32
    for row, (prompt, completion) in enumerate(zip(prompts, COMPLETIONS, strict=True)):
        expected = plain(decided.model, prompt, completion, temperature)
        torch.testing.assert_close(logprobs[row, : len(completion)], expected, atol=1e-4, rtol=0)
        assert mask[row].tolist() == [True] * len(completion) + [False] * (20 - len(completion))
        assert logprobs[row, len(completion) :].tolist() == [0.0] * (20 - len(completion))


def test_gradients_equal_those_of_the_plain_computation(tiny, prompts):
    logprobs, _ = token_logprobs(tiny.model, prompts, COMPLETIONS)
    logprobs.sum().backward()
    fast = {name: parameter.grad.clone() for name, parameter in tiny.model.named_parameters()}
    tiny.model.zero_grad()
    sum(plain(tiny.model, p, c).sum() for p, c in zip(prompts, COMPLETIONS, strict=True)).backward()
    for name, parameter in tiny.model.named_parameters():
        torch.testing.assert_close(fast[name], parameter.grad, atol=2e-3, rtol=1e-3, msg=name)


def test_logits_are_held_at_completion_positions_only(tiny, prompts):
    shapes = []
    hook = tiny.model.lm_head.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    token_logprobs(tiny.model, prompts, COMPLETIONS)
    hook.remove()
    assert shapes == [(2 + 6 + 1 + 2 + 20, 512)]
    assert tiny.model(input_ids=torch.tensor([prompts[0]])).logits.shape == (1, len(prompts[0]), 512)


def test_sequence_logprobs_are_sums_in_the_order_given_whatever_the_batch(decided, prompts):
    expected = torch.stack([plain(decided.model, p, c).sum() for p, c in zip(prompts, COMPLETIONS, strict=True)])
    for batch in (None, 1, 2, 100):
        got = sequence_logprobs(decided.model, prompts, COMPLETIONS, batch=batch)
        torch.testing.assert_close(got, expected.detach(), atol=2e-3, rtol=0)
        assert not got.requires_grad
    assert sequence_logprobs(decided.model, prompts, COMPLETIONS, batch=2, grad=True).requires_grad


def test_empty_completions_and_empty_batches_have_probability_one(tiny, prompts):
    logprobs, mask = token_logprobs(tiny.model, prompts[:2], [[], [400]])
    assert mask.tolist() == [[False], [True]] and logprobs[0, 0] == 0
    assert sequence_logprobs(tiny.model, prompts[:1], [[]]).tolist() == [0.0]
    assert sequence_logprobs(tiny.model, [], []).shape == (0,)


def test_works_through_wrappers_and_leaves_the_mode(tiny, prompts):
    expected = sequence_logprobs(tiny.model, prompts, COMPLETIONS)
    adapted = with_lora(tiny.model, LoraConfig(rank=4, dropout=0.5))
    adapted.train()
    wrapped = torch.nn.Sequential()
    wrapped.module = adapted
    wrapped.forward = lambda **inputs: wrapped.module(**inputs)
    torch.testing.assert_close(sequence_logprobs(wrapped, prompts, COMPLETIONS), expected, atol=1e-4, rtol=0)
    assert adapted.training
