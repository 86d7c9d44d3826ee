"""The command `gemsmith`. It imports no torch before a command needs it."""

import functools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.recipes.commands import merge, teacher_cache_command, verify
from gemsmith.recipes.run.console import captured, own_output, quieten
from gemsmith.recipes.run.failure import as_run_error
from gemsmith.recipes.run.failure_handoff import Failed, leave_words

USER_FAULT, OTHER_FAULT, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="gemsmith",
    help="Post-trains Gemma 3 from one YAML recipe: distillation, BOND, WARM, WARP, evaluation and export.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)

RecipeArgument = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one, such as quickstart.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a field, as in stages.sft.steps=10.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="The run's folder; by default runs/ and the recipe's name.")
]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", help="Run only this stage; may be given several times.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Train in so many processes: one a GPU, or sharing the cores."),
]
PlaceArgument = Annotated[Path, typer.Argument(help="A run's folder, or a model's.")]
reward = typer.Typer(name="reward", help="Try a reward, without a run.", no_args_is_help=True)
app.add_typer(reward)


def answering(command: Callable[..., None]) -> Callable[..., None]:
    """The command, ending every fault with one message and the exit code for its kind."""

    @functools.wraps(command)
    def answer(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            _end(str(error), USER_FAULT)
        except Failed as error:
            _end(str(error), error.code)
        except RunError as error:
            _end(str(error), OTHER_FAULT)
        except KeyboardInterrupt as error:
            _end(str(error) or "interrupted", INTERRUPTED)
        except BrokenPipeError:  # the reader of our output has left, as `head` does
            sys.stderr.close()
            raise typer.Exit(OTHER_FAULT) from None
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except Exception as error:
            folder = Path(tempfile.mkdtemp(prefix="gemsmith-"))
            _end(str(as_run_error(error, folder, f"gemsmith {command.__name__}")), OTHER_FAULT)

    return answer


def _end(message: str, code: int) -> None:
    if not leave_words(message, code):
        for line in message.splitlines():
            print(f"gemsmith: {line}", file=sys.stderr)
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
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Say which.")
    ] = False,
) -> None:
    """Post-trains Gemma 3 from one YAML recipe: distillation, BOND, WARM, WARP, evaluation and export."""


@app.command()
@answering
def run(
    recipe: RecipeArgument,
    out: OutOption = None,
    only: OnlyOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what the stages have done before.")] = False,
    sets: SetOption = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Let trainers print to the terminal.")] = False,
    processes: ProcessesOption = None,
) -> None:
    """Run a recipe, or what is left of it; stages that are finished are skipped, interrupted ones continue."""
    from gemsmith.contracts.processes import count, rank
    from gemsmith.recipes.pipeline.pipeline import open_recipe
    from gemsmith.recipes.run.launch import check_count, check_shares, die_with_launcher, launch_run
    from gemsmith.recipes.run.runner import chosen_nodes, run_pipeline

    die_with_launcher()
    if processes is not None:
        check_count(processes)
    pipeline = open_recipe(recipe, sets or [])
    folder = out or _default_out(pipeline.name)
    check_shares(pipeline, chosen_nodes(pipeline, _split(only)), processes or count())
    try:
        if processes is not None and processes > 1:
            options = ["--verbose"] if verbose else []
            options += [f"--only={name}" for name in _split(only)] + [f"--set={text}" for text in sets or []]
            launch_run(pipeline, folder, [recipe, *options], processes, _split(only), fresh=fresh)
            return
        report = run_pipeline(pipeline, folder, only=_split(only), fresh=fresh, verbose=verbose)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt("interrupted; the same command continues where it stopped") from error
    if rank() == 0:
        print(f"run: {folder}" + (f"\nreport: {report}" if report else ""))


@app.command()
@answering
def validate(
    recipe: RecipeArgument,
    sets: SetOption = None,
    gold: Annotated[
        bool, typer.Option("--gold", help="Also put every true answer of the data through its verifier.")
    ] = False,
) -> None:
    """Check a recipe, its stage graph, its reward functions' source and its files, without running anything."""
    from gemsmith.recipes.pipeline.pipeline import open_recipe

    pipeline = open_recipe(recipe, sets or [])
    print(f"{recipe}: good, {len(pipeline.nodes)} stages: {', '.join(node.id for node in pipeline.nodes)}")
    if gold:
        from gemsmith.recipes.commands.gold import check_gold, report_gold

        for line in report_gold(check_gold(pipeline, lambda line: print(line, file=sys.stderr))):
            print(line)


