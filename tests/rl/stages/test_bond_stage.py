"""The bond stage: movement of the anchor, the classifier, and interrupted runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gemsmith.contracts.stage import Silence, Stage
from gemsmith.curation.config import ReasoningGymData
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.loading.load import load_policy
from gemsmith.rl.algorithms.algorithm import Draw, Rollouts
from gemsmith.rl.algorithms.quantile_classifier import QuantileClassifier
from gemsmith.rl.rewards.config import PythonReward
from gemsmith.rl.stages.reinforcement.config import BondStage
from gemsmith.rl.stages.reinforcement.stage import run

REWARD = "def even(completions, **columns):\n    return [sum(map(ord, c)) % 7 / 7 for c in completions]\n"
LORA = {"rank": 2, "alpha": 4}


def stated(**fields: Any) -> BondStage:
    given = {"id": "s", "kind": "bond", "policy": PolicyConfig(model="tiny"), "data": "sums", "rewards": ["even"]}
    given |= {"steps": 4, "batch": 4, "learning_rate": 1e-3, "sampling": {"max_tokens": 3}, "save_every": 1}
    return BondStage.model_validate(given | fields)


def stage_in(folder: Path, sink: Any = None) -> Stage:
    folder.mkdir(exist_ok=True)
    (folder / "even.py").write_text(REWARD)
    data = ReasoningGymData.model_validate({"source": "reasoning_gym", "task": "chain_sum", "size": 40})
    rewards = {"even": PythonReward(kind="python", target="even.py:even")}
    return Stage("s", folder / "s", 0, root=folder, data={"sums": data}, rewards=rewards, sink=sink or Silence())


class Stopper(Silence):
    """A sink that interrupts the run after a number of steps and records the anchors of the checkpoints."""

    def __init__(self, folder: Path, after: int = 0) -> None:
        self.folder, self.left = folder, after
        self.anchors: dict[int, dict[str, torch.Tensor]] = {}

    def progress(self, done: int, total: int, unit: str, shown: Any) -> None:
        for file in self.folder.glob("s/checkpoints/checkpoint-*/anchor.safetensors"):
            self.anchors.setdefault(int(file.parent.name.rsplit("-", 1)[1]), load_file(file))
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def rows_of(stage: Stage) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (stage.folder / "metrics.jsonl").read_text().splitlines()]
    times = ("_seconds", "_per_second")
    return [{name: value for name, value in row.items() if not name.endswith(times)} for row in rows]


@pytest.mark.parametrize(
    "fields",
    [
        {"form": "bond", "n": 3, "quantile_samples": 4, "anchor": "periodic", "anchor_every": 3},
        {"form": "bond", "quantile": "classifier", "quantile_learning_rate": 1e-2, "anchor": "fixed"},
    ],
)
def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(fields: dict[str, Any], tmp_path: Path) -> None:
    config = stated(save_every=2, **fields)
    whole, stopped = stage_in(tmp_path / "whole"), tmp_path / "stopped"
    run(config, whole)
    with pytest.raises(KeyboardInterrupt):
        run(config, stage_in(stopped, Stopper(stopped, 3)))
    assert not (stopped / "s/output").exists()
    again = stage_in(stopped)
    run(config, again)
    assert (whole.output / "model.safetensors").read_bytes() == (again.output / "model.safetensors").read_bytes()
    assert rows_of(whole) == rows_of(again) and len(rows_of(whole)) == 4


@pytest.mark.parametrize(
    ("fields", "moves"),
    [({"anchor": "periodic", "anchor_every": 2}, [2]), ({"anchor": "fixed"}, [])],
)
def test_checkpoints_hold_an_anchor_that_moves_at_its_own_pace(
    fields: dict[str, Any], moves: list[int], tmp_path: Path
) -> None:
    watched = Stopper(tmp_path)
    stage = stage_in(tmp_path, watched)
    run(stated(form="bond", beta=0, gamma=1.0, **fields), stage)
    name = "model.layers.0.self_attn.q_proj.weight"
    anchors = [load_policy(PolicyConfig(model="tiny"), seed=0).model.state_dict()[name]]
    anchors += [watched.anchors[step][name] for step in (1, 2, 3)]
    assert [step for step in (1, 2, 3) if not torch.equal(anchors[step - 1], anchors[step])] == moves
    for before, row in enumerate(rows_of(stage)):  # when the policy equals the anchor, the KL is 0
        own = fields.get("anchor") == "periodic" and before % 2 == 0
        assert (abs(row["kl_to_anchor"]) < 1e-5) == (own or before == 0)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_classifier_learns_which_completions_are_seldom_beaten(lora: Any) -> None:
    """Completions that end with one token beat all anchor samples; those that end with another beat none."""
    policy = load_policy(PolicyConfig(model="tiny"))
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    classifier = QuantileClassifier(
        stated(form="bond", quantile="classifier", quantile_learning_rate=3e-3, micro_batch=2, lora=lora)
    )
    classifier.begin(policy, 0)
    own = Draw([[30, 41], [31, 42], [32, 42], [33, 41]], learnt_reward_PN=torch.tensor([[1.0], [0.0], [0.0], [1.0]]))
    anchor = Draw([[50]] * 8, learnt_reward_PN=torch.full((4, 2), 0.5))
    rollouts = Rollouts([[2, 7 + i] for i in range(4)], own, anchor)
    first, metrics = classifier.place(rollouts)
    assert first.log_at_most_P.exp().tolist() == [0.5] * 4 and first.log_below_P is None
    assert metrics == {"classifier/loss": pytest.approx(0.6931, abs=1e-4), "classifier/bias": 0.0}
    for _ in range(30):
        placed, metrics = classifier.place(rollouts)
    assert placed.log_at_most_P.exp().tolist() == pytest.approx([1, 0, 0, 1], abs=0.1)
    for name, parameter in policy.model.named_parameters():  # the classifier was trained, the policy was not
        assert torch.equal(parameter, before[name])
    shared = {p.data_ptr() for p in policy.model.parameters()} & {p.data_ptr() for p in classifier.model.parameters()}
    assert bool(shared) == (lora is not None)
