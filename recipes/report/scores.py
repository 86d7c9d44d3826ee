"""The table of policies, with a bar for each interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gemsmith.evals.comparison import gain
from gemsmith.recipes.report.chart import COLOURS, Axis
from gemsmith.recipes.report.contents import RunContents, StageContents
from gemsmith.recipes.report.markup import Content, Markup, element, section
from gemsmith.recipes.report.reward_kl_plane import reward_kl_plane

BAR = 88  # pixels
MEASURES = {
    "pass_rate": "pass rate, sampled",
    "greedy_pass_rate": "pass rate, greedy",
    "reward": "reward",
    "kl": "KL, nats (k1)",
    "length": "length, tokens",
}
SHARES = {"pass_rate", "greedy_pass_rate"}


@dataclass(frozen=True)
class MeasureColumn:
    """One measure of all policies: their intervals, the common scale of the bars, and the number format."""

    title: str
    intervals: Sequence[dict[str, float] | None]
    share: bool

    @property
    def ends(self) -> list[float]:
        """Return all bounds and means of the intervals."""
        return [interval[end] for interval in self.intervals if interval for end in ("low", "mean", "high")]

    @property
    def scale(self) -> Axis:
        """Return the axis of the bars: 0 to 1 for shares, else from 0 (or a negative lowest bound) to the highest."""
        low, high = (0.0, 1.0) if self.share else (min(0.0, *self.ends), max(self.ends))
        return Axis(low, high if high > low else low + 1.0, 2, BAR - 2, ())

    def text(self, value: float) -> str:
        """Format a share as a percentage with one decimal, and other numbers with the decimals the column needs."""
        if self.share:
            return f"{100 * value:.1f}%"
        largest = max(abs(end) for end in self.ends)
        decimals = max(0, 2 - math.floor(math.log10(largest) + 1e-9)) if largest > 0 else 0
        return f"{value:,.{min(decimals, 6)}f}".replace("-", "−")


def scores_sections(run: RunContents) -> list[Markup]:
    """Return a section for each evaluation that has written scores."""
    sections = []
    for stage in run.stages:
        with stage.reading("output/scores.json"):
            if scores := stage.output("scores.json"):
                sections.append(_scores_section(run, stage, scores))
    return sections


def _scores_section(run: RunContents, stage: StageContents, scores: dict[str, Any]) -> Markup:
    others = [other for other in run.stages if other.kind == stage.kind]
    title = "Policies" if len(others) < 2 else f"Policies ({stage.id})"
    note: list[Content] = [
        f"{scores['prompts']} held-out prompts, each with {scores['samples']} sampled and one greedy completion. A ",
        *("completion passes if the reward ", element("code", scores["passes"])),
        *(" (of several, the first that applies)" if ", " in scores["passes"] else "", " is 1. The KL is from "),
        *(
            element("code", scores["initial"]),
            " (k1, sampled: the mean of log policy − log initial). Bars are 95% intervals over prompts. ",
            "The gain of a stage ",
        ),
        "is in sampled pass rate, over the policy that its training started from; its interval is that of the "
        "difference, prompt by prompt.",
    ]
    policies = scores["policies"]
    return section(title, policy_table(run, scores), task_table(policies), reward_kl_plane(policies), note=note)


def policy_table(run: RunContents, scores: dict[str, Any]) -> Markup:
    """Return one row for each policy: its stage's own gain, each measure with its interval, and each reward's mean."""
    policies = scores["policies"]
    columns = [
        MeasureColumn(title, [policy.get(key) for policy in policies], key in SHARES)
        for key, title in MEASURES.items()
        if any(policy.get(key) for policy in policies)
    ]
    names = list(dict.fromkeys(name for policy in policies for name in policy.get("rewards", {})))
    parts = [MeasureColumn(name, [policy.get("rewards", {}).get(name) for policy in policies], False) for name in names]
    rows = []
    for number, policy in enumerate(policies):
        known = run.stage(policy["stage"])
        key = element("i", class_=f"key c{number % COLOURS}")
        cells = [element("th", key, policy["stage"], element("small", known.kind if known else ""))]
        cells.append(element("td", _gain(run, scores, policy["stage"])))
        cells += [element("td", _interval(column, number)) for column in columns]
        cells += [element("td", _mean(part, number)) for part in parts]
        cells.append(element("td", f"{100 * policy['ended']:.1f}%"))
        rows.append(element("tr", cells))
    heads = ["policy", "gain of the stage", *(column.title for column in columns)]
    heads += [*(f"reward {name}" for name in names), "ended"]
    head = element("thead", element("tr", [element("th", title) for title in heads]))
    return element("div", element("table", head, element("tbody", rows), class_="policies"), class_="wide")


def task_table(policies: Sequence[dict[str, Any]]) -> Content:
    """Return a table of the sampled pass rate by task, one row per policy; empty if there are not several tasks."""
    tasks = {task: found["prompts"] for task, found in policies[0].get("by_task", {}).items()}
    if len(tasks) < 2:
        return ""
    columns = [
        MeasureColumn(task, [policy["by_task"][task]["pass_rate"] for policy in policies], True) for task in tasks
    ]
    rows = []
    for number, policy in enumerate(policies):
        key = element("i", class_=f"key c{number % COLOURS}")
        cells = [element("td", _interval(column, number)) for column in columns]
        rows.append(element("tr", element("th", key, policy["stage"]), cells))
    names = [element("th", task, element("small", f"{prompts} prompts")) for task, prompts in tasks.items()]
    head = element("thead", element("tr", element("th", "pass rate, sampled"), names))
    title = element("h3", "By task")
    return [title, element("div", element("table", head, element("tbody", rows), class_="policies"), class_="wide")]


def start_of(run: RunContents, stage: str, evaluated: Sequence[str]) -> str | None:
    """Return the nearest evaluated policy that a stage's training started from, following `from`; None if none."""
    seen = set()
    while stage not in seen:
        seen.add(stage)
        known = run.stage(stage)
        policy = known.config.get("policy") if known else None
        origin = policy.get("from") if isinstance(policy, dict) else None
        if not isinstance(origin, str):
            return None
        if origin in evaluated:
            return origin
        stage = origin
    return None


