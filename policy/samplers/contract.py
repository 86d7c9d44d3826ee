"""The interface of samplers: arguments, results and errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from gemsmith.contracts.errors import UserError

Weights = Literal["policy", "anchor"]
Finish = Literal["stop", "length"]


@dataclass
class Samples:
    """Completions, prompt by prompt: entry `p * n + i` is the i-th of prompt p.

    `ids` include the token that ended the completion if `finish` is "stop". `logprobs` belong to the sampled tokens, in
    nats, under the distribution that they were sampled from (after temperature, top-k and top-p). `text` is without
    control tokens.
    """

    ids: list[list[int]]
    logprobs: list[list[float]]
    text: list[str]
    finish: list[Finish]


class Sampler(Protocol):
    """Anything that samples completions.

    Attributes:
        same_weights: True if it computes with the trainer's own tensors and forward pass, so that its log-probabilities
            equal the trainer's, up to rounding.
    """

    same_weights: bool

    def sync(self) -> None:
        """Copy the trainer's current weights, and the anchor's if there is one."""
        ...

    def close(self) -> None:
        """End everything that runs; a second call does nothing."""
        ...

    def sample(
        self,
        prompts: list[list[int]],
        n: int,
        seed: int,
        weights: Weights = "policy",
        greedy: bool = False,
        before: int = 0,
    ) -> Samples:
        """Sample n completions of each prompt (token ids); the same seed gives the same ones.

        `before` is the number of completions before these under the same seed, which other processes sample.
        """
        ...


@runtime_checkable
class ScoringSampler(Protocol):
    """A sampler that can also compute the likelihood of given completions under its weights."""

    def score(
        self, prompts: list[list[int]], completions: list[list[int]], weights: Weights = "policy"
    ) -> list[list[float]]:
        """Return the log-probability of each completion token under the unprocessed distribution, in nats."""
        ...


def check_lengths(
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    context: int,
    whose: str = "the model's context",
    remedy: str = "lower max_tokens or leave long prompts out",
) -> None:
    """Reject prompts that leave no room for `max_tokens` tokens.

    Args:
        prompts: token ids.
        max_tokens: longest completion.
        context: maximum length of a prompt and its completion together, in tokens.
        whose: what has that limit, for the error.
        remedy: what the user can do, for the error.

    Raises:
        UserError: the longest prompt is too long.
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest + max_tokens > context:
        raise UserError(
            f"A prompt of {longest} tokens and max_tokens {max_tokens} exceed {whose} of {context} tokens; {remedy}."
        )
