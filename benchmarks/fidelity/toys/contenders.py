"""Ways to train a tiny policy, held against one another at an equal number of completions: TRL's and ours.

A contender learns from `prompts` times `samples` completions a step for `steps` steps: those of J-BOND's anchor count,
and WARP's two runs have half of the steps each.
"""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from benchmarks.fidelity.claim import Curve, Setting
from benchmarks.fidelity.kept import shared_folder
from benchmarks.fidelity.toys.rival_trainers import RIVALS, train_rival
from benchmarks.fidelity.toys.tiny_policies import policy_config
from benchmarks.fidelity.toys.trajectory import GoldReward, Point, Ruler, start_of, train
from gemsmith.policy.loading.load import load_policy
from gemsmith.rl.rewards.reward import Columns, Reward
from gemsmith.weights.merge import interpolate, slerp

LINE = (0.3, 0.45, 0.6, 0.8, 1.0, 1.3)  # rates of WARP's line that are measured; the paper goes to 2
NAMES = ("gemsmith.rl.algorithms.bond", "gemsmith.rl.algorithms.reinforce")
READ = ("sft_steps", "prompts", "samples", "steps", "points", "asked")


@dataclass(frozen=True)
class Contest:
    """Result of a contender.

    Attributes:
        points: policies along its training, the initial one first; for WARP, policies of its line.
        seconds: seconds of one core up to each point, without loading, saving and measuring. A step's is the median
            time between two calls of the reward function; WARP's points all take both runs and the merge.
        first: mean reward of the first step's completions, which are the initial policy's.
    """

    points: list[Point]
    seconds: list[float]
    first: float

    @property
    def front(self) -> Curve:
        """(KL, reward)."""
        return [(point.kl, point.reward) for point in self.points]

    @property
    def over_time(self) -> Curve:
        """(seconds, reward); of what takes equally long, the best."""
        best: dict[float, float] = {}
        for seconds, point in zip(self.seconds, self.points, strict=True):
            best[seconds] = max(point.reward, best.get(seconds, point.reward))
        return sorted(best.items())


@dataclass
class Clocked:
    """A reward that notes when it was asked, which trainers do once a step, and the mean reward that it gave."""

    reward: Reward
    asked: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)

    def score(self, asked: list[str], completions: list[str], columns: Columns) -> list[float | None]:
        """Return the rewards."""
        self.asked.append(time.process_time())
        rewards = self.reward.score(asked, completions, columns)
        self.means.append(fmean(reward for reward in rewards if reward is not None))
        return rewards

    def close(self) -> None:
        """Nothing to close."""

    @property
    def step(self) -> float:
        """Seconds of a core that a step takes."""
        return median(later - earlier for earlier, later in pairwise(self.asked))


def contest(kind: str, options: Mapping[str, Any], setting: Setting, seed: int) -> Contest:
    """Train a contender and measure it; done once for each setting, seed and code.

    Args:
        kind: `grpo`, `rloo`, `reinforce`, `bond`, or `warp`, whose options are `reinforce`'s.
        options: fields of its configuration.
        setting: as READ names it; a contender is given no more.
        seed: of the start, the prompts, their order and the samples.
    """
    read = {name: setting[name] for name in READ}
    given = {**read, "kind": kind, "options": dict(options), "learning_rate": options["learning_rate"]}
    folder = shared_folder("contest", _make_contest, given, seed, names=NAMES)
    kept = json.loads((folder / "contest.json").read_text())
    return Contest([Point(**point) for point in kept["points"]], kept["seconds"], kept["first"])


def steps_kept(setting: Setting) -> list[int]:
    """Return the steps whose policies are measured: denser at first, where the KL rises from 0."""
    count = setting["points"]
    return sorted({max(1, round(setting["steps"] * (part / count) ** 1.5)) for part in range(1, count + 1)})


def _make_contest(folder: Path, setting: Setting, seed: int) -> None:
    start, threads = start_of(setting, seed), torch.get_num_threads()
    ruler, run = Ruler(start, setting, seed), folder / "run"
    reward = Clocked(GoldReward(seed, ruler))
    torch.set_num_threads(1)  # seconds are those of one core
    try:
        if setting["kind"] == "warp":
            found = _warp(setting, start, seed, run, ruler, reward)
        else:
            kept = _trained(setting, start, seed, run, ruler, reward)
            found = Contest([_measured(ruler, start, 0)], [0.0], reward.means[0])
            for step, policy in kept.items():
                found.points.append(_measured(ruler, policy, step))
                found.seconds.append(step * reward.step)
    finally:
        torch.set_num_threads(threads)
    shutil.rmtree(run)
    (folder / "contest.json").write_text(json.dumps(asdict(found)))


def _trained(setting: Setting, start: Path, seed: int, folder: Path, ruler: Ruler, reward: Clocked) -> dict[int, Path]:
    kind, options, keep = setting["kind"], setting["options"], steps_kept(setting)
    if kind in RIVALS:
        return train_rival(kind, start, options, setting, seed, folder, keep, reward)
    return train(start, kind, shared_out(kind, setting) | options, setting, seed, folder, keep, ruler, reward)


def shared_out(kind: str, setting: Setting) -> dict[str, Any]:
    """Fields that give a stage of ours the completions of a step: J-BOND draws three for each prompt."""
    if kind == "bond":
        return {"batch": setting["prompts"] * setting["samples"] // 3}
    return {"samples": setting["samples"]}


def _warp(setting: Setting, start: Path, seed: int, folder: Path, ruler: Ruler, reward: Clocked) -> Contest:
    """Two runs of REINFORCE with half of the steps, their merge, and policies of the line from the start to it."""
    steps, runs = setting["steps"] // 2, []
    inner = {**setting, "steps": steps}
    fields = {"samples": setting["samples"], "kl_to": "anchor", **setting["options"]}
    for number in range(2):
        place = folder / f"run-{number}"
        kept = train(start, "reinforce", fields, inner, seed, place, [steps], ruler, reward, run_seed=1 + number)
        runs.append(kept[steps])
    begun = time.process_time()
    slerp(start, runs, folder / "merged")
    seconds = 2 * steps * reward.step + time.process_time() - begun
    points = []
    for rate in LINE:
        interpolate(start, folder / "merged", rate, folder / f"point-{rate}")
        points.append(_measured(ruler, folder / f"point-{rate}", 2 * steps))
    return Contest([_measured(ruler, start, 0), *points], [0.0, *(seconds for _ in points)], reward.means[0])


def _measured(ruler: Ruler, policy: Path, step: int) -> Point:
    return ruler.point(load_policy(policy_config(str(policy))), step)