@reward.command("try")
@answering
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
    from gemsmith.recipes.commands import reward_try

    batch = reward_try.given_batch(prompt, completion or [], rows, column or [])
    reward_try.try_reward(target, batch, option or [], time_limit)


@app.command()
@answering
def plan(recipe: RecipeArgument, out: OutOption = None, sets: SetOption = None) -> None:
    """Show what a run would do: which stages are finished, and the size, memory and time of each."""
    from gemsmith.recipes.pipeline.pipeline import open_recipe
    from gemsmith.recipes.plan.plan import exempt, forecast, plan_table, summary

    pipeline = open_recipe(recipe, sets or [])
    lines = forecast(pipeline, out or _default_out(pipeline.name))
    console = _console()
    console.print(plan_table(lines))
    console.print(summary(lines), highlight=False)
    if exception := exempt(pipeline):
        console.print(exception, highlight=False)


@app.command()
@answering
def report(folder: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Write the report of a run again, finished or not."""
    from gemsmith.recipes.run.record import read_run

    read_run(folder)
    from gemsmith.recipes.report import write_report

    print(f"report: {write_report(folder)}")


@app.command()
@answering
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from gemsmith.recipes.schema.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(by_alias=True), indent=2))


@app.command()
@answering
def doctor() -> None:
    """Say what this machine has and lacks, and the way out for each."""
    from gemsmith.recipes.commands.doctor import doctor_table, examine

    findings = examine(Path.cwd())
    _console().print(doctor_table(findings), highlight=False)
    if any(finding.verdict == "lacking" for finding in findings):
        raise RunError("something that gemsmith needs is lacking; see above")


@app.command()
@answering
def build() -> None:
    """Compile the attention kernel for this machine; set-up does it where there is a C++ compiler."""
    from gemsmith.policy.attention.build import build_kernel

    build_kernel(print)


@app.command()
@answering
def export(
    place: PlaceArgument,
    stage: Annotated[str | None, typer.Argument(help="The stage to export; none: the last one with a policy.")] = None,
    to: Annotated[Path, typer.Option("--to", help="The folder to write, new or empty.")] = Path("export"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="transformers (by default), adapter or gguf; may be given several times."),
    ] = None,
    gguf: Annotated[
        str | None, typer.Option("--gguf", help="What a GGUF file stores matrices as: f16 (by default), q8_0 or q4_0.")
    ] = None,
) -> None:
    """Write a policy in formats that other tools load; each is read back and compared before it counts."""
    from gemsmith.recipes.commands.export import export_policy
    from gemsmith.recipes.run.view import LineView

    quieten()
    with own_output() as file:
        view = LineView(file)
        view.turn("export", "running", 0.0)
        with captured(Path(os.devnull)):
            export_policy(place, stage, to, view, formats or [], gguf)
    print(f"export: {to}")


@app.command()
@answering
def chat(
    place: PlaceArgument,
    stage: Annotated[
        str | None, typer.Option("--stage", help="The stage to talk to; none: the last with a policy.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="Text in front of the first turn.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="Softmax temperature of answers.")] = 1.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest answer, in tokens.")] = 256,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
) -> None:
    """Talk with a policy; Ctrl-D ends."""
    from gemsmith.recipes.commands import chat as conversation
    from gemsmith.recipes.run.trained import find_policy

    conversation.check_settings(temperature, max_tokens)
    trained = find_policy(place, stage)
    quieten()
    try:
        conversation.chat(trained.folder, system=system, temperature=temperature, max_tokens=max_tokens, greedy=greedy)
    except KeyboardInterrupt:
        print()


merge.register(app, answering)
verify.register(app, answering)
teacher_cache_command.register(app, answering)


def _default_out(name: str) -> Path:
    return Path("runs") / name


def _split(names: list[str] | None) -> list[str]:
    """`--only a,b --only c` as a, b and c."""
    return [part.strip() for name in names or [] for part in name.split(",") if part.strip()]


def _console() -> Console:
    """Standard output, as wide as its terminal, or wide enough for every table where it is none."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
