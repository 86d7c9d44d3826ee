"""Records of code data sets as problems: HumanEval, MBPP (full and sanitized), APPS, and a plain form of our own.

The plain form is one object: {"function": "f", "calls": [[[arguments], expected], ...]}, {"stdio": [[stdin, stdout],
...]}, {"test": "code with asserts", "names": ["f", ...]}, or, if allowed, {"script": "code with asserts"}.
"""

import ast
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from gemsmith.sandboxes.code.assert_parser import free_names, split_asserts
from gemsmith.sandboxes.code.extract import Continuation, find_program
from gemsmith.sandboxes.code.jobs import CallCase, Calls, Check, Job, Limits, Script, Stdio, StdioCase

Format = Literal["auto", "humaneval", "mbpp", "apps", "tests"]


class RecordError(ValueError):
    """Error for an unreadable record; the message names the field, and what was expected."""


class NoTestsError(RecordError):
    """Error for a record without any field of tests."""


@dataclass(frozen=True)
class Problem:
    """The tests of one record, ready for a program.

    Attributes:
        tests: the job, still without a program.
        suffix: source appended to every program.
        functions: names that the tests call.
        continues: the code that a completion without a fence continues; None if it is a whole program.
        gold: the record's reference solution, written as a completion.
        shown: description of each case; empty if the cases describe themselves.
    """

    tests: Job
    suffix: str = ""
    functions: tuple[str, ...] = ()
    continues: Continuation | None = None
    gold: str | None = None
    shown: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        """Return a digest of the tests: two problems with one key judge alike."""
        return hashlib.sha256(repr((self.tests, self.suffix)).encode(errors="surrogatepass")).hexdigest()

    def program(self, completion: str) -> str | None:
        """Return the program of a completion, or None; see `extract`."""
        return find_program(completion, self.functions, self.continues)

    def job(self, program: str, limits: Limits) -> Job:
        """Return the job that judges a program."""
        return replace(self.tests, source=program + self.suffix, limits=limits)

    def first(self, cases: int) -> "Problem | None":
        """Return the problem with its first cases only; None if its test is one piece of code."""
        if isinstance(self.tests, Calls):
            return replace(self, tests=replace(self.tests, cases=self.tests.cases[:cases]))
        if isinstance(self.tests, Stdio):
            return replace(self, tests=replace(self.tests, cases=self.tests.cases[:cases]))
        return None


def read_record(row: Mapping[str, Any], format: Format = "auto", tests: str = "tests") -> Problem:
    """Return the problem of a record.

    Args:
        row: fields of the record.
        format: name of the format; auto detects it by its fields.
        tests: name of the field with the plain form, as an object or as its JSON text.

    Raises:
        RecordError: a field is missing or does not have the format's form.
    """
    found = _format(row, format, tests)
    if found == "humaneval":
        return _humaneval(row)
    if found == "mbpp":
        return _mbpp(row)
    if found == "apps":
        return _apps(row)
    return _plain(_json(_field(row, tests, (str, Mapping)), tests))


def _format(row: Mapping[str, Any], format: Format, tests: str) -> Format:
    """Return the format of a row: the given one, or the first whose fields all exist."""
    signs: dict[Format, tuple[str, ...]] = {
        "tests": (tests,),
        "humaneval": ("prompt", "test", "entry_point"),
        "mbpp": ("test_list",),
        "apps": ("input_output",),
    }
    if format != "auto":
        if any(row.get(field) is not None for field in signs[format]):
            return format
        raise NoTestsError(f"found no {' or '.join(signs[format])}, which the format {format} needs")
    for name, fields in signs.items():
        if all(row.get(field) is not None for field in fields):
            return name
    raise NoTestsError(
        f"found the fields {', '.join(map(str, row)) or 'of an empty row'}; expected HumanEval's (prompt, test, "
        f"entry_point), MBPP's (test_list), APPS's (input_output), or {tests} with tests in the plain form"
    )


