"""Sphinx extension that fills in the generated parts of pages.

A page marks a place with `<!-- generated: recipe fields -->`, `<!-- generated: commands -->` or
`<!-- generated: results NAME -->`. On the site the comment is replaced by Markdown made from the recipe schema, from
the command line, or from `results/NAME.json`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
PLACE = re.compile(r"<!-- generated: (recipe fields|commands|results ([\w-]+)) -->")
PAPERS_LINK = re.compile(r"\]\((?:\.\./)*benchmarks/fidelity/README\.md")
LIMITS = (
    ("minimum", ">= {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "<= {}"),
    ("exclusiveMaximum", "< {}"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("minProperties", "at least {} entries"),
    ("pattern", "matches `{}`"),
)
MANY = 4
"""A union of more kinds than this is shown as a link to its section."""

SECTIONS = (
    ("The recipe", ("Recipe",)),
    ("Policy and engine", ("PolicyConfig", "LoraConfig", "RopeConfig", "EngineConfig", "DeepSpeedConfig")),
    ("Sampling", ("SamplingConfig", "SamplerConfig")),
)
"""Sections of the page of recipe fields that are not unions; what no section names comes last."""


def cell(text: object) -> str:
    """Return text for a cell of a table: on one line, with bars escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def anchor(name: str) -> str:
    """Return the slug of a heading, as MyST and GitHub make it."""
    return re.sub(r"[^\w -]", "", name).strip().lower().replace(" ", "-")


class FieldPages:
    """Markdown tables of all fields of a recipe, from its JSON Schema."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.definitions: dict[str, Any] = {**schema["$defs"], "Recipe": schema}
        self.titles = {name: name.removesuffix("Config") for name in self.definitions}
        self.unions: dict[str, list[str]] = {}
        for heading, key in (("Data sources", "data"), ("Rewards", "rewards"), ("Stages", "stages")):
            union = schema["properties"][key]
            union = union.get("items") or union["additionalProperties"]
            self.unions[heading] = []
            for kind, reference in union["discriminator"]["mapping"].items():
                name = reference.rsplit("/", 1)[1]
                self.titles[name] = f"{union['discriminator']['propertyName']}: {kind}"
                self.unions[heading].append(name)

    def type_of(self, field: dict[str, Any]) -> str:
        """Return the type of a field, with a link to the table of a nested section."""
        if "$ref" in field:
            name = field["$ref"].rsplit("/", 1)[1]
            return f"[{self.titles[name]}](#{anchor(self.titles[name])})"
        if "const" in field:
            return f"`{json.dumps(field['const'])}`"
        if "enum" in field:
            return " or ".join(f"`{value}`" for value in field["enum"])
        for union in ("anyOf", "oneOf"):
            if union in field and len(field[union]) > MANY:
                section = next(
                    heading for heading, names in self.unions.items() if self._refers_to(field[union], names)
                )
                return f"one of [{section.lower()}](#{anchor(section)})"
            if union in field:
                kinds = [self.type_of(kind) for kind in field[union] if kind.get("type") != "null"]
                return " or ".join(dict.fromkeys(kinds))
        if field.get("type") == "array":
            return f"list of {self.type_of(field['items'])}" if field.get("items") else "list"
        if field.get("type") == "object":
            inner = field.get("additionalProperties")
            return f"mapping of names to {self.type_of(inner)}" if isinstance(inner, dict) and inner else "mapping"
        return {"string": "text", "boolean": "true or false"}.get(field.get("type", ""), field.get("type", "any value"))

    def _refers_to(self, kinds: list[dict[str, Any]], names: list[str]) -> bool:
        return any(kind.get("$ref", "").rsplit("/", 1)[-1] in names for kind in kinds)

    def limits_of(self, field: dict[str, Any]) -> str:
        """Return the range of a field's values, those of the kinds in a union included."""
        kinds = [field, *field.get("anyOf", []), *field.get("oneOf", [])]
        found = [text.format(kind[key]) for kind in kinds for key, text in LIMITS if key in kind]
        return ", ".join(dict.fromkeys(found))

    def default_of(self, field: dict[str, Any], required: bool) -> str:
        """Return the default of a field, or that it is required."""
        if required:
            return "required"
        if "default" not in field:
            return "empty"
        return "not set" if field["default"] is None else f"`{json.dumps(field['default'])}`"

    def table(self, name: str) -> Iterator[str]:
        """Yield the lines of one heading with its description and the table of its fields."""
        definition = self.definitions[name]
        if name != "Recipe":
            yield f"### {self.titles[name]}\n"
        yield f"{definition.get('description', '')}\n"
        if not definition.get("properties"):
            return
        yield "| field | type | default | range | meaning |"
        yield "| --- | --- | --- | --- | --- |"
        required = definition.get("required", [])
        for key, field in definition["properties"].items():
            if "const" in field:
                continue
            cells = (self.type_of(field), self.default_of(field, key in required), self.limits_of(field))
            yield f"| `{key}` | {' | '.join(map(cell, cells))} | {cell(field.get('description', ''))} |"
        yield ""

    def markdown(self) -> str:
        """Return the whole page body."""
        sections = [*SECTIONS, *((heading, tuple(names)) for heading, names in self.unions.items())]
        named = {name for _, names in sections for name in names}
        sections.append(("Nested sections", tuple(name for name in self.definitions if name not in named)))
        lines: list[str] = []
        for heading, names in sections:
            lines.append(f"## {heading}\n")
            for name in names:
                lines += self.table(name)
        return "\n".join(lines)


def recipe_fields() -> str:
    """Return the tables of every field that a recipe may have."""
    from gemsmith.recipes.schema.recipe import Recipe

    return FieldPages(Recipe.model_json_schema()).markdown()


