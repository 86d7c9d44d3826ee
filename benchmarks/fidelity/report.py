"""The report: a figure and a JSON file for each claim, and one table in markdown that is made from the JSON files.

A run of some claims renews their rows and leaves those of the others as they are.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.fidelity.suite import Plan, Result, commit, machine
from benchmarks.results import Row

HEAD = """# What the papers claim, and what comes out here

`make fidelity` writes this page. It begins with identities: numbers that the mathematics gives, which must be met.
Then come claims, each tried at a size that a CPU can do, with three seeds, and reported as it came out: a claim that
does not hold is a finding and not an error. The settings are small, so orderings are what to read, and not sizes.
One JSON file for each claim in `results/` has every number.

A verdict counts signs over three seeds and is not a significance test. If there were no difference, one comparison
would have the predicted sign in all three seeds in one of eight cases. So "holds" is evidence for a direction at this
size, stronger the more parts a claim has, and "holds in part" often means that three seeds cannot decide.
"""
FLAT = re.compile(r"\[[^][{}\"]*\]")  # a list of numbers in JSON: points of curves go on one line
OUTCOMES = ("holds", "holds in part", "does not hold", "crashed")
COLUMNS = ("id", "claim", "paper and place", "expected", "observed, by seed", "verdict")


def write_identities(rows: Sequence[Row], out: Path) -> None:
    """Keep the identities with the place where they were checked."""
    content = {"commit": commit(), "machine": machine(), "rows": [asdict(row) | {"within": row.within} for row in rows]}
    _write(out / "results" / "identities.json", content)


def write_result(result: Result, out: Path) -> None:
    """Write the JSON of a claim, and its figure where there is something to draw."""
    _write(out / "results" / f"{result.claim.id}.json", result.row())
    if result.verdict:
        from benchmarks.fidelity.figure import draw

        draw(result.claim, [trial.measured for trial in result.trials], out / "results" / f"{result.claim.id}.png")


def age(plan: Plan, out: Path) -> str:
    """Return True if the report shows the claim as this code and setting would give it."""
    path = out / "results" / f"{plan.claim.id}.json"
    if not path.exists():
        return "not in the report"
    return (
        "report is current"
        if json.loads(path.read_text()).get("identities") == list(plan.identities)
        else "report is older"
    )


def write_table(order: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Write README.md from the JSON files in the folder, in the order of the ids; the rows that it has."""
    rows = [json.loads(path.read_text()) for name in order if (path := out / "results" / f"{name}.json").exists()]
    identities = out / "results" / "identities.json"
    parts = [HEAD]
    if identities.exists():
        parts.append(_identities(json.loads(identities.read_text())))
    parts += ["## Claims\n", _count(rows) + "\n", "\n".join(_table(COLUMNS, [_cells(row) for row in rows])) + "\n"]
    parts += [_shortfalls(rows)] if any(_short(row) for row in rows) else []
    parts += ["## Each claim\n"]
    parts += [_details(row, (out / "results" / f"{row['id']}.png").exists()) for row in rows]
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.md").write_text("\n".join(parts))
    return rows


def _count(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the number of claims by verdict, the date and machine, and the time."""
    outcomes = [row["verdict"]["holds"] if row["verdict"] else "crashed" for row in rows]
    counts = [f"{outcome}: {outcomes.count(outcome)}" for outcome in OUTCOMES if outcome in outcomes]
    dates = sorted({row["date"] for row in rows if row["date"]})
    machines = sorted({row["machine"] for row in rows if row["machine"]})
    minutes = sum(row.get("cpu_seconds", 0) for row in rows) / 60
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "never"
    return (
        f"Of {len(rows)} claims, {', '.join(counts)}. A claim of several parts holds when all do for all seeds. "
        f"Measured {when} on {'; '.join(machines)}, in {minutes:.0f} minutes of one core."
    )


def _short(row: Mapping[str, Any]) -> bool:
    return row["verdict"] is None or row["verdict"]["holds"] != "holds"


def _shortfalls(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the claims that do not hold entirely, with the failing part and the best explanation found."""
    lines = []
    for row in filter(_short, rows):
        what = row["verdict"] or {"holds": "crashed", "remark": row["error"]}
        lines.append(
            f"- **[{row['id']}](#{row['id'].lower()}) {what['holds']}**: {row['claim']} {what['remark']}".rstrip()
        )
    return "## What does not hold, or in part\n\n" + "\n".join(lines) + "\n"


def _identities(content: Mapping[str, Any]) -> str:
    cells = [
        (row["name"], f"{row['value']:.5g} {row['unit']}".strip(), f"{row['baseline_value']:.5g}", row["baseline"],
         f"{row['tolerance']:.1g}", "met" if row["within"] else "**off**")
        for row in content["rows"]
    ]  # fmt: skip
    table = "\n".join(_table(("what", "found", "expected", "from", "tolerance", ""), cells))
    return f"## Identities\n\n{table}\n\nChecked at {content['commit']} on {content['machine']}.\n"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    link = f"[{row['id']}](#{row['id'].lower()})"
    if row["verdict"] is None:
        return link, row["claim"], row["source"], "", f"`{' '.join(row['error'].split())[:200]}`", "**crashed**"
    observed = "<br>".join(row["verdict"]["observed"])
    return link, row["claim"], row["source"], row["verdict"]["expected"], observed, f"**{row['verdict']['holds']}**"


def _details(row: Mapping[str, Any], figure: bool) -> str:
    setting = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in row["setting"].items())
    seeds = ", ".join(str(seed) for seed in row["seeds"])
    lines = [f"### {row['id']}", "", f"{row['claim']} ({row['source']})", ""]
    if row["verdict"] and row["verdict"]["remark"]:
        lines += [row["verdict"]["remark"], ""]
    size = "quick setting" if row["size"] == "quick" else "setting"
    lines += [f"{size.capitalize()}: {setting}; seeds {seeds}.", ""]
    took = f"{row['seconds']:.0f} s in all, {row.get('cpu_seconds', 0):.0f} s of processors"
    lines += [f"{took}; {row['commit']}, {row['date']}, {row['machine']}.", ""]
    if figure:
        lines += [f"![{row['claim']}](results/{row['id']}.png)", ""]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    return "/".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a Markdown table; bars in the cells are escaped."""
    lines = [names, ["---"] * len(names), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FLAT.sub(lambda found: " ".join(found[0].split()), json.dumps(_rounded(content), indent=1)) + "\n")


def _rounded(value: Any) -> Any:
    """Return the value with its floats rounded to six significant digits: more is noise in a committed file."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value
