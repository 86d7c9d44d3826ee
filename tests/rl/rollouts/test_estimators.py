"""Descriptions of the estimators of a stage's sampled metrics."""

import json
from pathlib import Path
from typing import Any

from gemsmith.contracts.stage import Stage
from gemsmith.rl.algorithms.bond_config import BondAlgorithm
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.rollouts.estimators import estimators_of, record_estimators

COMMON: dict[str, Any] = {"data": "d", "rewards": ["r"], "steps": 1, "batch": 2, "learning_rate": 0.1}


def bond(**fields: Any) -> BondAlgorithm:
    return BondAlgorithm(kind="bond", **COMMON, **fields)


def reinforce(**fields: Any) -> ReinforceAlgorithm:
    return ReinforceAlgorithm(kind="reinforce", **COMMON, **fields)


def test_a_kl_is_named_by_estimator_and_unit_where_the_stage_has_it() -> None:
    assert estimators_of(reinforce()).keys() == {"kl_to_initial", "entropy"}
    held = estimators_of(reinforce(kl_to="anchor", kl_in="loss"))
    assert held["kl_to_anchor"].startswith("k1, sampled") and held["kl_loss"].startswith("k3: mean over tokens")
    assert held["kl_loss"].endswith("log policy - log anchor, in nats per token")
    assert estimators_of(reinforce(kl_in="loss", kl_estimator="k2"))["kl_loss"].startswith("k2")
    assert "kl_loss" not in estimators_of(reinforce(kl_in="loss", kl=0))
    assert "k = 2 completions" in estimators_of(bond())["log_quantile"]
    assert "k = 16 completions" in estimators_of(bond(form="bond", n=4))["log_quantile"]
    assert "classifier" in estimators_of(bond(form="bond", quantile="classifier"))["log_quantile"]


def test_runs_that_differ_are_recorded_together(tmp_path: Path) -> None:
    stage = Stage("s", tmp_path, 0, root=tmp_path)
    record_estimators([bond(), bond()], stage)
    alike = json.loads((tmp_path / "estimators.json").read_text())
    assert alike["kl_to_anchor"].count("k1, sampled") == 1
    record_estimators([bond(), bond(form="bond", n=4, sampling={"temperature": 0.9})], stage)
    apart = json.loads((tmp_path / "estimators.json").read_text())
    assert apart["kl_to_anchor"] == alike["kl_to_anchor"]
    assert "k = 2 " in apart["log_quantile"] and "; or " in apart["log_quantile"] and "k = 16 " in apart["log_quantile"]
