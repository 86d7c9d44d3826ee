"""A contextual bandit: an MLP picks one action for a prompt, so that its mean reward and its KL are exact sums.

The policy learns by the project's own algorithms, called as the trainer calls them: an action is a completion of one
token, and a prompt is its number.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.fidelity.claim import Curve
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.algorithm import Algorithm, Draw, Rollouts
from gemsmith.rl.algorithms.bond import JBond
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.algorithms.reinforce import Reinforce
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm

Trace = list[tuple[float, float, float]]  # step, mean reward, KL to the reference


@dataclass(frozen=True)
class Bandit:
    """Prompts, and how good each action is for them.

    `features_XF` and `reward_XA` (mean 0, standard deviation 1 over all) are of X prompts to learn from; `held_out` is
    the same pair for prompts to be measured on. `reference` is fitted to demonstrations.
    """

    features_XF: Tensor
    reward_XA: Tensor
    held_out: tuple[Tensor, Tensor]
    reference: nn.Sequential


def mlp(widths: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Layers of the given widths with tanh between them; weights are normal with variance 1 / inputs, biases 0."""
    parts: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layer = nn.Linear(inputs, outputs)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) / inputs**0.5)
            layer.bias.zero_()
        parts += [layer, nn.Tanh()]
    return nn.Sequential(*parts[:-1])


def copy_of(policy: nn.Sequential) -> nn.Sequential:
    """Return a new policy with the same weights."""
    widths = [layer.in_features for layer in policy if isinstance(layer, nn.Linear)] + [policy[-1].out_features]
    fresh = mlp(tuple(int(width) for width in widths), torch.Generator())  # type: ignore[arg-type]
    fresh.load_state_dict(policy.state_dict())
    return fresh


def make_bandit(seed: int, widths: tuple[int, ...], prompts: int, held_out: int = 0, fit: int = 100) -> Bandit:
    """Return a bandit whose reward and demonstrations come from random MLPs.

    Args:
        seed: seed of everything random.
        widths: layer widths of the policy, from features to actions.
        prompts: X, the training prompts.
        held_out: number of prompts for measurement; 0 to measure on the training prompts.
        fit: steps of Adam at 3e-3 that fit the reference to the demonstrations' distribution, on all prompts at once.
    """
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(prompts + held_out, widths[0], generator=generator)
    with torch.no_grad():
        reward = mlp(widths, generator)(features).double()
        reward = (reward - reward.mean()) / reward.std()
        demonstrations = mlp(widths, generator)(features).softmax(-1)
    reference = mlp(widths, generator)
    optimiser = torch.optim.Adam(reference.parameters(), 3e-3, fused=True)
    for _ in range(fit):
        loss = -(demonstrations[:prompts] * reference(features[:prompts]).log_softmax(-1)).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    first = slice(prompts, None) if held_out else slice(0, prompts)
    return Bandit(features[:prompts], reward[:prompts], (features[first], reward[first]), reference)


def jbond(beta: float = 0.5, gamma: float = 0.0, anchor_rate: float = 0.02) -> JBond:
    """Return the project's J-BOND; the training fields, which it does not read, have arbitrary values."""
    fields = {"steps": 1, "batch": 1, "learning_rate": 0.0, "data": "toy", "rewards": ["toy"]}
    return JBond(BondAlgorithm(kind="bond", beta=beta, gamma=gamma, anchor_rate=anchor_rate, **fields))  # type: ignore[arg-type]


def reinforce(kl: float, kl_to: str = "initial", anchor_rate: float = 0.01, samples: int = 2) -> Reinforce:
    """Return the project's REINFORCE with a leave-one-out baseline."""
    fields = {"steps": 1, "batch": 1, "learning_rate": 0.0, "data": "toy", "rewards": ["toy"]}
    settings = {"kl": kl, "kl_to": kl_to, "anchor_rate": anchor_rate, "samples": samples}
    return Reinforce(ReinforceAlgorithm(kind="reinforce", **settings, **fields))  # type: ignore[arg-type]


