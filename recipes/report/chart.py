"""Axes, lines and points as SVG; the page's style sheet sets their colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gemsmith.recipes.report.markup import Content, Markup, element, short

COLOURS = 6  # the style sheet's classes c0 to c5
MOST_POINTS = 240  # points per line: more are averaged in groups, because a panel is about that many pixels wide


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to pixels, with its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return the pixel position of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclass(frozen=True)
class CurveLine:
    """One line of a chart: points in order, in pieces that are not joined."""

    name: str
    pieces: Sequence[Sequence[tuple[float, float]]]


def fit_axis(values: Sequence[float], start: float, end: float, count: int = 4) -> Axis:
    """Return an axis from pixel `start` to `end` that contains all values, with about `count` round ticks."""
    low, high = min(values), max(values)
    if high - low < 1e-12 * max(1.0, abs(high)):
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    else:
        pad = 0.06 * (high - low)
        low, high = (0.0 if 0 <= low < 0.3 * high else low - pad), high + pad
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(size * magnitude for size in (1, 2, 2.5, 5, 10) if size * magnitude >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, start, end, tuple(index * step for index in range(first, last + 1)))


def line_chart(
    title: str, lines: Sequence[CurveLine], breaks: Sequence[float] = (), width: int = 340, height: int = 180
) -> Markup:
    """Return a panel: smoothed lines, the raw values in pale colours behind them, and a vertical line at each break."""
    points = [point for line in lines for piece in line.pieces for point in piece]
    x = _steps_axis([point[0] for point in points], 44, width - 16)
    y = fit_axis([point[1] for point in points], height - 26, 8)
    drawn: list[Content] = [frame(x, y)]
    drawn += [element("line", class_="break", x1=x.at(b), x2=x.at(b), y1=y.start, y2=y.end) for b in breaks]
    for number, line in enumerate(lines):
        colour = f"c{number % COLOURS}"
        for piece in line.pieces:
            thin = averaged(piece, MOST_POINTS)
            smooth = smoothed(thin)
            if smooth is not thin:
                drawn.append(element("path", class_=f"raw {colour}", d=path(thin, x, y)))
            label = element("title", f"{line.name or title}: {short(piece[-1][1])} at step {short(piece[-1][0])}")
            drawn.append(element("path", label, class_=f"line {colour}", d=path(smooth, x, y)))
            if len(piece) == 1:
                drawn.append(element("circle", class_=f"dot {colour}", cx=x.at(piece[0][0]), cy=y.at(piece[0][1]), r=3))
    picture = element("svg", drawn, viewBox=f"0 0 {width} {height}", role="img", aria_label=f"{title} by step")
    return element("figure", element("figcaption", title), picture)


def frame(x: Axis, y: Axis) -> Markup:
    """Return grid lines and tick labels."""
    rules = [element("line", class_="grid", x1=x.start, x2=x.end, y1=y.at(tick), y2=y.at(tick)) for tick in y.ticks]
    names = [
        element("text", short(tick), class_="tick", x=x.start - 5, y=y.at(tick) + 3.5, text_anchor="end")
        for tick in y.ticks
    ]
    names += [
        element("text", short(tick), class_="tick", x=x.at(tick), y=y.start + 15, text_anchor="middle")
        for tick in x.ticks
    ]
    base = element("line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    return Markup("".join([*rules, base, *names]))


def legend(names: Sequence[str]) -> Markup | None:
    """Return the lines' names beside their colours; None for fewer than two lines."""
    if len(names) < 2:
        return None
    entries = [element("span", element("i", class_=f"key c{n % COLOURS}"), name) for n, name in enumerate(names)]
    return element("p", entries, class_="legend")


def smoothed(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Return a centred, triangular moving average over a tenth of the points; fewer than 20 points are unchanged."""
    if len(points) < 20:
        return points
    reach = max(2, len(points) // 20)
    result = []
    for middle, (x, _) in enumerate(points):
        near = range(max(0, middle - reach), min(len(points), middle + reach + 1))
        weights = [reach + 1 - abs(index - middle) for index in near]
        mean = sum(weight * points[index][1] for weight, index in zip(weights, near, strict=True)) / sum(weights)
        result.append((x, mean))
    return result


def averaged(points: Sequence[tuple[float, float]], most: int) -> Sequence[tuple[float, float]]:
    """Return at most `most` points, as means of groups of neighbours."""
    size = math.ceil(len(points) / most)
    if size <= 1:
        return points
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def _steps_axis(values: Sequence[float], start: float, end: float) -> Axis:
    fitted = fit_axis([0.0, *values], start, end)
    high = max(values) or 1.0
    return Axis(0.0, high, start, end, tuple(tick for tick in fitted.ticks if 0 <= tick <= high))


def path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """Return the `d` attribute of an SVG path through the points."""
    return "M" + "L".join(f"{x.at(px):.1f},{y.at(py):.1f}" for px, py in points)
