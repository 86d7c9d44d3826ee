"""The section of a `warm` stage: accuracy of its reward models, by part of the pairs, and between two members."""

from collections.abc import Mapping, Sequence
from typing import Any

from gemsmith.recipes.report.chart import Axis, fit_axis, frame
from gemsmith.recipes.report.contents import StageContents
from gemsmith.recipes.report.markup import Content, Markup, element, section, short, table

WIDTH, HEIGHT = 420, 220
FOLDED = 12  # rows of the table of subsets above which it is folded
NAMES = {"average": "average of weights", "ensemble": "mean of their scores", "probe": "probed head alone"}
SUBSETS = {"chosen_longer": "chosen is longer", "chosen_shorter": "chosen is shorter"}


def reward_models_section(stage: StageContents, warm: Mapping[str, Any]) -> Markup:
    """Return a table of the members and their combinations, accuracy on parts of the pairs, and mode connectivity."""
    pairs = warm.get("pairs", {})
    note = (
        f"Accuracy on {pairs.get('held_out', 'the')} held-out preference pairs, with 95% intervals. Later stages use "
        "the average of weights; it approximates the mean of the members' scores at a fraction of the cost. The "
        "calibration error is the difference between predicted confidence and actual accuracy. The correlation is "
        "between reward and length."
    )
    parts = [_models(warm), _subsets(warm), _connectivity(warm)]
    return section(f"Reward models ({stage.id})", parts, note=note)


def observation_1_sentence(points: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence on whether the WARM paper's Observation 1 holds: no accuracy is below the straight line.

    Args:
        points: points on the line between two members; each has an `accuracy` (mean, low, high), and `line`, the
            interpolated accuracy there.
    """
    below = [point for point in points if point["accuracy"]["high"] < point["line"]]
    above = sum(point["accuracy"]["low"] > point["line"] for point in points)
    claim = "The paper's Observation 1, that it is no lower,"
    if below:
        rates = ", ".join(f"{point['rate']:g}" for point in below)
        return f"{claim} does not hold: at {rates} the whole interval is below the line."
    counted = f"{above} entirely above it" if above else "none is entirely above it"
    return f"{claim} holds within the intervals: of {len(points)}, none is entirely below the line, and {counted}."


def _models(warm: Mapping[str, Any]) -> Markup:
    members = warm.get("members", [])
    started = any(member.get("start") is not None for member in members)
    rows: list[list[Content]] = []
    for member in members:
        start = member.get("start")
        begun = [f"step {start}" if start is not None else "last step"] if started else []
        settings = [*begun, short(member.get("learning_rate")), short(member.get("dropout"))]
        mark = "averaged" if member.get("kept") else "left out"
        rows.append([f"member {member['member'] + 1}", *settings, *_accuracy(member), *_trust(member), mark])
    blank = [""] * (3 if started else 2)
    for key, name in NAMES.items():
        if found := warm.get(key):
            shown = element("b", name) if key == "average" else name
            rows.append([shown, *blank, *_accuracy(found), *_trust(found), ""])
    head = ["reward model", *(["start in the SFT run"] if started else []), "learning rate", "dropout", "accuracy"]
    return table([*head, "95% interval", "calibration error", "log loss", "correlation with length", ""], rows)


def _subsets(warm: Mapping[str, Any]) -> Content:
    """Return a table of accuracy by task and by which side is longer, one column per model; None without parts."""
    models = {name: warm[key] for key, name in NAMES.items() if key != "probe" and warm.get(key)}
    models |= {f"member {member['member'] + 1}": member for member in warm.get("members", [])}
    named = {f"task {task}": ("by_task", task) for model in models.values() for task in model.get("by_task") or {}}
    rows: list[list[Content]] = []
    for name, (field, task) in {**{name: (key, "") for key, name in SUBSETS.items()}, **named}.items():
        found = [(model.get(field) or {}).get(task) if task else model.get(field) for model in models.values()]
        counted = next((subset for subset in found if subset), None)
        if counted:
            rows.append([name, f"{counted['pairs']:,}", *(_share(subset) for subset in found)])
    if not rows:
        return None
    summary = element("summary", "Accuracy on parts of the pairs")
    body = table(["pairs", "how many", *models], rows)
    return element("details", summary, body, class_="after", open=None if len(rows) > FOLDED else "")


def _share(subset: Mapping[str, Any] | None) -> Content:
    if not subset:
        return "n/a"
    mean, interval = _accuracy(subset)
    return [mean, element("small", interval)]


def _connectivity(warm: Mapping[str, Any]) -> Content:
    """Return a figure of the accuracies between the two best members, with the straight line between theirs."""
    found = warm.get("connectivity")
    ends = [
        member for index in (found or {}).get("members", []) for member in warm["members"] if member["member"] == index
    ]
    if not found or len(ends) != 2 or not found.get("points"):
        return None
    points = [(point["rate"], point["accuracy"]) for point in found["points"]]
    points = [(0.0, ends[0]["accuracy"]), *points, (1.0, ends[1]["accuracy"])]
    x = Axis(0.0, 1.0, 48, WIDTH - 22, (0.0, 0.25, 0.5, 0.75, 1.0))
    y = fit_axis([accuracy[end] for _, accuracy in points for end in ("low", "high")], HEIGHT - 44, 10)
    first, last = points[0][1]["mean"], points[-1][1]["mean"]
    straight = element("title", "the same mean of the two members' accuracies")
    drawn: list[Content] = [frame(x, y)]
    drawn.append(element("line", straight, class_="chord", x1=x.start, x2=x.end, y1=y.at(first), y2=y.at(last)))
    for rate, accuracy in points:
        cx, colour = x.at(rate), "c1" if rate in (0.0, 1.0) else "c0"
        told = element("title", " ".join(_accuracy({"accuracy": accuracy})))
        ys = {"y1": y.at(accuracy["low"]), "y2": y.at(accuracy["high"])}
        drawn.append(element("line", class_=f"whisker {colour}", x1=cx, x2=cx, **ys))
        drawn.append(element("circle", told, class_=f"dot {colour}", cx=cx, cy=y.at(accuracy["mean"]), r=4.5))
    names = [f"member {member['member'] + 1}" for member in ends]
    drawn += [
        element("text", name, class_="name", x=at, y=HEIGHT - 8, text_anchor=anchor)
        for name, at, anchor in ((names[0], x.start - 20, "start"), (names[1], WIDTH - 4, "end"))
    ]
    middle = (x.start + x.end) / 2
    drawn.append(element("text", "share of the second", class_="name", x=middle, y=HEIGHT - 8, text_anchor="middle"))
    title = f"Accuracy between {names[0]} and {names[1]}"
    picture = element("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title.lower())
    sentence = (
        f"The accuracy of weighted means of the weights of {names[0]} and {names[1]}, with 95% intervals, against the "
        f"same mean of their accuracies (dashed). {observation_1_sentence(found['points'])}"
    )
    figure = element("figure", element("figcaption", title), picture)
    return element("div", figure, element("p", sentence, class_="note"), class_="beside")


def _accuracy(entry: Mapping[str, Any]) -> list[str]:
    found = entry.get("accuracy") or {}
    if "mean" not in found:
        return ["n/a", ""]
    return [f"{100 * found['mean']:.1f}%", f"{100 * found['low']:.1f}% to {100 * found['high']:.1f}%"]


def _trust(entry: Mapping[str, Any]) -> list[str]:
    error = entry.get("calibration_error")
    percent = "n/a" if error is None else f"{100 * error:.1f}%"
    return [percent, short(entry.get("log_loss"), 2), short(entry.get("length_correlation"), 2)]
