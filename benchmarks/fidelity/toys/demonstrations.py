"""Demonstrations of the toy language as rows of a recipe's data section (`source: python`)."""

import random
from collections.abc import Iterator

from benchmarks.fidelity.toys.language import Language, prompts


def rows(language: int, size: int) -> Iterator[dict[str, str]]:
    """So many distinct prompts, each with one completion, of the language of that seed."""
    draw, spoken = random.Random(f"rows {language}"), Language(language)
    for prompt in prompts(size, draw):
        yield {"prompt": prompt, "completion": spoken.completion(prompt, draw)}
