"""WARM: weight-averaged reward models (Rame et al. 2024, arXiv 2401.12187).

A head is fitted on frozen features. M members start from it and differ in learning rate, dropout, data order and,
optionally, in the step of the SFT run that their layers come from (Baklava). The best members are averaged in weight
space; the average is the stage's output. A resumed stage skips the parts that its folder already contains:

    probe/             initial policy's layers with the shared head
    members/<m>/       finished members
    held_out/          rewards of the members, the probe and the average on both sides of the held-out pairs
"""

import gc
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoConfig

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import reading
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.curation.load import load_data
from gemsmith.policy.config import EngineConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.training.engine import remove_checkpoints
from gemsmith.reward_models.config import WarmStage
from gemsmith.reward_models.ensemble import MEMBERS, SUMMARY
from gemsmith.reward_models.member import (
    MemberPlan,
    attention_of,
    checkpoints_of,
    member_plans,
    start_folder,
    train_member,
)
from gemsmith.reward_models.model import from_policy, load_reward_model, load_tokenizer, save_reward_model
from gemsmith.reward_models.pairs import Pair, PairSplit, both_sides, split_pairs
from gemsmith.reward_models.parallel_members import train_members
from gemsmith.reward_models.probe import fit_head
from gemsmith.reward_models.quality import Quality, Rewards, quality
from gemsmith.reward_models.scorer import last_features, score_sequences
from gemsmith.weights.merge import average, interpolate

RATES = (0.25, 0.5, 0.75)  # interpolation rates between the two best members


def run(config: WarmStage, stage: Stage) -> None:
    """Fit the head, train the members, average the best into `stage.output`, and evaluate all on held-out prompts."""
    processes = PartialState(cpu=not torch.cuda.is_available())
    first = processes.main_process_first
    engine = stage.engine or EngineConfig()
    if fault := config.parallel_fault(processes.num_processes, deepspeed=engine.deepspeed is not None):
        raise UserError(fault)
    for step in config.starts:  # raise for a missing start before any computation
        start_folder(config, stage, step)
    probed, split = _probed(config, stage, first)
    for reason, count in split.dropped.items():
        stage.say(f"data.{config.data}: dropped {count} preference pairs: {reason}")
    plans, rewards = member_plans(config, stage.seed), {}
    if config.parallel > 1:
        left = [plan for plan in plans if not _folder(stage, plan).exists()]
        train_members(config, left, stage, probed, split.train, lambda plan: _folder(stage, plan))
    for plan in plans:
        folder = _folder(stage, plan)
        if not folder.exists():
            train_member(config, plan, stage, probed, split.train, folder)
            gc.collect()
        remove_checkpoints(checkpoints_of(folder))  # left by a kill just after the member was written
        rewards[plan.member] = _rewards(config, stage, folder, f"member {plan.member}", split, first)
    selecting, reporting = halves(split.held_out, separate=config.selects)
    chosen = {member: _quality(rewards[member], split, selecting) for member in rewards}
    qualities = {member: _quality(rewards[member], split, reporting) for member in rewards}
    accuracies = {member: chosen[member].accuracy.mean for member in chosen}
    kept = best_members(accuracies, config.keep)
    with first():
        if not stage.output.exists():
            average([stage.folder / MEMBERS / str(member) for member in kept], stage.output)
    of_average = _rewards(config, stage, stage.output, "average", split, first)
    of_probe = _rewards(config, stage, probed, "probe", split, first)
    best = best_members(accuracies, 2)
    connectivity = (
        _connectivity(config, stage, best, qualities, split, reporting, first) if config.connectivity else None
    )
    if processes.is_main_process:
        ensemble = _quality(_mean([rewards[member] for member in kept]), split, reporting)
        stage.say(f"ensemble (mean score of {len(kept)} members): {ensemble}")
        summary = {
            "members": [
                {
                    **asdict(plan),
                    **asdict(qualities[plan.member]),
                    "selected_by": accuracies[plan.member],
                    "kept": plan.member in kept,
                }
                for plan in plans
            ],
            "kept": kept,
            "average": asdict(_quality(of_average, split, reporting)),
            "ensemble": asdict(ensemble),
            "probe": asdict(_quality(of_probe, split, reporting)),
            "connectivity": connectivity,
            "pairs": {
                "train": len(split.train),
                "held_out": len(split.held_out),
                "selected_on": len(selecting),
                "reported_on": len(reporting),
                "dropped": split.dropped,
            },
        }
        write_atomically(stage.output / SUMMARY, json.dumps(summary, indent=1) + "\n")
    processes.wait_for_everyone()


def best_members(accuracies: dict[int, float], keep: int | None) -> list[int]:
    """Return the `keep` most accurate members (None: all), best first; the lower number first among equals."""
    return sorted(accuracies, key=lambda member: (-accuracies[member], member))[:keep]


def halves(pairs: Sequence[Pair], *, separate: bool) -> tuple[list[int], list[int]]:
    """Return the numbers of the pairs that members are selected on, and of those that are reported.

    A number that was selected for being high is too high on the pairs that it was selected on. If `separate`, every
    second prompt serves for the one and the rest for the other; otherwise, or with a single prompt, all serve for both.
    """
    number = {prompt: index for index, prompt in enumerate(dict.fromkeys(pair.prompt for pair in pairs))}
    every = list(range(len(pairs)))
    if not separate or len(number) < 2:
        return every, every
    of_first = [number[pair.prompt] % 2 == 0 for pair in pairs]
    return [i for i in every if of_first[i]], [i for i in every if not of_first[i]]


