"""Check the reward functions of a recipe: their signature in the source, and a trial import in a child process."""

import ast
import json
import os
import resource
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.processes import CRASHES, killed_by
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.contracts.target import Target
from gemsmith.rl.rewards.plugins.options import ONLY_TRL

IMPORT_LIMIT = 60.0
"""Seconds that importing all reward functions may take."""

# Source of the child process. It prints "\x1e" and a target's number before each import, and on failure "\x1f" and a
# JSON list of the kind of failure and the reason, so that the parent can name the target even if the child is killed.
TRIAL = """
import importlib, importlib.util, json, pathlib, sys, traceback
ours, paths, targets = json.loads(sys.argv[1])
sys.path[:] = ours
from gemsmith.rl.rewards.plugins.options import option_fault
sys.path[:0] = paths
for number, (file, module, function, options) in enumerate(targets):
    print(f"\\x1e{number}", flush=True)
    try:
        if file:
            spec = importlib.util.spec_from_file_location(pathlib.Path(file).stem, file)
            loaded = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded
            sys.path.insert(0, str(pathlib.Path(file).parent))
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
        if not callable(getattr(loaded, function, None)):
            raise AttributeError(f"it has no callable {function} once imported")
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f.lineno for f in reversed(frames) if file and f.filename == file), None)
        place = f"line {line}: " if line else ""
        print("\\x1f" + json.dumps(["import", f"{place}{type(error).__name__}: {error}"]), flush=True)
        sys.exit(1)
    if fault := option_fault(getattr(loaded, function), options):
        print("\\x1f" + json.dumps(["options", fault]), flush=True)
        sys.exit(1)
print("\\x1eend", flush=True)
"""


def check_defined(target: Target) -> ast.stmt:
    """Check, without importing it, that a target's file defines its name at the top level.

    Returns:
        The statement that defines it.

    Raises:
        UserError: the file is not Python source, or does not define the name.
    """
    try:
        tree = ast.parse(target.file.read_text(encoding="utf-8"), filename=str(target.file))
    except SyntaxError as error:
        raise UserError(f"{target.file}:{error.lineno}: found a syntax error ({error.msg})") from error
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{target.file}: the file is not Python source ({error})") from error
    names = _top_level(tree)
    if target.function not in names:
        functions = [name for name, node in names.items() if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        raise UserError(
            f"found no function {target.function} in {target.file}, "
            f"expected {listed(functions)}{did_you_mean(target.function, functions)}"
        )
    return names[target.function]


def check_signature(target: Target, columns: Collection[str], options: Collection[str]) -> None:
    """Check, without importing it, that a function can be called as f(prompts=, completions=, **columns).

    The signature of a name that the file imports or assigns is not in the source, so the trial import checks it. The
    options of a class are checked when it is opened, because its constructor may be inherited or made by a decorator.

    Args:
        target: the function or class.
        columns: names of the columns that every call passes.
        options: names of the options that the recipe passes.

    Raises:
        UserError: the function does not exist, or does not accept these arguments.
    """
    node = check_defined(target)
    if isinstance(node, ast.ClassDef):
        for method in node.body:
            if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and method.name == "__call__":
                method.args.args = method.args.args[1:]
                _check_arguments(target, method, columns, [])
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
        _check_arguments(target, node, columns, options)


def check_importable(targets: Sequence[Target], root: Path, limit: float = IMPORT_LIMIT) -> None:
    """Import the targets in a child process, so that an import that fails, hangs or crashes gives one message.

    Raises:
        UserError: a target cannot be imported within `limit` seconds, is not callable, or does not accept its options.
        RunError: a signal ended the process.
    """
    if not targets:
        return
    paths = [str(root), str(Path.cwd())]
    ours = [os.path.abspath(folder) for folder in sys.path]
    wanted = [(None if t.module else str(t.file), t.module, t.function, dict(t.options)) for t in targets]
    command = [sys.executable, "-P", "-c", TRIAL, json.dumps([ours, paths, wanted])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired as error:
        printed = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        raise UserError(
            f"{_last(printed, targets)}: found an import that takes over {limit:g} s; remove what blocks it"
        ) from error
    if done.stdout.rstrip().endswith("\x1eend"):
        return
    reason = f"the process ended with code {done.returncode}"
    if done.returncode < 0 and -done.returncode not in CRASHES:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        raise RunError(
            f"{_last(done.stdout, targets)}: the process that tried the import was "
            f"{killed_by(-done.returncode, peak)}; the import may have done it, or the system for lack of memory"
        )
    if "\x1f" in done.stdout:
        what, reason = json.loads(done.stdout.rpartition("\x1f")[2])
        if what == "options":
            raise UserError(f"{_last(done.stdout, targets)}: {reason}")
    raise UserError(f"{_last(done.stdout, targets)}: found an import that fails ({reason})")


def _last(printed: str, targets: Sequence[Target]) -> str:
    """Return the name of the target that the child process was importing last."""
    number = printed.rpartition("\x1e")[2].split("\n")[0]
    return f'reward target "{targets[int(number)].text}"' if number.isdecimal() else "reward targets"


def _top_level(tree: ast.Module) -> dict[str, ast.stmt]:
    """Return each name defined at the module's top level, also inside `if`, `try` and `with`; the last one wins."""
    names: dict[str, ast.stmt] = {}
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update({alias.asname or alias.name.split(".")[0]: node for alias in node.names})
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            aims = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update({aim.id: node for aim in aims if isinstance(aim, ast.Name)})
        elif isinstance(node, ast.If | ast.Try | ast.With):
            parts = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
            handlers = [handler.body for handler in getattr(node, "handlers", [])]
            pending = [child for part in (*parts, *handlers) for child in part] + pending
    return names


def _check_arguments(
    target: Target,
    node: ast.FunctionDef | ast.AsyncFunctionDef,
    columns: Collection[str],
    options: Collection[str],
) -> None:
    arguments = node.args
    place = f"{target.file}:{node.lineno}"
    found = f"found {node.name}({ast.unparse(arguments)})"
    expected = f"expected {node.name}(prompts, completions, **columns)"
    if arguments.posonlyargs:
        raise UserError(f"{place}: {found}, {expected}: arguments are passed by name, so none may be positional-only")
    takes = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    if "completions" not in takes and arguments.kwarg is None:
        raise UserError(f"{place}: {found}, {expected}: it does not accept completions")
    given = {"prompts", "completions", *columns, *options}
    optional = {argument.arg for argument in arguments.args[len(arguments.args) - len(arguments.defaults) :]}
    optional |= {
        a.arg for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is not None
    }
    unknown = [name for name in takes if name not in given and name not in optional]
    if unknown and unknown[0] in ONLY_TRL:
        raise UserError(f"{place}: {found}: {ONLY_TRL[unknown[0]]}")
    if unknown:
        raise UserError(
            f"{place}: {found}, but no data section that it scores has the column {unknown[0]}; expected "
            f"{listed(sorted(given))}{did_you_mean(unknown[0], given)}"
        )
    refused = [name for name in options if name not in takes and arguments.kwarg is None]
    if refused:
        raise UserError(
            f"{place}: {found}, which does not accept the option {refused[0]}{did_you_mean(refused[0], takes)}"
        )