def _humaneval(row: Mapping[str, Any]) -> Problem:
    prompt, test = str(_field(row, "prompt", (str,))), str(_field(row, "test", (str,)))
    entry = str(_field(row, "entry_point", (str,)))
    gold = row.get("canonical_solution")
    continues = Continuation(prompt, entry, _preamble(prompt, entry))
    tree = _parsed(test, "test")
    call = f"{continues.preamble}\n\n{test}\n\ncheck({entry})\n"
    own, modules = free_names(_parsed(call, "test").body)
    tests: Job = Check("", _imports(modules) + call, tuple(sorted(own | {entry})))
    problem = Problem(tests, "", (entry,), continues, gold if isinstance(gold, str) else None)
    if (found := _check_asserts(tree)) is None:
        return problem
    argument, asserts = found
    if (split := split_asserts(asserts, {argument, entry})) is None:
        return problem
    shown = tuple(text.replace(f"{argument}(", f"{entry}(", 1) for text in split.shown)
    if not split.suffix:
        return replace(problem, tests=replace(split.calls, function=entry), shown=shown)
    return replace(problem, tests=split.calls, suffix=f"\n\n{argument} = {entry}{split.suffix}", shown=shown)


def _mbpp(row: Mapping[str, Any]) -> Problem:
    texts = [*_strings(row, "test_list"), *_strings(row, "challenge_test_list", needed=False)]
    setup_text = "\n".join([*_strings(row, "test_imports", needed=False), str(row.get("test_setup_code") or "")])
    setup = _parsed(setup_text, "test_setup_code").body
    body = [statement for text in texts for statement in _parsed(text, "test_list").body]
    own, modules = free_names([*setup, *body])
    gold = row.get("code")
    asserts = [statement for statement in body if isinstance(statement, ast.Assert)]
    split = split_asserts(asserts, own, setup) if len(asserts) == len(body) else None
    names = tuple(sorted(own))
    test = _imports(modules) + "\n".join([setup_text, *texts]) + "\n"
    problem = Problem(Check("", test, names), "", names, None, gold if isinstance(gold, str) else None)
    if split is None:
        return problem
    return replace(problem, tests=split.calls, suffix=split.suffix, shown=split.shown)


def _apps(row: Mapping[str, Any]) -> Problem:
    """Read APPS: with `fn_name` a function (or a method of `Solution`) is called, else programs read and write text."""
    cases = _json(_field(row, "input_output", (str, Mapping)), "input_output")
    inputs, outputs = cases.get("inputs"), cases.get("outputs")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and inputs and len(inputs) == len(outputs)):
        raise RecordError("`input_output` must hold `inputs` and `outputs`, two lists of one length, not empty")
    solutions = row.get("solutions")
    if isinstance(solutions, str):
        solutions = _loaded(solutions, "solutions")
    gold = solutions[0] if isinstance(solutions, list) and solutions and isinstance(solutions[0], str) else None
    function = cases.get("fn_name")
    if not function:
        pairs = tuple(StdioCase(_text(one), _text(other)) for one, other in zip(inputs, outputs, strict=True))
        return Problem(Stdio("", pairs), gold=gold)
    if not (isinstance(function, str) and function.isidentifier()):
        raise RecordError(f"`fn_name` must be the name of a function, found {function!r}")
    if not all(isinstance(arguments, list) for arguments in inputs):
        raise RecordError("with `fn_name`, each of `inputs` must be a list of arguments")
    if all(isinstance(output, list) and len(output) == 1 for output in outputs):
        outputs = [output[0] for output in outputs]  # half of APPS wraps each value in a list
    calls = tuple(CallCase(tuple(one), other) for one, other in zip(inputs, outputs, strict=True))
    method = f"\n\nif {function!r} not in globals():\n    def {function}(*a, **k):\n        "
    method += f"return Solution().{function}(*a, **k)\n"
    return Problem(Calls("", function, calls), method, (function,), gold=gold)


