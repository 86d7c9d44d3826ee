"""Several data sections combined: each keeps its own split, and rows are interleaved in the recipe's shares."""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import Mixture
from gemsmith.curation.example import Example

Prompts = dict[str, list[Example]]
"""Examples of each distinct prompt, by its whole conversation."""


def mixed(
    config: Mixture, sides: Mapping[str, tuple[Sequence[Example], Sequence[Example]]], seed: int, name: str
) -> tuple[list[Example], list[Example], dict[str, int]]:
    """Return the training and evaluation sides of a mixture, and the number of prompts left out, by reason.

    A prompt that one section holds out is not trained on in any, and a prompt in two sections belongs to the first of
    them by name.

    Args:
        config: the mixture.
        sides: for each section in `config.of`, its examples for training and for evaluation.
        seed: decides which prompts are used and how they are interleaved, independent of the order of the rows.
        name: name of the mixture, for messages.

    Raises:
        UserError: a section has no prompt of its own to train on.
    """
    dropped: Counter[str] = Counter()
    held = {example.conversation for _, test in sides.values() for example in test}
    names = sorted(sides)  # the order in which a recipe names them has no effect
    train = {section: by_prompt(_tasked(sides[section][0], section)) for section in names}
    test = {section: by_prompt(_tasked(sides[section][1], section)) for section in names}
    for section, prompts in train.items():
        shared = held & prompts.keys()
        dropped[f"{section}: held out by another section"] += len(shared)
        train[section] = {prompt: rows for prompt, rows in prompts.items() if prompt not in shared}
    train, test = _each_once(train, dropped), _each_once(test, dropped)
    for section, prompts in train.items():
        if not prompts:
            raise UserError(
                f"data {name}: `of` names {section}, which has no training prompt that no other section "
                "has or holds out; remove it, or give it other prompts."
            )
    both = []
    for side, limit in ((train, config.limit), (test, None)):
        taken = counts(config.of, {section: len(prompts) for section, prompts in side.items()}, limit)
        for section, prompts in side.items():
            dropped[f"{section}: beyond its share"] += len(prompts) - taken[section]
        chosen = {section: _chosen(prompts, taken[section], seed) for section, prompts in side.items()}
        both.append(interleaved(chosen, seed))
    return both[0], both[1], {reason: count for reason, count in dropped.items() if count}


def counts(shares: Mapping[str, float], there: Mapping[str, int], limit: int | None = None) -> dict[str, int]:
    """Return how many prompts to use from each section: in these shares, and as many as all sections allow.

    A section without prompts on this side is ignored; a section with prompts gives at least one.

    Args:
        shares: relative share of each section.
        there: number of distinct prompts in each section.
        limit: limit on their sum, before rounding.
    """
    size = min((there[name] / share for name, share in shares.items() if there[name]), default=0.0)
    if limit is not None:
        size = min(size, limit / sum(shares.values()))
    return {name: min(there[name], max(1, round(share * size))) for name, share in shares.items()}


def interleaved(sections: Mapping[str, Sequence[Example]], seed: int) -> list[Example]:
    """Interleave all examples, each section's spread evenly: its j-th of n at a random point of [j/n, (j + 1)/n)."""
    draw = random.Random(seed)
    placed = [
        ((j + draw.random()) / len(examples), number, j, example)
        for number, examples in enumerate(sections.values())
        for j, example in enumerate(examples)
    ]
    return [example for *_, example in sorted(placed, key=lambda place: place[:3])]


def by_prompt(examples: Sequence[Example]) -> Prompts:
    """Return examples by their conversation, in order."""
    prompts: Prompts = {}
    for example in examples:
        prompts.setdefault(example.conversation, []).append(example)
    return prompts


def _tasked(examples: Sequence[Example], section: str) -> list[Example]:
    return [example if example.task is not None else replace(example, task=section) for example in examples]


def _each_once(side: Mapping[str, Prompts], dropped: Counter[str]) -> dict[str, Prompts]:
    """Assign every prompt to the first section that has it."""
    seen: set[str] = set()
    own = {}
    for name, prompts in side.items():
        own[name] = {prompt: rows for prompt, rows in prompts.items() if prompt not in seen}
        dropped[f"{name}: prompt of another section"] += len(prompts) - len(own[name])
        seen |= prompts.keys()
    return own


def _chosen(prompts: Prompts, count: int, seed: int) -> list[Example]:
    """Return the rows of `count` prompts that the seed selects; a larger count only adds. Copies of a prompt are
    spread.
    """
    ranked = sorted(prompts, key=lambda prompt: _rank(prompt, seed))[:count]
    copies = max((len(prompts[prompt]) for prompt in ranked), default=0)
    return [prompts[prompt][copy] for copy in range(copies) for prompt in ranked if copy < len(prompts[prompt])]


def _rank(prompt: str, seed: int) -> bytes:
    return hashlib.sha256(f"mixture {seed}\0{prompt}".encode(errors="surrogatepass")).digest()
