import pytest
import torch

from gemsmith.contracts.errors import UserError
from gemsmith.policy.config import LoraConfig
from gemsmith.policy.head.logprobs import sequence_logprobs, token_logprobs, weighted_logprobs
from gemsmith.policy.loading.lora import with_lora

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


def test_the_head_gives_one_number_for_each_completion_token_and_is_itself_again_afterwards(tiny, prompts):
    shapes = []
    hook = tiny.model.lm_head.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    token_logprobs(tiny.model, prompts, COMPLETIONS)
    hook.remove()
    assert shapes == [(2 + 6 + 1 + 2 + 20,)]
    assert tiny.model(input_ids=torch.tensor([prompts[0]])).logits.shape == (1, len(prompts[0]), 512)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4)])
def test_the_weighted_sum_and_its_gradients_are_those_of_full_logits(tiny, prompts, lora):
    """The tied embedding gets gradients from both of its ends."""
    model = with_lora(tiny.model, lora) if lora else tiny.model
    if lora:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    weight = torch.tensor([0.1, -0.05, 0.0, 0.2, -0.02])
    total, scores = weighted_logprobs(model, prompts, COMPLETIONS, weight)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(total, trained)
    each = [plain(model, p, c).sum() for p, c in zip(prompts, COMPLETIONS, strict=True)]
    expected = (weight * torch.stack(each)).sum()
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)
    assert scores.logprobs.sum() == pytest.approx(sum(each).item(), rel=1e-5)
    for one, other in zip(found, torch.autograd.grad(expected, trained), strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-7


def test_heads_that_do_more_than_multiply_are_refused(tiny, prompts):
    tiny.model.config.final_logit_softcapping = 30.0
    with pytest.raises(UserError, match="final_logit_softcapping = 30"):
        token_logprobs(tiny.model, prompts, COMPLETIONS)
    tiny.model.config.final_logit_softcapping = None
    adapted = with_lora(tiny.model, LoraConfig(rank=4, targets=["lm_head"]))
    with pytest.raises(UserError, match="leave lm_head out"):
        token_logprobs(adapted, prompts, COMPLETIONS)


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