def _plain(tests: Mapping[str, Any]) -> Problem:
    kinds = [kind for kind in ("calls", "stdio", "test", "script") if kind in tests]
    if len(kinds) != 1:
        raise RecordError(
            f"tests in the plain form have one of `calls`, `stdio`, `test` and `script`, found {kinds or list(tests)}"
        )
    kind = kinds[0]
    if kind == "script":
        return Problem(Script("", str(_field(tests, kind, (str,)))))
    if kind == "test":
        text = str(_field(tests, kind, (str,)))
        own, _ = free_names(_parsed(text, kind).body)
        names = tuple(_strings(tests, "names", needed=False)) or tuple(sorted(own))
        return Problem(Check("", text, names), "", names)
    cases = tests[kind]
    if not (isinstance(cases, list) and cases and all(isinstance(case, list) and len(case) == 2 for case in cases)):
        form = "[[arguments], expected]" if kind == "calls" else "[stdin, stdout]"
        raise RecordError(f"`{kind}` must be a list of {form}, not empty")
    if kind == "stdio":
        return Problem(Stdio("", tuple(StdioCase(_text(given), _text(expected)) for given, expected in cases)))
    function = str(_field(tests, "function", (str,)))
    if not all(isinstance(arguments, list) for arguments, _ in cases):
        raise RecordError("the first part of each of `calls` must be a list of arguments")
    tolerance = tests.get("tolerance", 0.0)
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float) or not 0 <= tolerance < math.inf:
        raise RecordError(f"`tolerance` must be a finite number of at least 0, and is {str(tolerance)[:80]!r}")
    calls = tuple(CallCase(tuple(arguments), expected, {}, float(tolerance)) for arguments, expected in cases)
    return Problem(Calls("", function, calls), "", (function,))


def _check_asserts(tree: ast.Module) -> tuple[str, list[ast.Assert]] | None:
    """Return the argument's name and the asserts of HumanEval's `check(candidate)`, if it contains only asserts."""
    checks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    others = [node for node in tree.body if not isinstance(node, ast.FunctionDef | ast.Assign | ast.Import)]
    if len(checks) != 1 or len(checks[0].args.args) != 1 or any(not isinstance(node, ast.Expr) for node in others):
        return None
    body = [node for node in checks[0].body if not _does_nothing(node)]
    asserts = [node for node in body if isinstance(node, ast.Assert)]
    return (checks[0].args.args[0].arg, asserts) if len(asserts) == len(body) else None


def _does_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.Name)
    )


def _preamble(prompt: str, entry: str) -> str:
    """Return the imports and helpers of a code prompt: all but the function to be written."""
    for text in (prompt, f"{prompt.rstrip()}\n    pass\n"):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            continue
        kept = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == entry)]
        return "\n".join(ast.unparse(node) for node in kept)
    return ""


def _parsed(text: str, field: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise RecordError(f"`{field}` is not valid Python: {error}") from error


def _imports(modules: set[str]) -> str:
    return "".join(f"import {module}\n" for module in sorted(modules))


def _field(row: Mapping[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    value = row.get(name)
    if not isinstance(value, kinds):
        words: dict[type, str] = {str: "text", Mapping: "an object", list: "a list"}
        found = "nothing" if value is None else f"{str(value)[:40]!r}"
        raise RecordError(f"`{name}` must be {' or '.join(words[kind] for kind in kinds)}, found {found}")
    return value


def _strings(row: Mapping[str, Any], name: str, needed: bool = True) -> Sequence[str]:
    value = row.get(name)
    if value is None and not needed:
        return []
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value) or (needed and not value):
        raise RecordError(f"`{name}` must be a list of texts{', not empty' if needed else ''}")
    return value


def _json(value: Any, field: str) -> Mapping[str, Any]:
    found = _loaded(value, field) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise RecordError(f"`{field}` must be an object, or its JSON text")
    return found


def _loaded(text: str, field: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"`{field}` is not valid JSON: {error}") from error


def _text(value: Any) -> str:
    """Return the input or output of a program: a text, or its lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise RecordError(f"what a program reads and writes must be text, found {str(value)[:40]!r}")
