"""Tokenised preference pairs, and the split into training and held-out prompts."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from gemsmith.contracts.errors import UserError
from gemsmith.curation.example import Example
from gemsmith.policy.text.chat import completion_ids, prompt_ids


@dataclass(frozen=True)
class Pair:
    """Tokenised prompt with a preferred and a rejected completion.

    Attributes:
        prompt: text of the prompt with normalised white space.
        chosen_ids: token ids of the prompt and the preferred completion.
        rejected_ids: token ids of the prompt and the rejected completion.
        prompt_tokens: number of prompt tokens at the start of both.
        task: task of the example, or None.
        margin: reward by which the preferred completion is better, according to the data.
    """

    prompt: str
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    prompt_tokens: int = 0
    task: str | None = None
    margin: float = 0.0

    @property
    def lengths(self) -> tuple[int, int]:
        """Return the number of tokens of the chosen and the rejected completion, including the end of turn."""
        return len(self.chosen_ids) - self.prompt_tokens, len(self.rejected_ids) - self.prompt_tokens


@dataclass(frozen=True)
class PairSplit:
    """Training pairs, held-out pairs of other prompts, and the number of dropped pairs by reason."""

    train: list[Pair]
    held_out: list[Pair]
    dropped: dict[str, int]


def both_sides(pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """Return the token ids of both sides of all pairs, alternately chosen and rejected."""
    return [ids for pair in pairs for ids in (pair.chosen_ids, pair.rejected_ids)]


def split_pairs(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerFast,
    *,
    name: str,
    max_length: int,
    share: float,
    limit: int,
    seed: int,
    margin: str | None = None,
) -> PairSplit:
    """Tokenise the examples that have a preference, and hold out the pairs of some prompts.

    Args:
        examples: examples with `chosen` and `rejected`; others are ignored.
        tokenizer: tokenizer of the reward model.
        name: name of the data section, for messages.
        max_length: maximum number of tokens of prompt and completion together; longer pairs are dropped and counted.
        share: share of the distinct prompts to hold out; at least one prompt is held out and at least one is not.
        limit: maximum number of prompts to hold out.
        seed: seed of the choice of prompts, which does not depend on their order.
        margin: column with the pairs' margins; None: all margins are 0.

    Raises:
        UserError: there are no pairs, fewer than two prompts remain, or a margin is not a number >= 0.
    """
    pairs: list[Pair] = []
    dropped = {"empty side": 0, "too long": 0, "chosen equals rejected": 0}
    preferences = [example for example in examples if example.chosen is not None and example.rejected is not None]
    if not preferences:
        raise UserError(
            f"data.{name} has no preference pairs: map `chosen` and `rejected` to its columns, "
            "or create pairs with `synthesise`."
        )
    for example in preferences:
        prompt = prompt_ids(tokenizer, example.messages)
        chosen, rejected = (
            (*prompt, *completion_ids(tokenizer, str(text))) for text in (example.chosen, example.rejected)
        )
        if not (str(example.chosen).strip() and str(example.rejected).strip()):
            dropped["empty side"] += 1
        elif max(len(chosen), len(rejected)) > max_length:
            dropped["too long"] += 1
        elif chosen == rejected:
            dropped["chosen equals rejected"] += 1
        else:
            text = example.conversation
            gap = 0.0 if margin is None else _margin(example, margin, name)
            pairs.append(Pair(text, chosen, rejected, len(prompt), example.task, gap))
    prompts = sorted({pair.prompt for pair in pairs}, key=lambda prompt: _rank(prompt, seed))
    if len(prompts) < 2:
        raise UserError(
            f"data.{name}: found usable pairs for {len(prompts)} prompts ({dropped['too long']} pairs are longer than "
            f"max_length = {max_length} tokens, {dropped['empty side']} have an empty side, "
            f"{dropped['chosen equals rejected']} have equal sides): provide at least two prompts, one to train on and "
            "one to evaluate on."
        )
    held = set(prompts[: max(1, min(round(share * len(prompts)), limit, len(prompts) - 1))])
    return PairSplit(
        train=[pair for pair in pairs if pair.prompt not in held],
        held_out=[pair for pair in pairs if pair.prompt in held],
        dropped={reason: count for reason, count in dropped.items() if count},
    )


def _margin(example: Example, column: str, name: str) -> float:
    if column not in example.columns:
        raise UserError(
            f"data.{name} has no column {column!r} for the margin (found {', '.join(example.columns) or 'none'}): "
            "add it to the data section's `columns`."
        )
    value = example.columns[column]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(
            f"data.{name}: the margin {column!r} of {example.where or 'a pair'} is {value!r}; expected a number >= 0."
        )
    return float(value)


def _rank(prompt: str, seed: int) -> bytes:
    return hashlib.sha256(f"warm {seed} {prompt}".encode()).digest()
