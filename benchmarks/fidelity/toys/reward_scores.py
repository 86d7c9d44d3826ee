"""Measures of reward models, their averages and their ensembles: accuracy, and the gold of the best of N."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from benchmarks.fidelity.claim import Setting
from benchmarks.fidelity.kept import shared_folder
from benchmarks.fidelity.toys.corrupted import SETTING, Data, score_all
from gemsmith.contracts.stage import write_atomically
from gemsmith.reward_models.bradley_terry import rightness
from gemsmith.reward_models.pairs import Pair, both_sides
from gemsmith.weights.merge import average, interpolate

SUBSETS = ("corrupt", "clean", "held out", "shifted")


@dataclass
class Scorer:
    """Rewards of fixed sequences under models, each computed once and kept in `folder`.

    Attributes:
        folder: where rewards are kept, by the name of the model.
        sequences: tokens of prompts with completions.
    """

    folder: Path
    sequences: Sequence[Sequence[int]]

    def of(self, name: str, model: Path) -> list[float]:
        """Return the rewards under the model in the folder `model`."""
        return self._kept(name, lambda: score_all(model, self.sequences))

    def of_average(self, name: str, models: Sequence[Path]) -> list[float]:
        """Return the rewards under the mean of the models' weights."""
        return self._kept(name, lambda: self._merged(lambda out: average(models, out)))

    def of_line(self, name: str, start: Path, end: Path, rate: float) -> list[float]:
        """Return the rewards under (1 - rate) start + rate end."""
        return self._kept(name, lambda: self._merged(lambda out: interpolate(start, end, rate, out)))

    def _merged(self, merge: Callable[[Path], None]) -> list[float]:
        """Return the rewards under a model that is made for this and removed."""
        folder = self.folder / "merged"
        shutil.rmtree(folder, ignore_errors=True)
        merge(folder)
        rewards = score_all(folder, self.sequences)
        shutil.rmtree(folder)
        return rewards

    def _kept(self, name: str, compute: Callable[[], list[float]]) -> list[float]:
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_atomically(path, json.dumps(compute()))
        return list(json.loads(path.read_text()))


def sequences_of(data: Data) -> list[tuple[int, ...]]:
    """Both sides of all pairs, in the order that `accuracies` expects."""
    return both_sides([*data.train, *data.held_out, *data.shifted])


def accuracies(rewards: Sequence[float], data: Data) -> dict[str, float]:
    """Share of pairs ordered as their label says, by subset: swapped and other training pairs, held out, shifted."""
    pairs: list[tuple[str, Pair]] = [
        *((SUBSETS[0] if i in data.swapped else SUBSETS[1], pair) for i, pair in enumerate(data.train)),
        *((SUBSETS[2], pair) for pair in data.held_out),
        *((SUBSETS[3], pair) for pair in data.shifted),
    ]
    right: dict[str, list[float]] = {subset: [] for subset in SUBSETS}
    for (subset, _), chosen, rejected in zip(pairs, rewards[0::2], rewards[1::2], strict=True):
        right[subset].append(rightness(chosen - rejected))
    return {subset: fmean(values) for subset, values in right.items() if values}


def mean_of(rewards_MS: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of the models' rewards of each sequence."""
    return [fmean(column) for column in zip(*rewards_MS, strict=True)]


def best_of(n: int, reward_PN: Tensor, gold_PN: Tensor) -> float:
    """Mean gold of the candidate with the largest reward among n of the N drawn without replacement, exactly.

    In ascending order of reward the i-th of N is the best of n with probability C(i - 1, n - 1) / C(N, n).

    Args:
        n: candidates, at most N.
        reward_PN: what selects, [prompts, candidates].
        gold_PN: what is counted.
    """
    size = reward_PN.shape[1]
    chances = [math.comb(i, n - 1) / math.comb(size, n) for i in range(size)]
    ascending_PN = gold_PN.double().gather(1, reward_PN.argsort(dim=1))
    return float((ascending_PN @ torch.tensor(chances, dtype=torch.float64)).mean())


def best_of_n_kl(n: int) -> float:
    """KL(best of n || policy) where no two candidates are alike, log n - (n - 1) / n, in nats; else an upper bound."""
    return math.log(n) - (n - 1) / n


def scorer_of(setting: Setting, seed: int, data: Data) -> Scorer:
    """Return the scorer of all pairs of a seed; claims share its cache."""
    return _scorer("warm-scores", {name: setting[name] for name in SETTING}, seed, sequences_of(data))


def candidates_scorer(setting: Setting, seed: int, sequences: Sequence[Sequence[int]]) -> Scorer:
    """Return the scorer of candidates that were sampled with this setting."""
    return _scorer("warm-candidates", setting, seed, sequences)


def _scorer(name: str, setting: Setting, seed: int, sequences: Sequence[Sequence[int]]) -> Scorer:
    return Scorer(shared_folder(name, lambda folder, setting, seed: None, setting, seed), sequences)
