from collections.abc import Callable
from pathlib import Path

import pytest

from gemsmith.contracts.stage import Stage
from gemsmith.rl.rewards.config import MathReward, PythonReward


class Listener:
    """Sink that keeps all messages."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def progress(self, done: int, total: int, unit: str, shown: object) -> None:
        """Ignore progress."""

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def stage(tmp_path: Path, listener: Listener) -> Stage:
    """Return a stage with the recipe folder `tmp_path` and a mathematics reward named `correct`."""
    folder = tmp_path / "stage"
    rewards = {"correct": MathReward(kind="math")}
    return Stage(id="rl", folder=folder, seed=0, root=tmp_path, rewards=rewards, sink=listener)


@pytest.fixture
def with_function(stage: Stage) -> Callable[..., Stage]:
    """Return a function that adds a python reward named `mine`, with the given source of `f`, to the stage."""

    def adder(source: str, *, target: str = "mine.py:f", **config: object) -> Stage:
        (stage.root / "mine.py").write_text(source)
        reward = PythonReward(kind="python", target=target, **config)  # type: ignore[arg-type]
        stage.rewards = {**stage.rewards, "mine": reward}
        return stage

    return adder
