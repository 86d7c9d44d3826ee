"""Preference pairs in tokens, and the prompts that are held out to measure reward models on."""

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
    """A prompt with its preferred and its other completion, in tokens.

    Attributes:
        prompt: its text, white space made equal.
        chosen_ids: the prompt and the preferred completion.
        rejected_ids: the prompt and the other completion.
        prompt_tokens: how many of both are the prompt's.
        task: of its example.
        margin: how much better the preferred completion is said to be, in rewards.
    """

    prompt: str
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    prompt_tokens: int = 0
    task: str | None = None
    margin: float = 0.0

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the chosen and of the rejected completion, with their end of turn."""
        return len(self.chosen_ids) - self.prompt_tokens, len(self.rejected_ids) - self.prompt_tokens


@dataclass(frozen=True)
class PairSplit:
    """Pairs to train on, pairs of other prompts to measure on, and how many were dropped for which reason."""

    train: list[Pair]
    held_out: list[Pair]
    dropped: dict[str, int]


def both_sides(pairs: Sequence[Pair]) -> list[tuple[int, ...]]:
    """Prompts with completions: chosen, rejected, chosen, rejected, ..."""
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
        examples: examples with `chosen` and `rejected`; others are passed over.
        tokenizer: of the featuriser.
        name: of the data section, for messages.
        max_length: longest prompt and completion together, in tokens; pairs beyond are dropped and counted.
        share: of the distinct prompts to hold out; at least one prompt, and at least one stays.
        limit: most prompts to hold out.
        seed: chooses the prompts; the same prompts for the same seed, whatever their order.
        margin: column with the pairs' margins; none: they are 0.

    Raises:
        UserError: there are no pairs, none fits, all have one prompt, or a margin is no number of at least 0.
    """
    pairs: list[Pair] = []
    dropped = {"empty side": 0, "too long": 0, "chosen equals rejected": 0}
    preferences = [example for example in examples if example.chosen is not None and example.rejected is not None]
    if not preferences:
        raise UserError(
            f"data.{name} has no preference pairs: map `chosen` and `rejected` to its columns, "
            "or make pairs with `synthesise`."
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
            f"data.{name} leaves pairs of {len(prompts)} prompts ({dropped['too long']} pairs are longer than "
            f"max_length = {max_length} tokens, {dropped['empty side']} have an empty side, "
            f"{dropped['chosen equals rejected']} two equal ones): "
            "give at least two prompts, one to train on and one to measure on."
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
            f"data.{name} hands on {', '.join(example.columns) or 'no columns'}, and not the margin {column!r}: "
            "name it in the data section's `columns`."
        )
    found = example.columns[column]
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise UserError(
            f"data.{name}: the margin {column!r} of {example.where or 'a pair'} is {found!r}; "
            "expected a number of at least 0."
        )
    return float(found)


def _rank(prompt: str, seed: int) -> bytes:
    return hashlib.sha256(f"warm {seed} {prompt}".encode()).digest()
