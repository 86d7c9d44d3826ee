"""The plane of reward against KL: each policy's reward and its distance from the initial policy."""

from collections.abc import Sequence
from typing import Any

from gemsmith.recipes.report.chart import COLOURS, fit_axis, frame
from gemsmith.recipes.report.markup import Content, Markup, element, short

WIDTH, HEIGHT = 560, 260
LETTER, LINE = 7.0, 14.0  # width of a letter and height of a line of labels, in pixels


def reward_kl_plane(policies: Sequence[dict[str, Any]]) -> Markup | None:
    """Return a picture of each policy at its KL and reward, with both intervals; None for fewer than two policies."""
    placed = [(n, policy) for n, policy in enumerate(policies) if policy.get("kl") and policy.get("reward")]
    if len(placed) < 2:
        return None
    kls, rewards = (
        [policy[key][end] for _, policy in placed for end in ("low", "mean", "high")] for key in ("kl", "reward")
    )
    x, y = fit_axis(kls, 56, WIDTH - 16, 5), fit_axis(rewards, HEIGHT - 42, 10)
    points = [(x.at(policy["kl"]["mean"]), y.at(policy["reward"]["mean"])) for _, policy in placed]
    labels = place_labels([policy["stage"] for _, policy in placed], points)
    drawn: list[Content] = [frame(x, y)]
    for (number, policy), (cx, cy), (left, baseline) in zip(placed, points, labels, strict=True):
        kl, reward, colour = policy["kl"], policy["reward"], f"c{number % COLOURS}"
        told = f"{policy['stage']}: reward {short(reward['mean'])} at a KL of {short(kl['mean'])} nats"
        drawn += [
            element("line", class_=f"whisker {colour}", x1=x.at(kl["low"]), x2=x.at(kl["high"]), y1=cy, y2=cy),
            element("line", class_=f"whisker {colour}", x1=cx, x2=cx, y1=y.at(reward["low"]), y2=y.at(reward["high"])),
            element("circle", element("title", told), class_=f"dot {colour}", cx=cx, cy=cy, r=5),
            element("text", policy["stage"], class_="label", x=left, y=baseline),
        ]
    centre, middle = (x.start + x.end) / 2, (y.start + y.end) / 2
    turn = f"rotate(-90 12 {middle:.0f})"
    drawn += [
        element("text", "KL, nats (k1, sampled)", class_="name", x=centre, y=HEIGHT - 6, text_anchor="middle"),
        element("text", "reward", class_="name", x=12, y=middle, text_anchor="middle", transform=turn),
    ]
    picture = element("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label="reward against KL")
    return element("figure", element("figcaption", "reward against KL"), picture, class_="plane")


def place_labels(
    names: Sequence[str], points: Sequence[tuple[float, float]], rising: bool = False, least: float = 0.0
) -> list[tuple[float, float]]:
    """Return left end and baseline of each label, beside its point and clear of other points and earlier labels.

    Args:
        names: texts of the labels.
        points: pixel positions of the points.
        rising: prefer the left side, for points on a rising line.
        least: leftmost pixel where a label may begin.
    """
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    places = []
    for name, (x, y) in zip(names, points, strict=True):
        width = LETTER * len(name)
        lefts = (x - 9 - width, x + 9) if rising else (x + 9, x - 9 - width)
        choices = [(left, y + down) for down in (-7, 15, -20, 28) for left in lefts if least <= left <= WIDTH - width]
        boxes = [(left, line - LINE + 3, left + width, line + 3) for left, line in choices]
        free = [n for n, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)]
        chosen = free[0] if free else 0
        places.append(choices[chosen])
        taken.append(boxes[chosen])
    return places


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
