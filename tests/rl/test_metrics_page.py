"""docs/reference/metrics.md names every metric that the stages of reinforcement write, and no other."""

import copy
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import JsonLinesData, ReasoningGymData
from gemsmith.policy.config import PolicyConfig, SamplingConfig
from gemsmith.policy.head.logprobs import listed_logprobs
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.rewards.config import CodeReward, MathReward, PythonReward
from gemsmith.rl.stages.reinforcement import stage as reinforcement
from gemsmith.rl.stages.reinforcement.config import AlgorithmStage, BondStage, ReinforceStage
from gemsmith.rl.stages.reinforcement.stage import run as train
from gemsmith.rl.stages.warp.config import WarpStage
from gemsmith.rl.stages.warp.stage import run as warp

pytestmark = pytest.mark.usefixtures("shallow_tiny")
PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"
EVERY_STAGE = "## On every stage"
REWARD = "def even(completions, **columns):\n    return [sum(map(ord, c)) % 7 / 7 for c in completions]\n"
TESTS = {"function": "f", "calls": [[[1], 2], [[5], 10]]}
GIVEN: dict[str, Any] = {
    "data": "sums", "rewards": ["even"], "steps": 2, "batch": 2, "learning_rate": 1e-3, "sampling": {"max_tokens": 3}
}  # fmt: skip
CLASSIFIER = {"form": "bond", "quantile": "classifier"}
GRPO = {"baseline": "group_mean", "scale": "std", "kl_in": "loss", "updates": 2}
FINISHED = {"unfinished_penalty": 1.0, "kl_to": "anchor", "control": ["right"], "rewards": ["even", "gated"]}
TURNS = {"data": "programs", "rewards": ["solved"], "turns": 2, "max_length": 400}
ENGINE = {"sampler": {"backend": "vllm"}, "importance_cap": 2.0}
STAGES: dict[str, tuple[type[AlgorithmStage] | type[WarpStage], dict[str, Any]]] = {
    "J-BOND with an engine": (BondStage, ENGINE),
    "BOND with a classifier": (BondStage, CLASSIFIER),
    "RLOO": (ReinforceStage, FINISHED),
    "GRPO": (ReinforceStage, GRPO),
    "turns": (ReinforceStage, TURNS),
    "sampling in the background": (ReinforceStage, {**ENGINE, "overlap": True}),
    "WARP of J-BOND": (WarpStage, {}),
}


class Engine(TransformersSampler):
    """A sampler with its own copy of the weights that can sample in the background, like vLLM's engine."""

    same_weights = False

    def __init__(self, live: Policy, sampling: SamplingConfig, anchor: WeightSet | None) -> None:
        super().__init__(Policy(copy.deepcopy(live.model), live.tokenizer), sampling)
        self.live, self.theirs = live, anchor

    def sync(self) -> None:
        own, live = self.policy.model, self.live.model
        if self.theirs is not None:
            with self.theirs.applied():
                own.load_state_dict(live.state_dict())
            self.anchor = WeightSet(own)
        own.load_state_dict(live.state_dict())

    def score(self, prompts: list[list[int]], completions: list[list[int]], weights: str = "policy") -> Any:
        return [each.tolist() for each in listed_logprobs(self.policy.model, prompts, completions)]


@contextmanager
def engine(live: Policy, sampling: SamplingConfig, config: Any, say: Any, anchor: Any, overlap: bool) -> Iterator[Any]:
    yield Engine(live, sampling, anchor)


def stage_in(folder: Path) -> Stage:
    folder.mkdir()
    (folder / "even.py").write_text(REWARD)
    rows = [{"prompt": f"Write f {i}", "tests": TESTS} for i in range(8)]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "sums": ReasoningGymData(source="reasoning_gym", task="chain_sum", size=40),
        "programs": JsonLinesData(
            source="jsonl", path="tasks.jsonl", prompt="{prompt}", columns=["tests"], holdout=0.0
        ),
    }
    rewards = {
        "even": PythonReward(kind="python", target="even.py:even"),
        "gated": PythonReward(kind="python", target="even.py:even", gate="even", normalise="batch"),
        "right": MathReward(kind="math"),
        "solved": CodeReward(kind="code"),
    }
    return Stage("s", folder / "s", 0, root=folder, data=data, rewards=rewards)


def written(of_kind: type[AlgorithmStage] | type[WarpStage], fields: dict[str, Any], folder: Path) -> set[str]:
    """Run a stage for two steps and return the keys of its metrics.jsonl, with the page's placeholders for names."""
    stage, policy = stage_in(folder), PolicyConfig(model="tiny")
    given = {**GIVEN, **fields}
    if issubclass(of_kind, WarpStage):
        inner = BondAlgorithm.model_validate({"kind": "bond", **given, "steps": 1})
        warp(WarpStage(id="s", kind="warp", policy=policy, inner=inner, iterations=1), stage)
    else:
        (kind,) = get_args(of_kind.model_fields["kind"].annotation)
        train(of_kind.model_validate({"id": "s", "kind": kind, "policy": policy, **given}), stage)
    keys = {key for line in (stage.folder / "metrics.jsonl").read_text().splitlines() for key in json.loads(line)}
    named = {re.sub(r"^(reward|control)/[a-z]+", r"\1/NAME", key) for key in keys}
    return {re.sub(r"turn_\d+", "turn_K", key) for key in named}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Return the metrics that each stage wrote."""
    folder = tmp_path_factory.mktemp("metrics")
    keys = {}
    for place, (name, (of_kind, fields)) in enumerate(STAGES.items()):
        with pytest.MonkeyPatch.context() as patched:
            if "sampler" in fields:
                patched.setattr(reinforcement, "open_sampler", engine)
            keys[name] = written(of_kind, fields, folder / str(place))
    return keys


def on_the_page(text: str) -> set[str]:
    """Return the names in the first column of the tables."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall("`([^`]+)`", cell)}


def test_the_page_names_the_metrics_of_all_stages_and_no_other(found: dict[str, set[str]]) -> None:
    page = on_the_page(PAGE.read_text())
    everything = set().union(*found.values())
    assert everything - page == set(), "written by a stage, and not on the page"
    assert page - everything == set(), "on the page, and written by no stage"


def test_every_stage_writes_the_metrics_that_the_page_lists_for_every_stage(found: dict[str, set[str]]) -> None:
    common = on_the_page(PAGE.read_text().partition(EVERY_STAGE)[2].partition("\n## ")[0])
    assert len(common) > 20
    assert {stage: common - keys for stage, keys in found.items() if common - keys} == {}
