"""WARP on a bandit: runs by the project's REINFORCE, merged and interpolated by its arithmetic on checkpoints."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from benchmarks.fidelity.claim import Curve
from benchmarks.fidelity.toys.bandit import Bandit, Trace, copy_of, make_bandit, reinforce, reward_and_kl, trace
from gemsmith.weights import merge
from gemsmith.weights.vectors import angle_between


def warp_bandit(setting: Mapping[str, Any], seed: int) -> Bandit:
    """Return the bandit of a setting, measured on held-out prompts."""
    return make_bandit(seed, tuple(setting["widths"]), setting["prompts"], setting["held_out"])


def inner_run(
    bandit: Bandit, start: nn.Sequential, setting: Mapping[str, Any], kl: float, seed: int, anchor: str = "anchor"
) -> tuple[nn.Sequential, Trace]:
    """One run of WARP's first stage from `start`: its policy, and where it went.

    Args:
        bandit: prompts and rewards.
        start: is not changed; with anchor "initial" also what the KL is taken to.
        setting: `every`, `steps`, `batch`, `learning_rate`, and `noise`, the standard deviation added to each reward.
        kl: weight of the KL penalty in the reward.
        seed: of the run.
        anchor: "anchor" for the moving average (rate 0.01), "initial" for the policy at the start.
    """
    noise, generator = setting.get("noise", 0.0), torch.Generator().manual_seed(2000 + seed)

    def noisy(reward: Tensor) -> Tensor:
        return reward + noise * torch.randn(reward.shape, generator=generator, dtype=reward.dtype)

    policy = copy_of(start)
    options = {name: setting[name] for name in ("every", "steps", "batch", "learning_rate")}
    return policy, trace(policy, bandit, reinforce(kl, anchor), seed, **options, observed=noisy)


def merged(start: nn.Sequential, finals: Sequence[nn.Sequential], how: str = "slerp") -> tuple[nn.Sequential, float]:
    """Merge runs from `start`, "slerp" layer by layer or "lerp" (the mean); return it and the mean angle in degrees."""
    with tempfile.TemporaryDirectory() as name:
        folders = [_store(policy, Path(name) / str(number)) for number, policy in enumerate([start, *finals])]
        if how == "lerp":
            merge.average(folders[1:], Path(name) / "out")
            return _load(start, Path(name) / "out"), float("nan")
        groups = merge.slerp(folders[0], folders[1:], Path(name) / "out", "layer")
        angles = [angle for group in groups for angle in group.angles[:1] if angle is not None]
        return _load(start, Path(name) / "out"), sum(angles) / max(1, len(angles))


def line(bandit: Bandit, start: nn.Sequential, end: nn.Sequential, rates: Sequence[float]) -> Curve:
    """LITI: (KL, reward) of (1 - rate) start + rate end, for each rate."""
    points = []
    for rate in rates:
        reward, divergence = reward_and_kl(between(start, end, rate), bandit)
        points.append((divergence, reward))
    return points


def between(start: nn.Sequential, end: nn.Sequential, rate: float) -> nn.Sequential:
    """Return the policy at one rate of the line."""
    with tempfile.TemporaryDirectory() as name:
        folders = _store(start, Path(name) / "start"), _store(end, Path(name) / "end")
        merge.interpolate(*folders, rate, Path(name) / "out")
        return _load(start, Path(name) / "out")


def angle_of_weights(first: nn.Sequential, second: nn.Sequential) -> float:
    """Degrees between the whole weights of two policies, not their task vectors."""
    a, b = (
        torch.cat([parameter.detach().flatten() for parameter in policy.parameters()]) for policy in (first, second)
    )
    angle = angle_between((a @ b).item(), a.norm().item(), b.norm().item())
    assert angle is not None
    return angle * 180 / torch.pi


def _store(policy: nn.Sequential, folder: Path) -> Path:
    """Write a policy as a checkpoint whose linear maps are its layers."""
    folder.mkdir()
    save_file({f"layers.{name}": tensor for name, tensor in policy.state_dict().items()}, folder / "model.safetensors")
    return folder


def _load(like: nn.Sequential, folder: Path) -> nn.Sequential:
    policy = copy_of(like)
    stored = load_file(folder / "model.safetensors")
    policy.load_state_dict({name.removeprefix("layers."): tensor for name, tensor in stored.items()})
    return policy
