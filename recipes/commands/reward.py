"""`gemsmith reward try`: score completions with one reward, without a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def try_reward(
    target: Annotated[
        str,
        typer.Argument(help="file.py:function, package.module:function, an installed name, or recipe.yaml:REWARD."),
    ],
    prompt: Annotated[str, typer.Option("--prompt", help="The prompt of every --completion.")] = "",
    completion: Annotated[list[str] | None, typer.Option("--completion", help="May be given several times.")] = None,
    rows: Annotated[
        Path | None, typer.Option("--rows", help="Instead: JSON lines with prompt, completion and columns.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="One of the reward's options, in YAML.")
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME=VALUE", help="A column of the data, in YAML.")
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.001, help="Seconds that the call may take.")
    ] = None,
) -> None:
    """Score completions with one reward, as a run would."""
    from gemsmith.recipes.commands.actions.reward_trial import given_batch, score_batch

    score_batch(target, given_batch(prompt, completion or [], rows, column or []), option or [], time_limit)


GROUP_HELP = "Try a reward, without a run."
SUBCOMMANDS: dict[str, Callable[..., None]] = {"try": try_reward}
