"""How varied completions are: the share of their n-grams that are distinct (Li et al. 2016, arXiv 1510.03055)."""

from collections.abc import Sequence


def distinct_n(completions: Sequence[Sequence[int]], n: int) -> float | None:
    """Distinct token n-grams over all token n-grams of the completions together; None where there is no n-gram.

    The paper's distinct-n, which divides by the number of unigrams for every n, as is usual since: by that of n-grams.
    N-grams do not reach from one completion into the next.

    The more tokens, the lower: language repeats itself, and so do answers to one prompt. Values compare only where
    the number of completions and their lengths are about the same, such as along one run whose `length` stays.

    Args:
        completions: token ids, without the token that ended each: it is the same everywhere, and says nothing.
        n: length of an n-gram, from 1.

    Returns:
        Above 0 (all alike, and many) up to 1 (no n-gram twice).
    """
    distinct: set[tuple[int, ...]] = set()
    total = 0
    for ids in completions:
        distinct.update(zip(*(ids[shift:] for shift in range(n)), strict=False))
        total += max(len(ids) - n + 1, 0)
    return len(distinct) / total if total else None


def distinct_metrics(ids: Sequence[Sequence[int]], finish: Sequence[str]) -> dict[str, float]:
    """`distinct_1` and `distinct_2` of completions that end with their end token where they were not cut off."""
    said = [each[:-1] if reason == "stop" else each for each, reason in zip(ids, finish, strict=True)]
    found = {f"distinct_{n}": distinct_n(said, n) for n in (1, 2)}
    return {name: share for name, share in found.items() if share is not None}
