"""Try a reward on completions from the command line or from a file, for `gemsmith reward try`."""

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
"""Columns that every run passes to a reward, with their default values here."""


@dataclass(frozen=True)
class GivenBatch:
    """Prompts, completions and columns of one call of a reward."""

    prompts: list[str]
    completions: list[str]
    columns: Columns


def score_batch(target: str, batch: GivenBatch, options: Sequence[str], time_limit: float | None) -> None:
    """Open a reward, call it once as a run would, and print each score; the reward's own output goes to stderr.

    Args:
        target: target of a python reward ("file.py:function"), or "recipe.yaml:NAME"; the recipe can also be the name
            of a shipped one.
        batch: the arguments of the call.
        options: name=value texts; they override the options in the recipe.
        time_limit: maximum duration of the call in seconds; None uses the recipe's limit, or the default.

    Raises:
        UserError: the reward does not exist, cannot be used, or fails; the message is the same as in a run.
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
    """Return the batch of the command line: completions of one prompt, or the rows of a file.

    Args:
        prompt: text of the user's turn, for all `completions`.
        completions: texts to score.
        rows: JSON Lines file with `prompt`, `completion` and columns.
        columns: name=value texts, used for every completion, and for rows that lack the column.

    Raises:
        UserError: completions and `rows` are both given or both missing, a column is not name=value, or a row is
            invalid.
    """
    if (rows is None) == (not completions) or (rows is not None and prompt):
        raise UserError("expected either --prompt with --completion (once or more), or --rows with a file")
    defaults = {**GIVEN, **_assigned(columns, "--column")}
    if rows is not None:
        return _read_batch(rows, defaults)
    count = len(completions)
    return GivenBatch([prompt] * count, list(completions), {name: [value] * count for name, value in defaults.items()})


def _read_batch(file: Path, defaults: dict[str, Any]) -> GivenBatch:
    """Read the rows of a file; a column that a row lacks takes its default, or None."""
    try:
        with file.open("rb") as stream:
            rows = list(json_lines(stream, str(file)))
    except OSError as error:
        raise UserError(f"--rows {file}: the file cannot be read: {error.strerror}") from error
    if not rows:
        raise UserError(f"--rows {file}: found no rows, expected JSON Lines with the fields prompt and completion")
    for row in rows:
        for name in ("prompt", "completion"):
            if not isinstance(row.columns.get(name), str):
                has = ", ".join(row.columns) or "none"
                raise UserError(f"{row.where}: `{name}` is missing or not text; the row has the fields {has}")
    names = {**defaults, **{name: None for row in rows for name in row.columns}}
    texts = {name: [row.columns[name] for row in rows] for name in ("prompt", "completion")}
    return GivenBatch(
        texts["prompt"],
        texts["completion"],
        {name: [row.columns.get(name, defaults.get(name)) for row in rows] for name in names if name not in texts},
    )


def _assigned(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Parse the name=value texts of a command-line option; values are YAML, as in a recipe."""
    values: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"{option} {text}: expected name=value, such as length=100")
        try:
            values[name] = YAML(typ="safe", pure=True).load(value)
            json.dumps(values[name])
        except (YAMLError, TypeError, ValueError) as error:
            raise UserError(
                f"{option} {text}: the value is not plain YAML; quote it for YAML as well as for the shell"
            ) from error
    return values


def _reward(target: str, options: dict[str, Any]) -> tuple[str, Path, RewardConfig]:
    """Return the name, root folder and configuration of the reward that `target` names."""
    place, _, name = target.rpartition(":")
    if not place.endswith((".yaml", ".yml")) and place not in shipped_recipes():
        return name, Path.cwd(), PythonReward(kind="python", target=target, options=options)
    source = read_source(find_recipe(place))
    rewards = read_recipe(source).rewards
    if name not in rewards:
        raise UserError(f"{place}: found no reward {name}, expected {listed(rewards)}{did_you_mean(name, rewards)}")
    config = rewards[name]
    if isinstance(config, RewardModelReward):
        raise UserError(
            f"{target} uses the reward model that stage {config.from_} trains; expected a reward that needs no run"
        )
    if isinstance(config, PythonReward):
        config = config.model_copy(update={"options": {**config.options, **options}})
    elif options:
        raise UserError(f"{target} is of kind {config.kind}; --option works only with rewards of kind python")
    return name, source.root, config
