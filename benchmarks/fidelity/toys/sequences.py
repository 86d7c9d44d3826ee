"""Short sequences whose tokens are independent in the policy but not in the reward, so that it cannot be Best-of-N.

All sequences are enumerated, so that divergences, quantiles and gradients are exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.fidelity.toys.best_of_n_law import backward_loss, best_of_n_logprob, bond_reward, forward_loss


@dataclass(frozen=True)
class Sequences:
    """P prompts, and all S = V ** L sequences of L tokens for each.

    `tokens_SL` are the sequences, `reward_PS` (mean 0, standard deviation 1 over those of a prompt) how good each is,
    and `reference_PLV` the logits that every policy starts from.
    """

    tokens_SL: Tensor
    reward_PS: Tensor
    reference_PLV: Tensor

    def logprobs(self, logits_PLV: Tensor) -> Tensor:
        """Log-probability of each sequence under logits with independent tokens, [P, S]."""
        token_PLV = logits_PLV.log_softmax(-1)
        return sum(token_PLV[:, place, self.tokens_SL[:, place]] for place in range(self.tokens_SL.shape[1]))  # type: ignore[return-value]


def make_sequences(seed: int, prompts: int, length: int, vocabulary: int) -> Sequences:
    """Random sequences problem: the reward is a normal number for each token at its place, and one for each pair."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens_SL = torch.cartesian_prod(*[torch.arange(vocabulary)] * length)
    reward_PS = torch.zeros(prompts, len(tokens_SL), dtype=torch.float64)
    for place in range(length):
        reward_PS += normal(prompts, vocabulary)[:, tokens_SL[:, place]]
        for other in range(place):
            reward_PS += normal(prompts, vocabulary, vocabulary)[:, tokens_SL[:, place], tokens_SL[:, other]]
    reward_PS = (reward_PS - reward_PS.mean(1, keepdim=True)) / reward_PS.std(1, keepdim=True)
    return Sequences(tokens_SL, reward_PS, normal(prompts, length, vocabulary))


def distil(
    problem: Sequences, n: int, beta: float, steps: int, learning_rate: float, period: int | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Fit a policy to Best-of-n by exact gradients of Jeffreys' divergence; yield it before each step and at the end.

    Args:
        problem: sequences and rewards.
        n: of Best-of-n of the anchor, which is the reference at first.
        beta: weight of the backward divergence.
        steps: of Adam.
        learning_rate: constant.
        period: the anchor becomes the policy after so many steps (iterated BOND, Algorithm 1); None: never (BOND).

    Yields:
        The number of steps done, and log-probabilities of the policy, [P, S].
    """
    logits_PLV = problem.reference_PLV.clone().requires_grad_()
    optimiser = torch.optim.Adam([logits_PLV], learning_rate)
    anchor_PS = problem.logprobs(problem.reference_PLV)
    for step in range(steps):
        logprob_PS = problem.logprobs(logits_PLV)
        yield step, logprob_PS.detach()
        if step == 0 or (period is not None and step % period == 0):
            anchor_PS = logprob_PS.detach()
            target_PS = best_of_n_logprob(anchor_PS, problem.reward_PS, n)
            reward_PS = bond_reward(anchor_PS, problem.reward_PS, n)
        forward = forward_loss(logprob_PS, target_PS)
        backward = backward_loss(logprob_PS, anchor_PS, reward_PS, n)
        loss = ((1.0 - beta) * forward + beta * backward).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    yield steps, problem.logprobs(logits_PLV).detach()
