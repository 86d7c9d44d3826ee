"""`gemsmith verify`: grade a file of completions by mathematics or by programs' tests, without a recipe."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

RowsArgument = Annotated[Path, typer.Argument(help="JSON lines, or - for standard input.")]
VerdictsOption = Annotated[
    Path | None, typer.Option("--out", help="Write the verdicts to this file; by default to standard output.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Rows verified at once; by default one a core.")
]


def math(file: RowsArgument, out: VerdictsOption = None, workers: WorkersOption = None) -> None:
    """Grade rows with `completion` and `answer`."""
    from gemsmith.recipes.commands.actions.row_verification import verify_math

    verify_math(file, out, workers)


def code(
    file: RowsArgument,
    out: VerdictsOption = None,
    workers: WorkersOption = None,
    backend: Annotated[
        str, typer.Option("--backend", help="auto, bubblewrap, unshare, landlock, http or unsafe.")
    ] = "auto",
    url: Annotated[str | None, typer.Option("--url", help="Address of the server, for --backend http.")] = None,
    cpu: Annotated[float, typer.Option("--cpu", min=0.1, help="Seconds of processor time of one program.")] = 10.0,
    memory: Annotated[int, typer.Option("--memory", min=32, help="Address space of one program, in MiB.")] = 512,
    allow_forgeable: Annotated[
        bool, typer.Option("--allow-forgeable", help="Also grade by `script` tests, which a program can fool.")
    ] = False,
) -> None:
    """Grade rows with `completion` and the fields of HumanEval, MBPP or APPS, or `tests` in gemsmith's plain form."""
    from gemsmith.recipes.commands.actions.row_verification import verify_code

    verify_code(file, out, workers, backend=backend, url=url, cpu=cpu, memory=memory, allow_forgeable=allow_forgeable)


GROUP_HELP = "Grade a file of completions, without a recipe."
SUBCOMMANDS: dict[str, Callable[..., None]] = {"math": math, "code": code}
