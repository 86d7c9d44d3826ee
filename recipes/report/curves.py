"""The training curves of each stage: the choice of metrics, and the lines of its runs or members."""

from collections.abc import Iterable, Sequence
from typing import Any

from gemsmith.recipes.report.chart import CurveLine, legend, line_chart
from gemsmith.recipes.report.contents import RunContents, StageContents
from gemsmith.recipes.report.dominance import dominance_note
from gemsmith.recipes.report.markup import Content, Markup, duration, element, section
from gemsmith.recipes.report.reward_hacking import hacking_watch
from gemsmith.rl.rollouts.reward_hacking import is_number

MOST_PANELS = 9
MARKS = ("iteration", "run", "member")  # keys that distinguish the runs or members of one stage
REINFORCED = (
    "reward",
    "reward/*",
    "control/*",
    "pass/*",
    "kl_to_initial",
    "kl_to_anchor",
    "entropy",
    "length",
    "win_over_best",
    "clipped",
    "distinct_2",
)
SUPERVISED = ("loss", "kl_from_teacher", "accuracy", "mean_token_accuracy", "eval_loss", "margin", "entropy")
TITLES = {
    "reward": "reward (weighted sum)",
    "kl_to_initial": "KL to the initial policy (nats; k1, sampled)",
    "kl_to_anchor": "KL to the anchor (nats; k1, sampled)",
    "win_over_best": "wins over the anchor's best of n",
    "kl_from_teacher": "KL from the teacher (nats per token)",
    "entropy": "entropy (nats per token)",
    "distinct_2": "distinct-2 (share of token pairs)",
    "length": "length (tokens)",
    "clipped": "share of tokens whose ratio is clipped",
    "loss": "loss (nats)",
    "eval_loss": "held-out loss (nats)",
    "accuracy": "accuracy on the batch",
    "mean_token_accuracy": "token accuracy on the batch",
}


def curves(run: RunContents) -> Markup | None:
    """Return a group of panels for each stage that has logged something; None if no stage has."""
    trained = [stage for stage in run.stages if stage.produces != "data"]  # generation logs progress, not training
    groups = []
    for stage in trained:
        with stage.reading("metrics.jsonl"):
            if (group := stage_curves(stage, run.normalised)) is not None:
                groups.append(group)
    note = "Lines are moving averages; the logged values are shown in pale colours behind them."
    if any(breaks_of(stage.metrics) for stage in run.stages):
        note += " A dotted line marks where the runs of an iteration were merged."
    return section("Training", groups, note=note) if groups else None


def stage_curves(stage: StageContents, normalised: Iterable[str] = ()) -> Markup | None:
    """Return the panels of one stage, after its reward-hacking section; None if it has logged no curve.

    `normalised` contains the names of the recipe's rewards that are normalised.
    """
    shown = chosen_metrics(stage.metrics)
    lines = {name: lines_of(stage.metrics, name) for name in shown}
    panels = [line_chart(TITLES.get(name, name), lines[name], breaks_of(stage.metrics)) for name in shown]
    if not panels:
        return None
    time = [duration(stage.seconds)] if stage.seconds else []
    names = [line.name for line in max(lines.values(), key=len)]
    head = element("h3", stage.id, " ", element("small", " · ".join([stage.kind, *time, stage.status])))
    body = [legend(names), hacking_watch(stage, normalised), element("div", panels, class_="panels"), _bias(stage)]
    body.append(dominance_note(stage))
    return element("div", head, body, class_="stage")


def _bias(stage: StageContents) -> Content:
    """Return a note if sampled KLs and entropies are biased."""
    if stage.estimators.get("own_distribution", True):
        return ""
    text = "Completions are not sampled from the policy itself (temperature, top_p, top_k): KLs and entropy are biased."
    return element("p", text, class_="note")


def chosen_metrics(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the metrics to show, in reading order; metrics with a single value are left out."""
    counts: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if name not in ("step", *MARKS) and is_number(value):
                counts[name] = counts.get(name, 0) + 1
    present = {name for name, count in counts.items() if count > 1}
    wanted = REINFORCED if "reward" in present else SUPERVISED
    found: list[str] = []
    for name in wanted:
        if name.endswith("*"):
            each = (metric for metric in counts if metric.startswith(name[:-1]) and metric in present)
            found += [metric for metric in each if not metric.endswith(("_std", "_counted", "_share"))]
        elif name in present:
            found.append(name)
    if not found:
        found = [name for name in counts if name in present]
    return found[:MOST_PANELS]


def lines_of(rows: Sequence[dict[str, Any]], metric: str) -> list[CurveLine]:
    """Return one line per run or member; a run's iterations follow each other along the x axis, not joined."""
    offsets = _offsets(rows)
    pieces: dict[tuple[Any, ...], dict[Any, list[tuple[float, float]]]] = {}
    for row in rows:
        if is_number(row.get(metric)):
            iteration = row.get("iteration", 0)
            line = pieces.setdefault((row.get("run"), row.get("member")), {})
            line.setdefault(iteration, []).append((row["step"] + offsets[iteration], float(row[metric])))
    order = sorted(pieces, key=lambda key: [(-1 if part is None else part) for part in key])
    return [CurveLine(_name(*key), [sorted(piece) for _, piece in sorted(pieces[key].items())]) for key in order]


def breaks_of(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Return the steps at which one iteration ends and the next begins."""
    return [float(offset) for offset in _offsets(rows).values() if offset]


def _offsets(rows: Sequence[dict[str, Any]]) -> dict[Any, int]:
    """Return the number of steps before each iteration."""
    longest: dict[Any, int] = {}
    for row in rows:
        iteration = row.get("iteration", 0)
        longest[iteration] = max(longest.get(iteration, 0), row["step"])
    offsets, total = {}, 0
    for iteration in sorted(longest):
        offsets[iteration] = total
        total += longest[iteration]
    return offsets


def _name(run: Any, member: Any) -> str:
    parts = [f"{word} {value + 1}" for word, value in (("run", run), ("member", member)) if isinstance(value, int)]
    return ", ".join(parts)
