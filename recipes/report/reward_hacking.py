"""The watch for reward hacking: what is learnt and each control against the KL, and where a control parts from it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gemsmith.recipes.report.chart import COLOURS, MOST_POINTS, Axis, averaged, fit_axis, frame, path, smoothed
from gemsmith.recipes.report.contents import StageContents
from gemsmith.recipes.report.markup import Content, Markup, element
from gemsmith.rl.rollouts.reward_hacking import HackingOnset, hacking_onsets, is_number, learnt_metric

WIDTH, PANEL, GAP, LEFT, RIGHT, BOTTOM = 340, 84, 26, 44, 16, 34
LABEL = 12  # height of one
NOTE = (
    "Moving averages in the order of the KL, itself averaged over steps first, with the logged values pale behind. "
    "A control parts from the reward in its highest of ten equal parts of the run, when in the last part it is lower "
    "than there, and the learnt reward higher, by more than four standard errors of the difference, noise that lasts "
    "from step to step allowed for. A dashed rule stands at the KL of that part: beyond it the policy gains what is "
    "learnt and loses what the control measures."
)


@dataclass(frozen=True)
class TrainingRun:
    """One run of one iteration of a stage: its name in the legend, its number there, and its rows in order."""

    name: str
    number: int
    iteration: int | None
    rows: Sequence[dict[str, Any]]


def hacking_watch(stage: StageContents, normalised: Iterable[str]) -> Content:
    """Whether a control parts from the reward, in words, and a figure for each iteration; nothing without controls.

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
    """A sentence on the first training in which a control parts, and in how many it does."""
    those = [onset for onset in found if onset.control == control]
    share = f" ({those[0].training}; it parts in {len(those)} of {trainings} trainings)" if trainings > 1 else ""
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
    """Panels over one axis of KL: what is learnt, and under it each control that is known at two rows or more."""
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
    """Each training with its values in the order of the smoothed KL, as logged and smoothed."""
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
    """A rule at the mark's KL, in its run's colour; with `below`, the number of labels under it, its step beside it."""
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
