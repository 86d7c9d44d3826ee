"""WARM on tiny reward models of the toy language, where a quarter of the training labels are swapped.

Probe, members and average are made by the project's own functions. A folder of members is laid out as the stage `warm`
leaves it, so that rewards can serve it.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.fidelity.claim import Setting
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.kept import shared_folder
from benchmarks.fidelity.toys.gold import Gold
from benchmarks.fidelity.toys.language import Language, prompts
from benchmarks.fidelity.toys.tiny_policies import (
    EARLIER,
    make_policy,
    messages,
    policy_config,
    sampled,
    tokens_of,
)
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.reward_models.config import WarmStage
from gemsmith.reward_models.ensemble import MEMBERS, SUMMARY
from gemsmith.reward_models.member import member_plans, train_member
from gemsmith.reward_models.model import from_policy, load_reward_model, save_reward_model
from gemsmith.reward_models.pairs import Pair, both_sides
from gemsmith.reward_models.probe import fit_head
from gemsmith.reward_models.scorer import last_features, score_sequences
from gemsmith.weights.merge import average

BATCH = 256  # sequences scored at once
# What the shared folders are made with. Chosen by a pilot on seed 99, which is not among the seeds that are reported.
SETTING: Setting = {
    "sft_steps": 90,
    "pairs": 480,  # to train on
    "held_out": 400,  # pairs of each distribution to measure on
    "swapped": 0.25,  # share of the training pairs whose label is wrong
    "epochs": 8,
    "batch": 16,  # pairs a step
    "rates": (1e-4, 3e-4, 1e-3),
    "dropouts": (0.05, 0.1),
    "members": 6,
}
QUICK: Setting = {"sft_steps": 12, "pairs": 32, "held_out": 20, "epochs": 1, "rates": (1e-3,), "members": 2}


@dataclass(frozen=True)
class Data:
    """Pairs as their labels order them: to train on, with the numbers of those swapped, and to measure on."""

    train: list[Pair]
    swapped: frozenset[int]
    held_out: list[Pair]
    shifted: list[Pair]


def policy_of(setting: Setting, seed: int) -> Path:
    """Folder of the SFT policy whose completions are compared, and from whose layers the members start."""
    only = {"sft_steps": setting["sft_steps"]}
    return shared_folder("warm-policy", _make_policy, only, seed) / "output"


def members(setting: Setting, seed: int) -> list[Path]:
    """Folders of the members, which start from one policy; the folder of their average is `average_of`."""
    return _members("warm-members", _make_members, setting, seed)


def average_of(members: Sequence[Path]) -> Path:
    """Return the average that `members` left beside the members, as the stage `warm` lays it out."""
    return members[0].parent.with_name("output")


def baklava(setting: Setting, seed: int) -> list[Path]:
    """Folders of members of the same settings that start from successive policies of one training."""
    return _members("warm-baklava", _make_baklava, setting, seed)


def stranger(setting: Setting, seed: int) -> Path:
    """Folder of the first member as it comes from a policy that was trained from other random weights."""
    return _members("warm-stranger", _make_stranger, setting, seed)[0]


def data_of(setting: Setting, seed: int) -> Data:
    """Return the pairs of a seed."""
    return make_data(load_policy(policy_config(str(policy_of(setting, seed)))), setting, seed)


def _members(name: str, make: Callable[[Path, Setting, int], None], setting: Setting, seed: int) -> list[Path]:
    folder = shared_folder(name, make, {key: setting[key] for key in SETTING}, seed)
    return [folder / MEMBERS / str(member) for member in range(setting["members"])]


def make_data(policy: Policy, setting: Setting, seed: int) -> Data:
    """Pairs of the policy's completions, and `shifted` ones of another language whose completions are longer."""
    draw, gold, other = random.Random(f"pairs {seed}"), Gold(seed), Language(seed + 1, ends=0.08, favour=1.0)
    asked = prompts(setting["pairs"] + 2 * setting["held_out"], draw)
    own, rest = asked[: -setting["held_out"]], asked[-setting["held_out"] :]
    texts = sampled(policy, own, 2, seed)
    pairs = [_pair(policy, gold, *three) for three in zip(own, texts[0::2], texts[1::2], strict=True)]
    shifted = [_pair(policy, gold, p, other.completion(p, draw), other.completion(p, draw)) for p in rest]
    train, held_out = pairs[: setting["pairs"]], pairs[setting["pairs"] :]
    swapped = frozenset(draw.sample(range(len(train)), round(setting["swapped"] * len(train))))
    return Data([_swap(p) if i in swapped else p for i, p in enumerate(train)], swapped, held_out, shifted)


