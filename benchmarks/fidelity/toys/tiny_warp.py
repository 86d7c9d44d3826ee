"""WARP of tiny Gemma 3 policies by the project's own stage: members, merges, lines, iterations, and what they score."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.fidelity.claim import Curve, Setting
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.kept import shared_folder
from benchmarks.fidelity.toys import trajectory
from benchmarks.fidelity.toys.tiny_policies import ROOM, policy_config
from benchmarks.fidelity.toys.trajectory import Point, Ruler, start_of
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import JsonLinesData
from gemsmith.policy.loading.load import load_policy
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.stages.reinforcement.stage import train_policy, training_prompts
from gemsmith.rl.stages.warp.config import WarpStage
from gemsmith.rl.stages.warp.stage import run as run_warp
from gemsmith.weights.merge import Along, GroupMerge, interpolate, slerp

GOLD = "benchmarks.fidelity.toys.gold:Gold"
NAMES = ("gemsmith.rl.algorithms.reinforce", "gemsmith.rl.rewards.plugins.plugin", "gemsmith.rl.rewards.plugins.worker")
# Chosen by a pilot on seed 99, which is not among the seeds that are reported.
SETTING: Setting = {
    "sft_steps": 90,
    "prompts": 4,  # a step, two completions each
    "learning_rate": 3e-4,
    "steps": 60,
    "kl": 0.5,
    "anchor_rate": 0.05,
    "runs": 4,
    "kept": (8, 12, 16, 20, 30, 40, 50),  # steps of each run that are measured, beside the last; KL rises fast early
    "rates": (0.2, 0.4, 0.6, 0.8, 1.0),  # points of each line that are measured
    "asked": 384,  # prompts that policies are measured on, four completions each
}
QUICK: Setting = {"sft_steps": 12, "prompts": 2, "steps": 4, "kept": (3,), "rates": (0.5, 1.0), "asked": 8}


def warp_config(setting: Setting, **options: object) -> WarpStage:
    """Return the stage's configuration: REINFORCE with the KL to an EMA anchor inside, as in the paper."""
    inner = {
        "kind": "reinforce", "data": "toy", "rewards": ["gold"], "samples": 2, "kl_to": "anchor", "kl": setting["kl"],
        "anchor_rate": setting["anchor_rate"], "steps": setting["steps"], "batch": setting["prompts"],
        "learning_rate": setting["learning_rate"], "schedule": "constant", "warmup": 5, "save_every": setting["steps"],
        "sampling": {"max_tokens": ROOM},
    }  # fmt: skip
    policy = {"from": "sft", "attention": "sdpa"}
    return WarpStage.model_validate({"id": "warp", "kind": "warp", "policy": policy, "inner": inner, **options})