def commands() -> str:
    """Return every command with its usage, arguments and options, from the command line itself."""
    from gemsmith.recipes.commands.cli import app

    root = typer.main.get_command(app)
    lines: list[str] = []

    def add(command: Any, path: str) -> None:
        if getattr(command, "commands", None):
            if path != "gemsmith":
                lines.append(f"## {path}\n\n{' '.join((command.help or '').split())}\n")
            for name, inner in command.commands.items():
                add(inner, f"{path} {name}")
            return
        context = command.make_context(path, [], resilient_parsing=True)
        pieces = (piece for piece in command.collect_usage_pieces(context) if piece)
        usage = " ".join(piece if piece.startswith("[") else piece.strip("{}").upper() for piece in pieces)
        level = "##" if path.count(" ") == 1 else "###"
        lines.append(f"{level} {path}\n\n{' '.join((command.help or '').split())}\n")
        lines.append(f"```text\n{path} {usage}\n```\n")
        lines.extend(["| argument or option | default | meaning |", "| --- | --- | --- |"])
        for parameter in command.get_params(context):
            names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
            if parameter.param_type_name == "argument":
                names = f"`{(parameter.metavar or parameter.name).upper()}`"
            default = parameter.default
            empty = default is None or default == () or callable(default) or default is False
            shown = "required" if parameter.required else "" if empty else f"`{default}`"
            lines.append(f"| {cell(names)} | {cell(shown)} | {cell(getattr(parameter, 'help', '') or '')} |")
        lines.append("")

    add(root, "gemsmith")
    return "\n".join(lines)


def minutes(seconds: float) -> str:
    """Return a time as "12 s" or "3 min 05 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"


def results(recipe: str) -> str:
    """Return the recorded result of a recipe: machine, time, memory, stages and scores."""
    file = DOCS / "results" / f"{recipe}.json"
    if not file.exists():
        return "No result is recorded with this version."
    content = json.loads(file.read_text(encoding="utf-8"))
    machine, memory = content["machine"], content["peak_memory_bytes"]
    lines = [
        f"Measured on {content['date']} with gemsmith {content['gemsmith']} ({content['commit']}) on "
        f"{machine['processor']}, {machine['cores']} cores, torch {machine['torch']}, by `{content['command']}`.\n",
        "| | |",
        "| --- | --- |",
        f"| time | {minutes(content['seconds']) if content['seconds'] else 'not recorded'} |",
        f"| peak memory | {f'{memory / 2**30:.1f} GiB' if memory else 'not measured'} |",
        "",
    ]
    if content["seconds"]:
        lines += ["| stage | kind | time |", "| --- | --- | --- |"]
        lines += [f"| `{stage['id']}` | {stage['kind']} | {minutes(stage['seconds'])} |" for stage in content["stages"]]
        lines.append("")
    for stage, scores in content["scores"].items():
        lines += [
            f"Scores of `{stage}`, on {scores['prompts']} held-out prompts with {scores['samples']} samples each "
            "(95% intervals):\n",
            "| policy | pass rate | greedy pass rate | reward | KL per completion (nats) |",
            "| --- | --- | --- | --- | --- |",
        ]
        for policy in scores["policies"]:
            cells = [percent(policy["pass_rate"]), percent(policy["greedy_pass_rate"])]
            cells += [interval(policy["reward"], 3), interval(policy["kl"], 3)]
            lines.append(f"| `{policy['stage']}` | {' | '.join(cells)} |")
        lines += ["", *task_table(scores["policies"])]
    for stage, models in content.get("reward_models", {}).items():
        lines += [
            f"Reward models of `{stage}` on held-out pairs (95% intervals):\n",
            "| model | right | log loss | calibration error | correlation with length |",
            "| --- | --- | --- | --- | --- |",
        ]
        for model in models:
            cells = [percent(model["accuracy"]), number(model["log_loss"], 3)]
            cells += [number(model["calibration_error"], 3), number(model["length_correlation"], 2)]
            lines.append(f"| {model['model']} | {' | '.join(cells)} |")
        lines.append("")
    if content["notes"]:
        lines.append(" ".join(content["notes"]) + "\n")
    return "\n".join(lines)


def task_table(policies: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of sampled pass rates by task; none where no policy has several tasks."""
    tasks = list(policies[0].get("tasks", {}))
    if not tasks:
        return []
    lines = ["Sampled pass rates by task:\n", f"| policy | {' | '.join(tasks)} |", "| --- " * (len(tasks) + 1) + "|"]
    for policy in policies:
        lines.append(f"| `{policy['stage']}` | {' | '.join(percent(policy['tasks'][task]) for task in tasks)} |")
    return [*lines, ""]


def percent(value: dict[str, float]) -> str:
    """Return an interval of rates as percentages."""
    return f"{100 * value['mean']:.1f}% ({100 * value['low']:.1f} to {100 * value['high']:.1f})"


def number(value: float | None, digits: int) -> str:
    """Return a number as text, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def interval(value: dict[str, float] | None, digits: int) -> str:
    """Return an interval as text, or a dash where there is none."""
    return (
        "–"
        if value is None
        else f"{value['mean']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"
    )


def fill(text: str) -> str:
    """Replace the marks of a page by what they stand for."""

    def made(match: re.Match[str]) -> str:
        if match[2]:
            return results(match[2])
        return recipe_fields() if match[1] == "recipe fields" else commands()

    return PLACE.sub(made, text)


def on_source_read(app: Sphinx, document: str, source: list[str]) -> None:
    """Fill in a page before Sphinx parses it; links to the report on the papers' claims lead to its page here."""
    source[0] = PAPERS_LINK.sub("](/papers.md", fill(source[0]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", on_source_read)
    return {"parallel_read_safe": True}