def learn(
    policy: nn.Sequential,
    bandit: Bandit,
    algorithm: Algorithm,
    generator: torch.Generator,
    steps: int,
    batch: int,
    learning_rate: float = 1e-3,
    period: int | None = None,
    observed: Callable[[Tensor], Tensor] = lambda reward: reward,
) -> Iterator[int]:
    """Train `policy` in place, and yield the number of steps done before each step and after the last.

    Args:
        policy: is changed.
        bandit: prompts and rewards.
        algorithm: of the project; its anchor is an EMA of its rate, by the project's `WeightSet`.
        generator: of prompts and actions.
        steps: of Adam.
        batch: prompts a step.
        learning_rate: constant.
        period: the anchor becomes the policy after so many steps, instead of following it.
        observed: what is seen of the rewards, such as a transform or noise.
    """
    optimiser = torch.optim.Adam(policy.parameters(), learning_rate, fused=True)
    anchor, initial = WeightSet(policy), WeightSet(policy)
    for step in range(steps):
        yield step
        number_P = torch.randint(len(bandit.features_XF), (batch,), generator=generator)
        rollouts = _rollouts(policy, anchor, initial, bandit, algorithm, number_P, generator, observed)
        sequences, _ = algorithm.weigh(rollouts)
        number_S = torch.tensor([sequence.prompt[0] for sequence in sequences])
        action_S = torch.tensor([sequence.completion[0] for sequence in sequences])
        weight_S = torch.tensor([sequence.weight for sequence in sequences])
        logprob_SA = policy(bandit.features_XF[number_S]).log_softmax(-1)
        loss = -(weight_S * logprob_SA.gather(1, action_S[:, None])[:, 0]).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if period is None:
            anchor.update(algorithm.anchor_rate)
        elif (step + 1) % period == 0:
            anchor.update(1.0)
    yield steps


@torch.no_grad()
def _rollouts(
    policy: nn.Sequential,
    anchor: WeightSet,
    initial: WeightSet,
    bandit: Bandit,
    algorithm: Algorithm,
    number_P: Tensor,
    generator: torch.Generator,
    observed: Callable[[Tensor], Tensor],
) -> Rollouts:
    features_PF, reward_PA = bandit.features_XF[number_P], bandit.reward_XA[number_P]
    live_PA, anchor_PA = policy(features_PF).log_softmax(-1), None
    if algorithm.needs_anchor_logprob:
        with anchor.applied():
            anchor_PA = policy(features_PF).log_softmax(-1)
    with initial.applied():
        initial_PA = policy(features_PF).log_softmax(-1)

    def draw(logprob_PA: Tensor, samples: int) -> Draw:
        sums_PA = logprob_PA.exp().cumsum(-1)
        uniform_PN = torch.rand(len(sums_PA), samples, generator=generator) * sums_PA[:, -1:]
        action_PN = torch.searchsorted(sums_PA, uniform_PN, right=True).clamp(max=sums_PA.shape[1] - 1)
        tables = [None if table is None else table.gather(1, action_PN) for table in (live_PA, anchor_PA, initial_PA)]
        ids = [[action] for action in action_PN.flatten().tolist()]
        return Draw(ids, *tables, learnt_reward_PN=observed(reward_PA.gather(1, action_PN)))

    from_policy, from_anchor = draw(live_PA, algorithm.draws["policy"]), None
    if "anchor" in algorithm.draws:
        assert anchor_PA is not None
        from_anchor = draw(anchor_PA, algorithm.draws["anchor"])
    return Rollouts([[number] for number in number_P.tolist()], from_policy, from_anchor)


@torch.no_grad()
def reward_and_kl(policy: nn.Sequential, bandit: Bandit) -> tuple[float, float]:
    """Exact mean reward (standard deviations) and KL(policy || reference) (nats) over the prompts to be measured on."""
    features, reward = bandit.held_out
    logprob, reference = policy(features).log_softmax(-1).double(), bandit.reference(features).log_softmax(-1).double()
    probability = logprob.exp()
    return (probability * reward).sum(-1).mean().item(), (probability * (logprob - reference)).sum(-1).mean().item()


def trace(
    policy: nn.Sequential,
    bandit: Bandit,
    algorithm: Algorithm,
    seed: int,
    every: int,
    steps: int,
    batch: int,
    learning_rate: float,
    **options: Any,
) -> Trace:
    """Train `policy` in place by `learn`, and give (step, reward, KL) before the first step and after every so many."""
    generator = torch.Generator().manual_seed(1000 + seed)
    walk = learn(policy, bandit, algorithm, generator, steps, batch, learning_rate, **options)
    return [(float(step), *reward_and_kl(policy, bandit)) for step in walk if step % every == 0]


def curves_of(traces: Mapping[str, Trace]) -> dict[str, Curve]:
    """For each trace its rewards over KL under its name, and over steps as "NAME reward" and "NAME KL"."""
    curves: dict[str, Curve] = {}
    for name, points in traces.items():
        curves[name] = [(divergence, reward) for _, reward, divergence in points]
        curves[f"{name} reward"] = [(step, reward) for step, reward, _ in points]
        curves[f"{name} KL"] = [(step, divergence) for step, _, divergence in points]
    return curves
