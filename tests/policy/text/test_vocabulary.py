"""Two policies' vocabularies: the same entries, and rows of the embedding that are no entries."""

import torch

from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.text.vocabulary import lacks_entries, other_entries, rows_of, used_rows
from tests.messages import assert_facts

OWNERS = ("the student", "the teacher")


def resized(policy: Policy, rows: int) -> Policy:
    """Resize the embedding; further rows are large, so that they would take most of the probability."""
    before = rows_of(policy)
    policy.model.resize_token_embeddings(rows, mean_resizing=False)
    if rows > before:
        generator = torch.Generator().manual_seed(rows)
        weight = policy.model.get_input_embeddings().weight.data
        weight[before:] = 0.3 * torch.randn(weight[before:].shape, generator=generator)
    return policy


def test_the_first_entry_that_differs_is_named_with_its_ids_and_owners() -> None:
    assert other_entries({"a": 0, "b": 1}, {"b": 1, "a": 0}, OWNERS) is None
    found = other_entries({"a": 0, "b": 1}, {"a": 0, "b": 2}, OWNERS)
    assert_facts(found, "'b'", "id 2 for the teacher", "id 1 for the student")
    found = other_entries({"a": 0}, {"a": 0, "c": 1}, OWNERS)
    assert_facts(found, "'c'", "id 1 for the teacher", "no id for the student")


def test_rows_beyond_the_tokenizer_are_used_by_no_policy() -> None:
    plain, padded = tiny_policy(), resized(tiny_policy("large"), 576)
    assert (rows_of(plain), rows_of(padded)) == (512, 576)
    assert used_rows([plain, padded]) == used_rows([padded, plain]) == used_rows([padded]) == 512
    assert not lacks_entries(padded, 512)


def test_a_text_model_may_lack_the_placeholder_of_an_image_and_no_entry_of_text() -> None:
    policy = resized(tiny_policy(), 576)
    policy.tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"]})
    assert policy.tokenizer.convert_tokens_to_ids("<image_soft_token>") == 512
    assert used_rows([policy]) == 513
    assert not lacks_entries(policy, 512)  # Gemma's tokenizer has 262,145 entries, and the 1B 262,144 rows
    assert lacks_entries(policy, 500)
