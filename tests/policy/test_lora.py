import re

import torch

from policy.lora import untaught_end
from policy.tiny import tiny_policy


def with_end_among_unused(nearness):
    """A policy whose unused tokens have nearly one row, as a pretrained Gemma's, and whose end is as near to it."""
    policy = tiny_policy()
    rows = policy.model.get_input_embeddings().weight
    known = policy.tokenizer.get_vocab()
    unused = [row for text, row in known.items() if re.fullmatch(r"<unused\d+>", text)]
    common, other = torch.nn.functional.normalize(torch.randn(2, rows.shape[1]), dim=1)
    other = torch.nn.functional.normalize(other - (other @ common) * common, dim=0)
    with torch.no_grad():
        rows[unused] = common
        rows[known["<end_of_turn>"]] = 3 * (nearness * common + (1 - nearness**2) ** 0.5 * other)
    return policy


def test_an_end_of_turn_that_lies_among_unused_tokens_is_told_to_who_trains_adapters():
    word = untaught_end(with_end_among_unused(0.93))
    assert word is not None
    assert "never learnt <end_of_turn>" in word
    assert "(cosine 0.93)" in word
    assert "without lora" in word


def test_an_end_of_turn_of_its_own_is_not():
    assert untaught_end(with_end_among_unused(0.7)) is None
    assert untaught_end(tiny_policy()) is None
