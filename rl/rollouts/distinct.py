"""Diversity of completions: the share of distinct n-grams (Li et al. 2016, arXiv 1510.03055)."""

from collections.abc import Sequence


def distinct_n(completions: Sequence[Sequence[int]], n: int) -> float | None:
    """Return the number of distinct token n-grams divided by the number of all n-grams; None if there are none.

    The paper divides by the number of unigrams for every n; this divides by the number of n-grams, as later work does.
    N-grams do not span two completions.

    The value falls as the number of tokens grows, because text repeats itself. Compare values only if the numbers of
    completions and their lengths are about the same, for instance along a run whose `length` stays constant.

    Args:
        completions: token ids, without the end token, which is the same in all completions.
        n: length of an n-gram, at least 1.

    Returns:
        A number above 0 (many equal n-grams) and at most 1 (no n-gram occurs twice).
    """
    distinct: set[tuple[int, ...]] = set()
    total = 0
    for ids in completions:
        distinct.update(zip(*(ids[shift:] for shift in range(n)), strict=False))
        total += max(len(ids) - n + 1, 0)
    return len(distinct) / total if total else None


def distinct_metrics(ids: Sequence[Sequence[int]], finish: Sequence[str]) -> dict[str, float]:
    """Return `distinct_1` and `distinct_2`; the end token of finished completions is not counted."""
    texts = [tokens[:-1] if reason == "stop" else tokens for tokens, reason in zip(ids, finish, strict=True)]
    shares = {f"distinct_{n}": distinct_n(texts, n) for n in (1, 2)}
    return {name: share for name, share in shares.items() if share is not None}
