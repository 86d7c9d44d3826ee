"""Comparison of two policies' vocabularies: the entries of their tokenizers, and the rows of their embeddings.

Gemma 3's 4B, 12B and 27B have 262,208 embedding rows and the 270M and 1B 262,144, with one tokenizer. Rows beyond the
tokenizer's last entry are padding: no text has their ids.
"""

from collections.abc import Sequence

from gemsmith.policy.policy import Policy


def other_entries(first: dict[str, int], second: dict[str, int], names: tuple[str, str]) -> str | None:
    """Return the first difference between two vocabularies as text; None if they are equal.

    Args:
        first: ids by entry.
        second: ids by entry.
        names: what the text calls the owners of the first and the second vocabulary, such as "the student".
    """
    if first == second:
        return None
    text = min(text for text in {**first, **second} if first.get(text) != second.get(text))
    ids = ["no id" if text not in entries else f"id {entries[text]}" for entries in (second, first)]
    return f"{text!r} has {ids[0]} for {names[1]} and {ids[1]} for {names[0]}"


def rows_of(policy: Policy) -> int:
    """Return the number of rows of a policy's embedding."""
    return int(policy.model.config.vocab_size)


def used_rows(policies: Sequence[Policy]) -> int:
    """Return how many rows are entries of the vocabulary in every one of these policies, which share a tokenizer."""
    entries = max(policies[0].tokenizer.get_vocab().values()) + 1
    return min(entries, *(rows_of(policy) for policy in policies))


def lacks_entries(policy: Policy, rows: int) -> bool:
    """Return True if `rows` rows leave out an entry of the policy's tokenizer that is part of text.

    Gemma's text models have no row for the placeholder of an image, which is a special entry and no part of text.
    """
    special = set(policy.tokenizer.all_special_ids)
    special |= {id for id, entry in policy.tokenizer.added_tokens_decoder.items() if entry.special}
    return any(id >= rows and id not in special for id in policy.tokenizer.get_vocab().values())
