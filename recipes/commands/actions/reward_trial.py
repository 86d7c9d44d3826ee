"""Tries a reward on completions given by hand or in a file: `gemsmith reward try`."""

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.curation.sources.json_lines import json_lines
from gemsmith.recipes.schema.source import find_recipe, read_recipe, read_source, shipped_recipes
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.config import PythonReward, RewardConfig, RewardModelReward
from gemsmith.rl.rewards.reward import Columns, shortened

GIVEN = {"task": None, "system": None, "finished": True}
"""Columns that every run has, and what they are where nobody gives them."""


@dataclass(frozen=True)
class GivenBatch:
    """What a reward is called with."""

    prompts: list[str]
    completions: list[str]
    columns: Columns


def score_batch(target: str, batch: GivenBatch, options: Sequence[str], time_limit: float | None) -> None:
    """Open a reward, call it once as a run would, and print each score; what it prints goes to standard error.

    Args:
        target: of a python reward, or "recipe.yaml:NAME", also of a shipped recipe by its name.
        batch: what it is called with.
        options: name=value texts; they go over those that a recipe gives.
        time_limit: seconds that the call may take; None: the recipe's, or the default.

    Raises:
        UserError: there is no such reward, it cannot be used, or it fails; the words are those of a run.
    """
    name, root, config = _reward(target, _assigned(options, "--option"))
    if time_limit is not None:
        config = config.model_copy(update={"time_limit": time_limit})
    with tempfile.TemporaryDirectory(prefix="gemsmith-") as folder:
        stage = Stage("try", Path(folder), 0, root, rewards={name: config})
        begun = time.monotonic()
        with open_rewards([name], stage) as rewards:
            opened = time.monotonic()
            scores = rewards.score(batch.prompts, batch.completions, batch.columns).each[name]
            ended = time.monotonic()
    texts = ["does not apply" if score is None else f"{score:.6g}" for score in scores]
    width = max(len(text) for text in texts)
    for text, completion in zip(texts, batch.completions, strict=True):
        print(f"{text:>{width}}  {shortened(completion)}")
    print(f"opened in {opened - begun:.2f} s, called in {ended - opened:.3f} s")


def given_batch(prompt: str, completions: Sequence[str], rows: Path | None, columns: Sequence[str]) -> GivenBatch:
    """What the command line gives: completions of one prompt, or a file of rows.

    Args:
        prompt: text of the user's turn, for every one of `completions`.
        completions: of the policy.
        rows: JSON lines with `prompt`, `completion` and columns.
        columns: name=value texts, for every completion, and for the rows without that column.

    Raises:
        UserError: both or neither are given, a column is no name=value, or a row is not as it should be.
    """
    if (rows is None) == (not completions) or (rows is not None and prompt):
        raise UserError("expected either --prompt with --completion (once or more), or --rows with a file")
    defaults = {**GIVEN, **_assigned(columns, "--column")}
    if rows is not None:
        return _read_batch(rows, defaults)
    count = len(completions)
    return GivenBatch([prompt] * count, list(completions), {name: [value] * count for name, value in defaults.items()})


def _read_batch(file: Path, defaults: dict[str, Any]) -> GivenBatch:
    """The rows of a file; a column that a row lacks is its default, or None."""
    try:
        with file.open("rb") as stream:
            rows = list(json_lines(stream, str(file)))
    except OSError as error:
        raise UserError(f"--rows {file}: the file cannot be read: {error.strerror}") from error
    if not rows:
        raise UserError(f"--rows {file}: found no row, expected JSON lines with prompt and completion")
    for row in rows:
        for name in ("prompt", "completion"):
            if not isinstance(row.columns.get(name), str):
                has = ", ".join(row.columns) or "none"
                raise UserError(f"{row.where}: `{name}` must be text; the row has the fields {has}")
    names = {**defaults, **{name: None for row in rows for name in row.columns}}
    texts = {name: [row.columns[name] for row in rows] for name in ("prompt", "completion")}
    return GivenBatch(
        texts["prompt"],
        texts["completion"],
        {name: [row.columns.get(name, defaults.get(name)) for row in rows] for name in names if name not in texts},
    )


def _assigned(texts: Sequence[str], option: str) -> dict[str, Any]:
    """The name=value texts of an option of the command line; a value is YAML, as it would be in a recipe."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"{option} {text}: expected name=value, such as length=100")
        try:
            values[name] = YAML(typ="safe", pure=True).load(value)
            json.dumps(values[name])
        except (YAMLError, TypeError, ValueError) as error:
            raise UserError(f"{option} {text}: the value is no plain YAML; quote it for YAML, too") from error
    return values


def _reward(target: str, options: dict[str, Any]) -> tuple[str, Path, RewardConfig]:
    """Name, folder and configuration of the reward that the command line means."""
    place, _, name = target.rpartition(":")
    if not place.endswith((".yaml", ".yml")) and place not in shipped_recipes():
        return name, Path.cwd(), PythonReward(kind="python", target=target, options=options)
    source = read_source(find_recipe(place))
    rewards = read_recipe(source).rewards
    if name not in rewards:
        raise UserError(f"{place}: found no reward {name}, expected {listed(rewards)}{did_you_mean(name, rewards)}")
    config = rewards[name]
    if isinstance(config, RewardModelReward):
        raise UserError(f"{target} scores with what stage {config.from_} trains; expected a reward that needs no run")
    if isinstance(config, PythonReward):
        config = config.model_copy(update={"options": {**config.options, **options}})
    elif options:
        raise UserError(f"{target} is of kind {config.kind}; expected --option with the kind python only")
    return name, source.root, config
