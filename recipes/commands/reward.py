"""`gemsmith reward try`: score completions with one reward outside a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def try_reward(
    target: Annotated[
        str,
        typer.Argument(help="file.py:function, package.module:function, an installed name, or recipe.yaml:REWARD."),
    ],
    prompt: Annotated[str, typer.Option("--prompt", help="Prompt of every --completion.")] = "",
    completion: Annotated[
        list[str] | None, typer.Option("--completion", help="Text to score. Can be repeated.")
    ] = None,
    rows: Annotated[
        Path | None,
        typer.Option("--rows", help="JSON Lines file with prompt, completion and columns, instead of --completion."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="KEY=VALUE", help="Option of a reward of kind python; VALUE is YAML. Can be repeated."
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="NAME=VALUE", help="Column of the data; VALUE is YAML. Can be repeated."),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", min=0.001, help="Maximum duration of the call, in seconds.")
    ] = None,
) -> None:
    """Score completions with one reward, as a run would."""
    from gemsmith.recipes.commands.actions.reward_trial import given_batch, score_batch

    score_batch(target, given_batch(prompt, completion or [], rows, column or []), option or [], time_limit)


GROUP_HELP = "Try a reward function outside a run."
SUBCOMMANDS: dict[str, Callable[..., None]] = {"try": try_reward}
