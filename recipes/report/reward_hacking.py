"""The reward-hacking section: the learnt reward and each control against the KL, and where a control diverges."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gemsmith.recipes.report.chart import COLOURS, MOST_POINTS, Axis, averaged, fit_axis, frame, path, smoothed
from gemsmith.recipes.report.contents import StageContents
from gemsmith.recipes.report.markup import Content, Markup, element
from gemsmith.rl.rollouts.reward_hacking import HackingOnset, hacking_onsets, is_number, learnt_metric

WIDTH, PANEL, GAP, LEFT, RIGHT, BOTTOM = 340, 84, 26, 44, 16, 34
LABEL = 12  # height of one label, in pixels
NOTE = (
    "Lines are moving averages ordered by KL (the KL is averaged over steps first); pale points are the logged values. "
    "The run is divided into ten equal parts. A control diverges from the reward if, between its highest part and the "
    "last part, it falls and the learnt reward rises, each by more than four standard errors of the difference "
    "(correlation between steps is included). The dashed line marks the KL of the highest part: beyond it, the policy "
    "gains learnt reward and loses what the control measures."
)


@dataclass(frozen=True)
class TrainingRun:
    """One run of one iteration of a stage: its name and number in the legend, and its rows in order of steps."""

    name: str
    number: int
    iteration: int | None
    rows: Sequence[dict[str, Any]]


def hacking_watch(stage: StageContents, normalised: Iterable[str]) -> Content:
    """Return sentences on controls that diverge from the reward, and a figure per iteration; None without controls.

    Args:
        stage: any stage.
        normalised: names of the recipe's rewards that are normalised.
    """
    controls = list(dict.fromkeys(name for row in stage.metrics for name in row if name.startswith("control/")))
    if not controls:
        return None
    learns = stage.config.get("inner", stage.config).get("rewards", [])
    metrics = {name for row in stage.metrics for name in row}
    learnt = learnt_metric(metrics, any(name in learns for name in normalised))
    trainings, found = _trainings(stage.metrics), hacking_onsets(stage.metrics, learnt)
    figures = []
    for iteration in dict.fromkeys(training.iteration for training in trainings):
        here = [training for training in trainings if training.iteration == iteration]
        title = "Reward and controls against KL" + ("" if iteration is None else f", iteration {iteration + 1}")
        marks = [onset for onset in found if onset.where.get("iteration") == iteration]
        figures.append(_figure(title, learnt, controls, here, marks))
    if not any(figures):
        return None
    told = [element("p", onset_sentence(found, name, len(trainings))) for name in _named(found)]
    note = element("p", NOTE, class_="note")
    return [element("div", told, class_="parts") if told else None, element("div", figures, note, class_="panels")]


def onset_sentence(found: Sequence[HackingOnset], control: str, trainings: int) -> str:
    """Return a sentence on the first training in which a control diverges, and on the number of such trainings."""
    those = [onset for onset in found if onset.control == control]
    share = f" ({those[0].training}; the same in {len(those)} of {trainings} trainings)" if trainings > 1 else ""
    return f"{str(those[0])[0].upper()}{str(those[0])[1:]}{share}."


def _named(found: Sequence[HackingOnset]) -> list[str]:
    return list(dict.fromkeys(onset.control for onset in found))


def _trainings(rows: Sequence[dict[str, Any]]) -> list[TrainingRun]:
    keys = sorted({(row.get("iteration"), row.get("run")) for row in rows}, key=lambda key: [part or 0 for part in key])
    found = []
    for iteration, run in keys:
        own = [row for row in rows if (row.get("iteration"), row.get("run")) == (iteration, run)]
        name = f"run {run + 1}" if isinstance(run, int) else ""
        found.append(TrainingRun(name, run or 0, iteration, sorted(own, key=lambda row: row["step"])))
    return found


def _figure(
    title: str, learnt: str, controls: Sequence[str], trainings: Sequence[TrainingRun], marks: Sequence[HackingOnset]
) -> Markup | None:
    """Return panels over one KL axis: the learnt reward, and below it each control with at least two values."""
    tracks = {name: _tracks(trainings, name) for name in (learnt, *controls)}
    tracks = {name: found for name, found in tracks.items() if found}
    if learnt not in tracks or len(tracks) < 2:
        return None
    kls = [kl for found in tracks.values() for _, _, line in found for kl, _ in line]
    x = fit_axis([0.0, *kls], LEFT, WIDTH - RIGHT)
    drawn: list[Content] = []
    for place, (name, found) in enumerate(tracks.items()):
        top = GAP - 6 + place * (PANEL + GAP)
        y = fit_axis([value for _, raw, _ in found for _, value in raw], top + PANEL, top)
        last = place == len(tracks) - 1
        drawn.append(frame(x if last else replace(x, ticks=()), y))
        title_here = "learnt reward" if name == learnt else f"control {name.removeprefix('control/')}"
        drawn.append(element("text", title_here, class_="label", x=x.start, y=top - 7))
        for training, raw, line in found:
            colour = f"c{training.number % COLOURS}"
            drawn += [element("circle", class_=f"speck {colour}", cx=x.at(a), cy=y.at(b), r=1.4) for a, b in raw]
            drawn.append(element("path", class_=f"line {colour}", d=path(line, x, y)))
        here = [mark for mark in marks if name in (learnt, f"control/{mark.control}")]
        drawn += [_rule(mark, x, y, None if name == learnt else below) for below, mark in enumerate(here)]
    height = GAP - 6 + len(tracks) * (PANEL + GAP) - GAP + BOTTOM
    middle = (x.start + x.end) / 2
    start = "initial policy" if trainings[0].iteration is None else "iteration's start"
    along = f"KL to the {start}, nats (k1, sampled)"
    drawn.append(element("text", along, class_="name", x=middle, y=height - 3, text_anchor="middle"))
    picture = element("svg", drawn, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title.lower())
    return element("figure", element("figcaption", title), picture)


def _tracks(
    trainings: Sequence[TrainingRun], metric: str
) -> list[tuple[TrainingRun, Sequence[tuple[float, float]], Sequence[tuple[float, float]]]]:
    """Return each training with its (KL, value) points in the order of the smoothed KL, raw and smoothed."""
    found = []
    for training in trainings:
        known = [row for row in training.rows if is_number(row.get(metric)) and is_number(row.get("kl_to_initial"))]
        if len(known) < 2:
            continue
        kls = [kl for _, kl in smoothed([(row["step"], row["kl_to_initial"]) for row in known])]
        ordered = sorted((kl, float(row[metric])) for kl, row in zip(kls, known, strict=True))
        raw = averaged(ordered, MOST_POINTS)
        found.append((training, raw, smoothed(raw)))
    return found


def _rule(mark: HackingOnset, x: Axis, y: Axis, below: int | None) -> list[Content]:
    """Return a vertical line at the mark's KL, in the run's colour.

    If `below` is set, the line gets a label with its step; `below` is the number of labels beneath it.
    """
    at, run = x.at(mark.kl), mark.where.get("run")
    colour = "" if run is None else f" c{run % COLOURS}"
    told = element("title", f"{mark.training}: {mark}" if mark.where else str(mark))
    rule: list[Content] = [element("line", told, class_=f"parting{colour}", x1=at, x2=at, y1=y.start, y2=y.end)]
    if below is not None:
        left = at > (x.start + x.end) / 2
        place = {"x": at - 5 if left else at + 5, "y": y.start - 4 - LABEL * below}
        anchor = "end" if left else "start"
        rule.append(element("text", f"step {mark.step}", class_=f"parted{colour}", text_anchor=anchor, **place))
    return rule
