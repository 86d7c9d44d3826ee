"""Reward and KL of points of a WARP stage's final line, on held-out prompts (Rame et al. 2024, section 3).

Each point is measured once and saved in the stage's folder, so that an interrupted stage resumes at the next point.
"""

import gc
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.intervals import mean_interval
from gemsmith.contracts.processes import count, rank
from gemsmith.contracts.reading import log_rows, read_json
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.curation.example import Example
from gemsmith.curation.load import load_data
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.head.logprobs import sequence_logprobs
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Sampler, Samples
from gemsmith.policy.samplers.logprob_mismatch import check, check_completions, scored
from gemsmith.policy.samplers.open import open_sampler
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.policy.training.processes import from_all, wait_for_all
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.rollout_config import RolloutConfig
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rewards.reward import columns_of
from gemsmith.rl.rollouts.prompt_room import with_room
from gemsmith.rl.rollouts.rollout import share
from gemsmith.rl.stages.warp.config import WarpStage
from gemsmith.weights.merge import interpolate

KL_ESTIMATOR = "mean over completions of log policy(y) - log start(y), in nats (k1, sampled, as in training)"
FOLDER = "front"


@dataclass(frozen=True)
class Measured:
    """Measurements of one completion at one point; a value of `rewards` or `control` is None if it does not apply."""

    reward: float
    rewards: dict[str, float | None]
    control: dict[str, float | None]
    log_ratio: float
    length: int
    ended: bool


def held_out(config: WarpStage, stage: Stage) -> list[Example]:
    """Return the held-out prompts for the front, at most `front_prompts` chosen by the seed; empty without a front.

    Raises:
        UserError: the data holds out fewer than two prompts.
    """
    if not config.front:
        return []
    name = config.inner.data
    examples = load_data(stage.data[name], name=name, seed=stage.seed, root=stage.root).test
    if len(examples) < 2:
        raise UserError(
            f"stage {stage.id}: `front` needs at least 2 held-out prompts, but data.{name} holds out {len(examples)}: "
            "raise its `holdout`, or remove `front`."
        )
    chosen = np.random.default_rng(stage.seed).permutation(len(examples))[: config.front_prompts]
    return [examples[index] for index in sorted(chosen)]


def measure_front(
    config: WarpStage, stage: Stage, rewards: Rewards, examples: Sequence[Example], start: Path, end: Path
) -> dict[str, Any]:
    """Measure each point of `front` and return the `front` section of warp.json.

    Args:
        config: the stage's configuration.
        stage: its folder holds the points that are already measured.
        rewards: rewards of `inner`, open.
        examples: held-out prompts.
        start: folder of the policy at rate 0, the reference of the KL.
        end: folder of the policy at rate 1.
    """
    inner = config.inner
    alike = [run for run in range(config.runs) if config.run_config(0, run).rewards == inner.rewards]
    kept = {rate: stage.folder / FOLDER / f"{rate!r}.json" for rate in config.front}
    missing = [rate for rate in config.front if not kept[rate].is_file()]
    wait_for_all()  # every process must have listed the missing points before the first is written
    if missing:
        _measure(config, stage, rewards, examples, (start, end), {rate: kept[rate] for rate in missing})
    return {
        "kl_estimator": KL_ESTIMATOR,
        "points": [
            read_json(path, "a point of the front", "delete it, and run the same command again")
            for path in kept.values()
        ],
        "trajectory": trajectory(stage.metrics_file, alike) if rank() == 0 else [],
    }