def _quality(rewards: Rewards, split: PairSplit, chosen: Sequence[int]) -> Quality:
    """Return the metrics of some of the held-out pairs."""
    return quality([rewards[i] for i in chosen], [split.held_out[i] for i in chosen])


def _probed(config: WarmStage, stage: Stage, first: Callable[..., Any]) -> tuple[Path, PairSplit]:
    """Return the folder of the model with the shared head, fitted unless it exists, and the tokenised pairs."""
    folder = stage.folder / "probe"
    with first():
        if folder.exists():
            with reading(folder, "the model that this stage probed", "delete it, and run the same command again"):
                context = int(AutoConfig.from_pretrained(folder).max_position_embeddings)
            return folder, _split(config, stage, load_tokenizer(folder), context)
        assert config.policy is not None
        policy = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed, tokens=config.stated_length)
        split = _split(config, stage, policy.tokenizer, policy.model.config.max_position_embeddings)
        model = from_policy(policy).eval()
        pairs = _probe_pairs(split.train, config, stage.seed)
        stage.say(f"probing the head on {len(pairs)} pairs")
        features = last_features(model, both_sides(pairs), _batch(config))
        head = fit_head(features[0::2] - features[1::2])
        with torch.no_grad():
            model.score.weight.copy_(head[None])
        save_reward_model(model, policy.tokenizer, folder)
        return folder, split


def _split(config: WarmStage, stage: Stage, tokenizer: Any, context: int) -> PairSplit:
    data = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)
    return split_pairs(
        data.train,
        tokenizer,
        name=config.data,
        max_length=min(config.max_length, context),  # a default max_length may exceed the model's context
        share=config.holdout,
        limit=config.holdout_limit,
        seed=stage.seed,
        margin=config.margin,
    )


def _probe_pairs(pairs: list[Pair], config: WarmStage, seed: int) -> list[Pair]:
    """Choose `probe_steps` batches of pairs, because computing the features of all can cost more than a member."""
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    return [pairs[i] for i in order[: config.probe_steps * config.batch].tolist()]


def _rewards(
    config: WarmStage, stage: Stage, folder: Path, name: str, split: PairSplit, first: Callable[..., Any]
) -> Rewards:
    """Return the rewards of both completions of each held-out pair; they are computed once and kept in a file."""
    path = _held_out(stage, name)
    with first():
        if path.exists():
            with reading(path, "the rewards of held-out pairs", "delete it, and run the same command again"):
                return [(float(chosen), float(rejected)) for chosen, rejected in json.loads(path.read_text())]
        model = load_reward_model(folder, attention_of(config)).eval()
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        each = score_sequences(model, both_sides(split.held_out), _batch(config))
        rewards = list(zip(each[0::2], each[1::2], strict=True))
        found = quality(rewards, split.held_out)
        stage.say(f"{name}: {found}")
        stage.log({"held_out_accuracy": found.accuracy.mean}, config.steps, model=name)
        write_atomically(path, json.dumps(rewards))
        return rewards


def _connectivity(
    config: WarmStage,
    stage: Stage,
    ends: list[int],
    qualities: Mapping[int, Quality],
    split: PairSplit,
    reporting: Sequence[int],
    first: Callable[..., Any],
) -> dict[str, Any]:
    """Compare the accuracy of interpolated weights with interpolated accuracies (Observation 1 of the paper).

    The weights are (1 - rate) * best + rate * second best member, which are `ends`. Only one interpolated model is on
    disk at a time.
    """
    start, end = (stage.folder / MEMBERS / str(member) for member in ends)
    points = []
    for rate in RATES:
        name, folder = f"between members at {rate:g}", stage.folder / "between" / f"{rate:g}"
        with first():
            if not (_held_out(stage, name).exists() or folder.exists()):
                interpolate(start, end, rate, folder)
        found = _quality(_rewards(config, stage, folder, name, split, first), split, reporting).accuracy
        with first():
            shutil.rmtree(folder, ignore_errors=True)
        line = (1 - rate) * qualities[ends[0]].accuracy.mean + rate * qualities[ends[1]].accuracy.mean
        points.append({"rate": rate, "accuracy": asdict(found), "line": line})
    return {"members": ends, "points": points}


def _folder(stage: Stage, plan: MemberPlan) -> Path:
    return stage.folder / MEMBERS / str(plan.member)


def _held_out(stage: Stage, name: str) -> Path:
    return stage.folder / "held_out" / f"{name.replace(' ', '-')}.json"


def _mean(of_members: Sequence[Rewards]) -> Rewards:
    """Return the mean of the members' rewards, separately for chosen and rejected completions."""
    return [
        (fmean(chosen), fmean(rejected))
        for chosen, rejected in (zip(*sides, strict=True) for sides in zip(*of_members, strict=True))
    ]


def _batch(config: WarmStage) -> int:
    """Return the number of sequences per forward pass: both sides of a micro-batch of pairs."""
    return 2 * (config.micro_batch or config.batch)
