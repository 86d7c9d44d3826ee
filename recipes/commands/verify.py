"""`gemsmith verify`: grade a file of completions by their answer or by tests, without a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

RowsArgument = Annotated[Path, typer.Argument(help="JSON Lines file, or - for standard input.")]
VerdictsOption = Annotated[
    Path | None, typer.Option("--out", help="File to write the verdicts to. Default: standard output.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of rows to grade in parallel. Default: one per core.")
]


def math(file: RowsArgument, out: VerdictsOption = None, workers: WorkersOption = None) -> None:
    """Grade mathematical answers: rows with `completion` and `answer`."""
    from gemsmith.recipes.commands.actions.row_verification import verify_math

    verify_math(file, out, workers)


def code(
    file: RowsArgument,
    out: VerdictsOption = None,
    workers: WorkersOption = None,
    backend: Annotated[
        str, typer.Option("--backend", help="Sandbox: auto, bubblewrap, unshare, landlock, http or unsafe.")
    ] = "auto",
    url: Annotated[str | None, typer.Option("--url", help="URL of the sandbox server, for --backend http.")] = None,
    cpu: Annotated[float, typer.Option("--cpu", min=0.1, help="CPU seconds per program.")] = 10.0,
    memory: Annotated[int, typer.Option("--memory", min=32, help="Memory (address space) per program, in MiB.")] = 512,
    allow_forgeable: Annotated[
        bool, typer.Option("--allow-forgeable", help="Also grade `script` tests, whose result a program can fake.")
    ] = False,
) -> None:
    """Grade programs: rows with `completion` and tests.

    The tests are the fields of HumanEval, MBPP or APPS, or `tests` in gemsmith's own form.
    """
    from gemsmith.recipes.commands.actions.row_verification import verify_code

    verify_code(file, out, workers, backend=backend, url=url, cpu=cpu, memory=memory, allow_forgeable=allow_forgeable)


GROUP_HELP = "Grade a file of completions without a recipe."
SUBCOMMANDS: dict[str, Callable[..., None]] = {"math": math, "code": code}
