import re

import torch
from torch.nn.functional import normalize

from gemsmith.policy.head.logprobs import completion_hidden
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.text.endings import untaught_end

SHOWN = [([2, 105, 370], [371, 372, 106]), ([2, 105, 380, 381], [382, 106])]


def with_unused_alike(nearness, towards):
    """A policy whose unused tokens share a row, but for noise, as a pretrained Gemma's; the end's is near to it.

    What the end's row has of its own points to the hidden states where the demonstrations end, or away from them.
    """
    policy = tiny_policy()
    known = policy.tokenizer.get_vocab()
    unused = [row for text, row in known.items() if re.fullmatch(r"<unused\d+>", text)]
    with torch.no_grad():
        hidden, rows = completion_hidden(policy.model, [[*p, *c[:-1]] for p, c in SHOWN], [[106], [106]])
        common = normalize(torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(0)), dim=0)
        own = normalize(hidden.mean(0), dim=0)
        own = normalize(own - (own @ common) * common, dim=0)
        rows[unused] = common + 0.01 * normalize(torch.randn(len(unused), rows.shape[1]), dim=1)
        rows[known["<end_of_turn>"]] = nearness * common + (1 - nearness**2) ** 0.5 * towards * own
    return policy


def test_an_end_of_turn_that_lies_among_unused_tokens_is_told_to_who_trains_adapters():
    word = untaught_end(with_unused_alike(0.93, towards=-1), SHOWN)
    assert word is not None
    assert word.startswith(
        "the policy has never learnt <end_of_turn>: where demonstrations end, 100% of the unused tokens"
    )
    assert "(cosine 0.93)" in word
    assert word.endswith("in a stage of kind sft without lora")


def test_an_end_of_turn_that_is_likelier_than_unused_tokens_is_learnt_however_near_its_row_is():
    assert untaught_end(with_unused_alike(0.93, towards=1), SHOWN) is None


def test_an_end_of_turn_with_a_row_of_its_own_can_be_learnt():
    assert untaught_end(with_unused_alike(0.5, towards=-1), SHOWN) is None
    assert untaught_end(tiny_policy(), SHOWN) is None


def test_without_demonstrations_nothing_is_known():
    assert untaught_end(with_unused_alike(0.93, towards=-1), []) is None