def _gain(run: RunContents, scores: dict[str, Any], stage: str) -> Content:
    start = start_of(run, stage, [policy["stage"] for policy in scores["policies"]])
    if start is None:
        return element("small", "—", title="the policy that its training started from is not in this table")
    found = gain(scores, stage, start)
    tone = ("up" if found.points > 0 else "down") if found.apart else "even"
    points, _, rest = str(found).replace("-", "−").partition(" points")
    return [
        element("b", f"{points} points", class_=tone),
        element("small", f"from {start}"),
        element("small", rest.strip(" ,()")),
    ]


def _interval(column: MeasureColumn, number: int) -> Content:
    interval = column.intervals[number]
    if not interval:
        return "n/a"
    scale = column.scale
    low, mean, high = (scale.at(interval[end]) for end in ("low", "mean", "high"))
    bounds = f"{column.text(interval['low'])} to {column.text(interval['high'])}"
    bar = element(
        "svg",
        element("title", f"95% interval: {bounds}"),
        element("line", class_="track", x1=scale.start, x2=scale.end, y1=6, y2=6),
        element("rect", class_=f"range c{number % COLOURS}", x=low, width=max(high - low, 1.5), y=1, height=10, rx=2),
        element("line", class_="mean", x1=mean, x2=mean, y1=1, y2=11),
        viewBox=f"0 0 {BAR} 12",
        width=BAR,
        class_="bar",
    )
    return [element("b", column.text(interval["mean"])), bar, element("small", bounds)]


def _mean(column: MeasureColumn, number: int) -> str:
    interval = column.intervals[number]
    return column.text(interval["mean"]) if interval else "n/a"
