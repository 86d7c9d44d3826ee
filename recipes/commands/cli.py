"""The command line `gemsmith`: all commands in the order of its help, with one message for each failure.

This module does not import torch; a command imports it when it needs it.
"""

import functools
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer

from gemsmith.contracts.digests import cache_folder
from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.escaping import visible
from gemsmith.contracts.stopping import stop_request
from gemsmith.recipes.commands import merge, reward, verify
from gemsmith.recipes.commands.build import build
from gemsmith.recipes.commands.chat import chat
from gemsmith.recipes.commands.doctor import doctor
from gemsmith.recipes.commands.export import export
from gemsmith.recipes.commands.plan import plan
from gemsmith.recipes.commands.report import report
from gemsmith.recipes.commands.run import run
from gemsmith.recipes.commands.schema import schema
from gemsmith.recipes.commands.teacher_cache import teacher_cache
from gemsmith.recipes.commands.validate import validate
from gemsmith.recipes.run.failure import as_run_error
from gemsmith.recipes.run.failure_handoff import ProcessFailedError, hand_off_failure
from gemsmith.recipes.run.output import OutputLostError, guarded_output

USER_FAULT, OTHER_FAULT = 2, 1


class GuardedTyper(typer.Typer):
    """The commands, and their help, with a message if standard output cannot be written."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        try:
            with guarded_output():
                return super().__call__(*args, **kwargs)
        except OutputLostError as error:
            print(f"gemsmith: {visible(str(error))}", file=sys.stderr)
            sys.exit(OTHER_FAULT)


app = GuardedTyper(
    name="gemsmith",
    help="Post-train Gemma 3 from one YAML recipe: distillation, BOND, WARM, WARP, evaluation and export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)


def ends_with_one_message(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command so that a failure prints one message and exits with the code for its kind."""

    @functools.wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> None:
        try:
            with guarded_output():
                command(*args, **kwargs)
        except UserError as error:
            _end(str(error), USER_FAULT)
        except ProcessFailedError as error:
            _end(str(error), error.code)
        except RunError as error:
            _end(str(error), OTHER_FAULT)
        except KeyboardInterrupt as error:
            _end(str(error) or "interrupted", 128 + (stop_request.signal or signal.SIGINT))
        except BrokenPipeError:  # the program that reads our output has ended, as `head` does
            sys.stderr.close()
            raise typer.Exit(OTHER_FAULT) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            # The newest traceback replaces the one before: failed commands must not fill the temporary folder.
            _end(str(as_run_error(error, cache_folder(), f"gemsmith {command.__name__}")), OTHER_FAULT)

    return run_command


def _end(message: str, code: int) -> None:
    if not hand_off_failure(message, code):
        for line in message.splitlines():
            print(f"gemsmith: {visible(line)}", file=sys.stderr)
    raise typer.Exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            print(f"gemsmith {metadata.version('gemsmith')}")
        except metadata.PackageNotFoundError:
            print("gemsmith (not installed)")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Post-train Gemma 3 from one YAML recipe: distillation, BOND, WARM, WARP, evaluation and export."""


COMMANDS = (run, validate, plan, report, schema, doctor, build, export, chat, teacher_cache)
GROUPS = {
    "reward": (reward.GROUP_HELP, reward.SUBCOMMANDS),
    "merge": (merge.GROUP_HELP, merge.SUBCOMMANDS),
    "verify": (verify.GROUP_HELP, verify.SUBCOMMANDS),
}
for command in COMMANDS:
    app.command()(ends_with_one_message(command))
for name, (group_help, subcommands) in GROUPS.items():
    group = typer.Typer(name=name, help=group_help, no_args_is_help=True)
    for subcommand, function in subcommands.items():
        group.command(subcommand)(ends_with_one_message(function))
    app.add_typer(group)