def stage_in(folder: Path, setting: Setting, seed: int, ruler: Ruler) -> Stage:
    """Return a stage whose reward is gold in standard deviations of the initial policy, on prompts not used for
    measuring.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "prompts.jsonl"
    data.write_text("".join(f"{json.dumps({'prompt': each})}\n" for each in trajectory.learnt(setting, seed)))
    reward = PythonReward(kind="python", target=GOLD, options={"seed": seed}, weight=1 / ruler.unit)
    section = JsonLinesData(source="jsonl", path=str(data), holdout=0)
    start = {"sft": start_of(setting, seed)}
    return Stage("warp", folder, seed, ROOT, inputs=start, data={"toy": section}, rewards={"gold": reward})


def members(setting: Setting, seed: int) -> Path:
    """Return a folder with `run-0` to `run-3`, as the stage trains them; each has `final`, and `kept/STEP` of its
    training.
    """
    read = {name: setting[name] for name in SETTING}
    return shared_folder("warp-members", _train_members, read, seed, names=NAMES)


def _train_members(folder: Path, setting: Setting, seed: int) -> None:
    """Train like `gemsmith.rl.stages.warp.run.train_run`, but keep intermediate policies."""
    start, ruler = start_of(setting, seed), Ruler(start_of(setting, seed), setting, seed)
    config = warp_config(setting).inner
    for number in range(setting["runs"]):
        stage = stage_in(folder / f"run-{number}", setting, seed, ruler)
        policy = load_policy(policy_config(str(start)))
        examples = training_prompts(config, policy, stage)
        with open_rewards(config.rewards, stage) as rewards:
            train_policy(
                policy, config, stage, rewards, examples, stage.folder / "checkpoints", stage.folder / "final",
                run_seed=1 + number, kept=setting["kept"],
            )  # fmt: skip


@dataclass(frozen=True)
class Merge:
    """A merge, its task vectors' angles and norms by layer, and the line to it from where its runs began.

    Attributes:
        angles: mean angle of each layer, embeddings and norms left out, in degrees.
        ratios: norm of the first task vector over that of the second, of each layer.
        line: points at the rates of the setting; only its end for LERP.
    """

    angles: list[float]
    ratios: list[float]
    line: list[Point]


@dataclass(frozen=True)
class Fronts:
    """Results of the members of one seed.

    Attributes:
        ways: points of each run from the initial policy to its last.
        lines: points of the line to the end of each run.
        merges: by name, such as "slerp 2": of each group of that many runs, one after the other.
        weights_angle: angle between the whole weights of two runs, in degrees; mean over the pairs.
    """

    ways: list[list[Point]]
    lines: list[list[Point]]
    merges: dict[str, list[Merge]]
    weights_angle: float


def fronts_of(setting: Setting, seed: int) -> Fronts:
    """Measure members, merges of two and of four, and their lines; once for all claims that ask for it."""
    read = {name: setting[name] for name in SETTING}
    folder = shared_folder("warp-fronts", _measure_fronts, read, seed, names=NAMES)
    kept = json.loads((folder / "fronts.json").read_text())

    def points(rows: list[dict[str, float]]) -> list[Point]:
        return [Point(**row) for row in rows]  # type: ignore[arg-type]

    merges = {
        name: [Merge(each["angles"], each["ratios"], points(each["line"])) for each in found]
        for name, found in kept["merges"].items()
    }
    ways, lines = [points(way) for way in kept["ways"]], [points(line) for line in kept["lines"]]
    return Fronts(ways, lines, merges, kept["weights_angle"])


def _measure_fronts(folder: Path, setting: Setting, seed: int) -> None:
    start, made = start_of(setting, seed), members(setting, seed)
    ruler, count = Ruler(start, setting, seed), setting["runs"]
    runs = [made / f"run-{number}" for number in range(count)]
    initial = point_of(ruler, start, 0)
    ways = [[initial, *(point_of(ruler, run / "kept" / str(step), step) for step in setting["kept"])] for run in runs]
    lines = [line(ruler, start, run / "final", folder / "point", setting["rates"]) for run in runs]
    ways = [[*way, Point(setting["steps"], ends[-1].reward, ends[-1].kl, ends[-1].length)]
            for way, ends in zip(ways, lines, strict=True)]  # fmt: skip
    merges: dict[str, list[Merge]] = {}
    for size in (2, count):
        for along in ("slerp", "lerp"):
            rates = setting["rates"] if along == "slerp" else (1.0,)
            groups = [[run / "final" for run in runs[first : first + size]] for first in range(0, count, size)]
            merges[f"{along} {size}"] = [
                merge(ruler, start, finals, folder / "merged", along, rates) for finals in groups
            ]
    angle = angle_of_weights([run / "final" for run in runs])
    content = {"ways": ways, "lines": lines, "merges": merges, "weights_angle": angle}
    (folder / "fronts.json").write_text(json.dumps(content, default=asdict))


def merge(ruler: Ruler, start: Path, finals: Sequence[Path], out: Path, along: Along, rates: Sequence[float]) -> Merge:
    """Merge and measure; `out` is written and removed again."""
    groups = layers(slerp(start, finals, out, "layer", along))
    found = line(ruler, start, out, out.with_name("point"), rates)
    shutil.rmtree(out)
    angles = [fmean(angle for angle in group.angles if angle is not None) for group in groups]
    return Merge(angles, [group.norm_ratio or 0.0 for group in groups], found)


def layers(groups: Sequence[GroupMerge]) -> list[GroupMerge]:
    """Those of the model's layers, without embeddings and the last norm."""
    return [group for group in groups if ".layers." in group.group]


def angle_of_weights(folders: Sequence[Path]) -> float:
    """Mean angle between the whole weights of two policies, in degrees."""
    flat = [
        torch.cat(
            [weight.detach().double().flatten() for weight in load_policy(policy_config(str(each))).model.parameters()]
        )
        for each in folders
    ]
    cosines = [torch.cosine_similarity(a, b, dim=0).clamp(-1, 1) for a, b in combinations(flat, 2)]
    return fmean(math.degrees(math.acos(float(cosine))) for cosine in cosines)


def line(ruler: Ruler, start: Path, end: Path, out: Path, rates: Sequence[float]) -> list[Point]:
    """Points at `rates` from the start to the end; their step is the rate in percent."""
    found = []
    for rate in rates:
        shutil.rmtree(out, ignore_errors=True)
        if rate < 1:
            interpolate(start, end, rate, out)
        found.append(point_of(ruler, out if rate < 1 else end, round(100 * rate)))
    shutil.rmtree(out, ignore_errors=True)
    return found


def point_of(ruler: Ruler, folder: Path, step: int) -> Point:
    """Score the policy in a folder."""
    return ruler.point(load_policy(policy_config(str(folder))), step)


def iterated(setting: Setting, seed: int, iterations: int, folder: Path) -> list[Path]:
    """Return the last merge of the stage with M = 2 and each number of iterations, made by the stage itself.

    It finds the runs of the first iteration trained, as after an interruption, and those of earlier iterations in the
    stage with fewer.

    Args:
        setting: as SETTING, and `liti`.
        seed: seed of the trial.
        iterations: the largest number.
        folder: folder of the stages.
    """
    ruler, made, merges = Ruler(start_of(setting, seed), setting, seed), members(setting, seed), []
    for count in range(1, iterations + 1):
        stage = stage_in(folder / f"warp-{count}", setting, seed, ruler)
        for number in range(2):
            shutil.copytree(made / f"run-{number}/final", stage.folder / f"iteration-0/run-{number}/final")
        for earlier in range(1, count - 1):
            name = f"iteration-{earlier}"
            shutil.copytree(folder / f"warp-{earlier + 1}" / name, stage.folder / name)
        run_warp(warp_config(setting, runs=2, iterations=count, liti=setting["liti"]), stage)
        merges.append(stage.folder / f"iteration-{count - 1}" / "merged")
    return merges


def mean_curve(lines: Sequence[Sequence[Point]]) -> Curve:
    """(KL, reward), both means over lines at the same step or rate."""
    return [(fmean(p.kl for p in each), fmean(p.reward for p in each)) for each in zip(*lines, strict=True)]
