"""Demonstrations and preference pairs made from true integers: some right, some wrong, in several styles.

Reinforcement amplifies what a policy sometimes does; a policy trained on these is sometimes right, and diverse.
Every random choice depends only on the seed, the prompt and the number of the copy, never on the order of examples.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import SyntheticDemonstrations
from gemsmith.curation.example import Example

RIGHT_PAIRS = 0.5
"""Share of pairs that prefer a right answer to a wrong one; the others prefer the nearer of two wrong ones."""


def integer(answer: str | None) -> int | None:
    """Return the integer in an answer ("72", "-1,080"), or None."""
    try:
        return int((answer or "").strip().replace(",", ""))
    except ValueError:
        return None


def synthesise(example: Example, config: SyntheticDemonstrations, seed: int, copies: int) -> Iterator[Example]:
    """Return `copies` versions of an example, each with its own demonstration and preference pair.

    The style of a completion is chosen independently of its correctness, so that the style reveals nothing. With spread
    1 all wrong answers are equally far, and every pair has a right answer.
    """
    true = integer(example.answer)
    if true is None:
        raise ValueError(f"not an integer: {example.answer!r}")
    for copy in range(copies):
        draw = _generator(seed, example.prompt, copy)
        shown = true if draw.random() < config.right else true + _distance(draw, config.spread)
        near, far = _pair(draw, config.spread)
        yield replace(
            example,
            demonstration=_worded(draw, config, shown),
            chosen=_worded(draw, config, true + near),
            rejected=_worded(draw, config, true + far),
        )


def check_styles(config: SyntheticDemonstrations, name: str) -> None:
    """Raise a UserError unless every style can be filled in and shows the answer."""
    for style in config.styles:
        try:
            shows = style.format(answer=12345) != style.format(answer=54321)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UserError(
                f"data {name}: style {style!r} cannot be filled in ({type(error).__name__}: {error}); "
                "it may refer to {answer} only, and other braces are doubled."
            ) from error
        if not shows:
            raise UserError(
                f"data {name}: style {style!r} does not show the answer; write {{answer}} where it belongs."
            )


def _generator(seed: int, prompt: str, copy: int) -> random.Random:
    return random.Random(hashlib.sha256(f"{seed}\0{copy}\0{prompt}".encode()).digest())


def _distance(draw: random.Random, spread: int) -> int:
    """Return a non-zero distance, uniform over -spread..spread."""
    return draw.choice((-1, 1)) * draw.randint(1, spread)


def _pair(draw: random.Random, spread: int) -> tuple[int, int]:
    """Return distances of the chosen and the rejected answer from the true one; the first is the smaller."""
    if spread == 1 or draw.random() < RIGHT_PAIRS:
        return 0, _distance(draw, spread)
    near, far = sorted(draw.sample(range(1, spread + 1), 2))
    return draw.choice((-1, 1)) * near, draw.choice((-1, 1)) * far


def _worded(draw: random.Random, config: SyntheticDemonstrations, answer: int) -> str:
    return draw.choice(config.styles).format(answer=answer)