def _pair(policy: Policy, gold: Gold, prompt: str, one: str, two: str) -> Pair:
    better, worse = (one, two) if gold.of(prompt, one) >= gold.of(prompt, two) else (two, one)
    prompt_tokens = len(prompt_ids(policy.tokenizer, messages(prompt)))
    return Pair(prompt, tokens_of(policy, prompt, better), tokens_of(policy, prompt, worse), prompt_tokens)


def _swap(pair: Pair) -> Pair:
    return replace(pair, chosen_ids=pair.rejected_ids, rejected_ids=pair.chosen_ids)


def _make_policy(folder: Path, setting: Setting, seed: int) -> None:
    make_policy(folder, setting, seed, init=seed)


def _make_members(folder: Path, setting: Setting, seed: int) -> None:
    policy = load_policy(policy_config(str(policy_of(setting, seed))))
    data = make_data(policy, setting, seed)
    probed = _probed(policy, data.train, folder / "probe")
    paths = _train(setting, seed, [probed], data.train, folder)
    average(paths, folder / "output")
    of_members = {m: fmean(score_all(path, both_sides(data.held_out))) for m, path in enumerate(paths)}
    summary = {
        "members": [{"member": m, "mean_reward": mean} for m, mean in of_members.items()],
        "kept": list(of_members),
    }
    write_atomically(folder / "output" / SUMMARY, json.dumps(summary))


def _make_baklava(folder: Path, setting: Setting, seed: int) -> None:
    """Train like the members, but from the policy at two thirds, five sixths and the end of its training; one head
    for all.
    """
    own = policy_of(setting, seed)
    policy = load_policy(policy_config(str(own)))
    data = make_data(policy, setting, seed)
    last = _probed(policy, data.train, folder / "probe")
    head = load_reward_model(last, "sdpa").score.weight.detach()[0]
    earlier = []
    for sixths in EARLIER:
        start = load_policy(policy_config(str(own.with_name(f"earlier-{sixths}"))))
        earlier.append(_probed(start, data.train, folder / f"probe-{sixths}", head))
    _train(setting, seed, [*earlier, last], data.train, folder)


def _make_stranger(folder: Path, setting: Setting, seed: int) -> None:
    """Train the first member on the same pairs, from a policy that began with other weights, with its own head."""
    other = make_policy(folder / "policy", setting, seed, init=seed + 1000)
    data = data_of(setting, seed)
    probed = _probed(load_policy(policy_config(str(other))), data.train, folder / "probe")
    _train({**setting, "members": 1}, seed, [probed], data.train, folder)


def _probed(policy: Policy, train: Sequence[Pair], folder: Path, head: Tensor | None = None) -> Path:
    """Return a reward model on the policy's layers, with `head` or one fitted on frozen features of the training
    pairs.
    """
    model = from_policy(policy).eval()
    if head is None:
        features = last_features(model, both_sides(train), BATCH)
        head = fit_head(features[0::2] - features[1::2])
    with torch.no_grad():
        model.score.weight.copy_(head[None])
    save_reward_model(model, policy.tokenizer, folder)
    return folder


def _train(setting: Setting, seed: int, probed: Sequence[Path], train: Sequence[Pair], folder: Path) -> list[Path]:
    """Train the members, from the probed models in turn; learning rates and dropouts alternate."""
    steps = setting["epochs"] * setting["pairs"] // setting["batch"]
    config = WarmStage(
        id="warm", kind="warm", data="-", policy=policy_config("tiny"), members=setting["members"], steps=steps,
        batch=setting["batch"], learning_rate=setting["rates"][0], learning_rates=list(setting["rates"]),
        dropouts=list(setting["dropouts"]), save_every=steps, log_every=max(1, steps // setting["epochs"]),
    )  # fmt: skip
    stage = Stage(id="warm", folder=folder, seed=seed, root=ROOT)
    paths = []
    for plan in member_plans(config, seed):
        paths.append(folder / MEMBERS / str(plan.member))
        train_member(config, plan, stage, probed[plan.member % len(probed)], train, paths[-1])
    return paths


def score_all(model: Path, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Return the rewards of sequences under the model in a folder."""
    return score_sequences(load_reward_model(model, "sdpa").eval(), sequences, BATCH)