def trajectory(metrics: Path, alike: Sequence[int]) -> list[dict[str, Any]]:
    """Return (KL to the start, reward) of each logged step of the first iteration's runs, on their training prompts.

    Includes only the runs in `alike`, whose rewards are those of the front. Runs of later iterations are left out,
    because their KL is to another start.
    """
    runs: dict[int, list[list[float]]] = {}
    for row in log_rows(metrics):
        if row.get("iteration") == 0 and row["run"] in alike and "reward" in row and "kl_to_initial" in row:
            runs.setdefault(row["run"], []).append([row["kl_to_initial"], row["reward"]])
    return [{"run": run, "points": points} for run, points in sorted(runs.items())]


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean of n >= 1 independent values and its 95% interval."""
    found = mean_interval(values, range(len(values)))
    return {"low": found.low, "mean": found.mean, "high": found.high}


def summarise(rate: float, measured: Sequence[Measured]) -> dict[str, Any]:
    """Return one point of the front from the measurements of one completion per prompt."""

    def each(tables: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
        known = {name: [table[name] for table in tables] for name in tables[0]}
        applicable = {name: [value for value in values if value is not None] for name, values in known.items()}
        return {name: interval(values) for name, values in applicable.items() if values}

    return {
        "rate": rate,
        "prompts": len(measured),
        "reward": interval([sample.reward for sample in measured]),
        "rewards": each([sample.rewards for sample in measured]),
        "control": each([sample.control for sample in measured]),
        "kl": interval([sample.log_ratio for sample in measured]),
        "length": interval([float(sample.length) for sample in measured]),
        "ended": sum(sample.ended for sample in measured) / len(measured),
    }


def _measure(
    config: WarpStage,
    stage: Stage,
    rewards: Rewards,
    examples: Sequence[Example],
    ends: tuple[Path, Path],
    missing: Mapping[float, Path],
) -> None:
    """Sample and score completions at each missing point and save the result; prompts are split over processes."""
    inner = config.inner
    live = _load(config, stage, ends[0])
    initial = WeightSet(live.model)
    fitting = _fitting(config, stage, live, examples)
    mine = share(len(fitting), count())
    done = len(config.front) - len(missing)
    with (
        open_rewards(inner.control, stage) as control,
        open_sampler(live, inner.sampling, inner.sampler, stage.say) as sampler,
    ):
        for rate, path in missing.items():
            folder = _point(stage, ends, rate)
            live.model.load_state_dict(_load(config, stage, folder).model.state_dict())
            gc.collect()
            sampler.sync()
            judges = rewards, control
            own = _answers(inner, stage, live, initial, sampler, judges, fitting[mine], mine.start)
            measured = [sample for each in from_all(own) for sample in each]
            point = summarise(rate, measured)
            if rank() == 0:
                write_atomically(path, json.dumps(point, indent=1) + "\n")
                if folder not in ends:
                    shutil.rmtree(folder, ignore_errors=True)
            done += 1
            stage.progress(done, len(config.front), "point", rate=rate, reward=point["reward"]["mean"])
            wait_for_all()


def _fitting(config: WarpStage, stage: Stage, live: Policy, examples: Sequence[Example]) -> list[Example]:
    """Return the examples whose prompts leave `max_tokens` for a completion, as in training."""
    return with_room(
        examples,
        lambda example: len(prompt_ids(live.tokenizer, example.messages)),
        data=config.inner.data,
        max_length=config.inner.max_length,
        max_tokens=config.inner.sampling.max_tokens,
        say=stage.say,
        whose="held-out prompt",
    )


def _load(config: WarpStage, stage: Stage, folder: Path) -> Policy:
    assert config.policy is not None
    source: PolicyConfig = config.policy.model_copy(update={"model": None, "from_": "point", "liti": None})
    return load_policy(source, {"point": folder}, stage.root, tokens=config.inner.stated_length)


def _point(stage: Stage, ends: tuple[Path, Path], rate: float) -> Path:
    """Return the folder of one point; points between the ends are written temporarily, by the first process."""
    if rate in (0.0, 1.0):
        return ends[int(rate)]
    folder = stage.folder / FOLDER / repr(rate)
    if rank() == 0 and not folder.exists():
        interpolate(*ends, rate, folder)
    wait_for_all()
    return folder


def _answers(
    inner: RolloutConfig,
    stage: Stage,
    live: Policy,
    initial: WeightSet,
    sampler: Sampler,
    judges: tuple[Rewards, Rewards],
    examples: Sequence[Example],
    before: int,
) -> list[Measured]:
    """Sample and score one completion per prompt; all points use one seed, so that only their weights differ.

    `before` is the offset of these prompts among all of them: a prompt's completion does not depend on the number of
    processes.
    """
    if not examples:
        return []
    prompts = [prompt_ids(live.tokenizer, example.messages) for example in examples]
    samples = sampler.sample(prompts, 1, stage.seed, before=before)
    logprobs = _logprobs(inner, stage, live, sampler, prompts, samples)
    batch, heat = inner.micro_batch or inner.batch, inner.sampling.temperature
    with initial.applied():
        initial_logprobs = sequence_logprobs(live.model, prompts, samples.ids, heat, batch).tolist()
    columns = columns_of(examples, samples.finish, samples.ids)
    asked = [example.prompt for example in examples]
    table, control = (rewards.score(asked, samples.text, columns) for rewards in judges)
    return [
        Measured(
            reward=table.total[index],
            rewards={name: values[index] for name, values in table.each.items()},
            control={name: values[index] for name, values in control.each.items()},
            log_ratio=logprobs[index] - initial_logprobs[index],
            length=len(samples.ids[index]),
            ended=samples.finish[index] == "stop",
        )
        for index in range(len(examples))
    ]


def _logprobs(
    inner: RolloutConfig,
    stage: Stage,
    live: Policy,
    sampler: Sampler,
    prompts: list[list[int]],
    samples: Samples,
) -> list[float]:
    """Return each completion's log-probability under the live weights, and check the sampler's against it."""
    check_completions(samples, live, inner.sampling)
    batch = inner.micro_batch or inner.batch
    if sampler.same_weights:
        return sequence_logprobs(live.model, prompts, samples.ids, inner.sampling.temperature, batch).tolist()
    comparison = scored(live, prompts, samples, inner.sampling, batch)
    if (warning := check(comparison.gap, inner.sampler)) and rank() == 0:
        stage.say(warning)
    return comparison.logprob_S.tolist()
