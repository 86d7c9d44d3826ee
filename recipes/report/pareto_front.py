"""The Pareto front of a WARP stage: reward against KL along its line, with the trajectories of its runs."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from gemsmith.recipes.report.chart import COLOURS, MOST_POINTS, averaged, fit_axis, frame, legend, path, smoothed
from gemsmith.recipes.report.markup import Content, Markup, element, short, table
from gemsmith.recipes.report.reward_kl_plane import HEIGHT, WIDTH, place_labels

Point = tuple[float, float]


def pareto_front_section(front: dict[str, Any]) -> list[Content]:
    """Return a sentence, the picture and a table, from `front` in warp.json; empty for fewer than two points."""
    points = front.get("points", [])
    if len(points) < 2:
        return []
    runs = [[(float(kl), float(reward)) for kl, reward in run["points"]] for run in front.get("trajectory", [])]
    smooth = [averaged(smoothed(run), MOST_POINTS) for run in runs if run]
    return [
        element("h3", "The front"),
        element("p", _verdict(points, smooth), class_="note"),
        front_plane(points, smooth),
        _table(points),
        element("p", _how(front), class_="note"),
    ]


def reward_at_kl(run: Sequence[Point], kl: float) -> float | None:
    """Return a trajectory's reward at a KL, interpolated between points ordered by KL; None outside their range."""
    ordered = sorted(run)
    for (before, low), (after, high) in pairwise(ordered):
        if before <= kl <= after:
            return low if after == before else low + (high - low) * (kl - before) / (after - before)
    return None


def compare_with_runs(points: Sequence[dict[str, Any]], runs: Sequence[Sequence[Point]]) -> dict[str, list[float]]:
    """Return the rates whose reward is `above`, `level` with or `below` the runs' mean at equal KL (95% interval).

    Rate 0, the shared start, and points beyond the runs' KL are in none of the lists.
    """
    found: dict[str, list[float]] = {"above": [], "level": [], "below": []}
    for point in points:
        rewards = [reward for run in runs if (reward := reward_at_kl(run, point["kl"]["mean"])) is not None]
        if not rewards or point["rate"] == 0:
            continue
        mean = sum(rewards) / len(rewards)
        side = "above" if point["reward"]["low"] > mean else "below" if point["reward"]["high"] < mean else "level"
        found[side].append(point["rate"])
    return found


def front_plane(points: Sequence[dict[str, Any]], runs: Sequence[Sequence[Point]]) -> Markup:
    """Return a picture of the front: points labelled with their rate, both intervals, and the runs in pale colours."""
    ends = ("low", "mean", "high")
    kls = [point["kl"][end] for point in points for end in ends] + [kl for run in runs for kl, _ in run]
    rewards = [point["reward"][end] for point in points for end in ends] + [reward for run in runs for _, reward in run]
    x, y = fit_axis(kls, 56, WIDTH - 16, 5), fit_axis(rewards, HEIGHT - 42, 10)
    drawn: list[Content] = [frame(x, y)]
    for number, run in enumerate(runs):
        label = element("title", f"run {number + 1}")
        drawn.append(element("path", label, class_=f"trail c{1 + number % (COLOURS - 1)}", d=path(run, x, y)))
    means = [(point["kl"]["mean"], point["reward"]["mean"]) for point in points]
    drawn.append(element("path", class_="line c0", d=path(means, x, y)))
    places = [(x.at(kl), y.at(reward)) for kl, reward in means]
    labels = place_labels([short(point["rate"]) for point in points], places, rising=True, least=x.start)
    for point, (cx, cy), (left, baseline) in zip(points, places, labels, strict=True):
        kl, reward = point["kl"], point["reward"]
        told = f"rate {short(point['rate'])}: reward {short(reward['mean'])} at a KL of {short(kl['mean'])} nats"
        drawn += [
            element("line", class_="whisker c0", x1=x.at(kl["low"]), x2=x.at(kl["high"]), y1=cy, y2=cy),
            element("line", class_="whisker c0", x1=cx, x2=cx, y1=y.at(reward["low"]), y2=y.at(reward["high"])),
            element("circle", element("title", told), class_="dot c0", cx=cx, cy=cy, r=4),
            element("text", short(point["rate"]), class_="label", x=left, y=baseline),
        ]
    centre, middle = (x.start + x.end) / 2, (y.start + y.end) / 2
    turn, along = f"rotate(-90 12 {middle:.0f})", "KL to the stage's start, nats (k1, sampled)"
    drawn += [
        element("text", along, class_="name", x=centre, y=HEIGHT - 6, text_anchor="middle"),
        element(
            "text",
            "reward",
            class_="name",
            x=12,
            y=middle,
            text_anchor="middle",
            transform=turn,
        ),
    ]
    told = "reward against KL of the points of the line, and of the runs"
    picture = element("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=told)
    names = ["the line, by rate", *(f"run {number + 1} in training" for number in range(len(runs)))]
    return element("figure", legend(names), picture, class_="plane")


def _verdict(points: Sequence[dict[str, Any]], runs: Sequence[Sequence[Point]]) -> str:
    best = max(points, key=lambda point: point["reward"]["mean"])
    where = f"{short(best['reward']['mean'])} at a KL of {short(best['kl']['mean'])} nats"
    near = [p["rate"] for p in points if p is not best and p["reward"]["high"] >= best["reward"]["low"]]
    reach = (
        f"; the intervals of {_rates(near)} overlap with its own"
        if near
        else "; its interval is apart from the other intervals"
    )
    sides = compare_with_runs(points, runs)
    parts = [f"{_rates(rates)} {side}" for side, rates in sides.items() if rates]
    held = (
        f"Compared with the first iteration's runs at equal KL: {', '.join(parts)}."
        if parts
        else "The first iteration's runs have no KL in common with the points, so they cannot be compared."
    )
    return f"Rate {short(best['rate'])} gives the most reward, {where}{reach}. {held}"


def _rates(rates: Sequence[float]) -> str:
    names = [short(rate) for rate in rates]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _table(points: Sequence[dict[str, Any]]) -> Markup:
    parts = [(kind, name) for kind in ("rewards", "control") for name in points[0][kind]]
    head = ["rate", "reward", "KL, nats", "length", "ended"]
    head += [name if kind == "rewards" else f"{name} (control)" for kind, name in parts]
    rows: list[list[Content]] = []
    for point in points:
        cells: list[Content] = [short(point["rate"]), _spread(point["reward"]), _spread(point["kl"])]
        cells += [short(point["length"]["mean"]), f"{100 * point['ended']:.0f}%"]
        rows.append([*cells, *(_spread(point[kind].get(name)) for kind, name in parts)])
    return table(head, rows)


def _spread(found: dict[str, float] | None) -> Content:
    if found is None:
        return "n/a"
    return [short(found["mean"]), " ", element("small", f"{short(found['low'])} to {short(found['high'])}")]


def _how(front: dict[str, Any]) -> str:
    text = (
        f"Each point uses one completion per prompt on {front['points'][0]['prompts']} held-out prompts, with 95% "
        f"intervals over prompts; the KL is the {front.get('kl_estimator', 'n/a')}. The runs' curves are moving "
        "averages on training prompts; runs of later iterations are not shown, because their KL has another reference."
    )
    if not front.get("own_distribution", True):
        text += " Completions are not sampled from the policy itself (temperature, top_p, top_k): the KL is biased."
    return text
