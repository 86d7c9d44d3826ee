"""A drawing of the stage graph: one column per depth, each stage with its kind, state and time."""

from collections.abc import Sequence

from gemsmith.recipes.report.contents import StageContents
from gemsmith.recipes.report.markup import Content, Markup, duration, element

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 168, 58, 58, 18, 6
STATES = {
    "finished": ("✓", "finished"),
    "running": ("▸", "running"),
    "failed": ("✗", "failed"),
    "interrupted": ("‖", "interrupted"),
}


def stage_graph(stages: Sequence[StageContents]) -> Markup:
    """Draw the stages and their inputs; an input that another input already implies is drawn pale."""
    places = layout({stage.id: stage.inputs for stage in stages})
    width = max(column for column, _ in places.values()) * (WIDTH + GAP_X) + WIDTH + 2 * MARGIN
    height = max(row for _, row in places.values()) * (HEIGHT + GAP_Y) + HEIGHT + 2 * MARGIN
    corners = {
        id: (MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y)) for id, (column, row) in places.items()
    }
    ancestors = _ancestors({stage.id: stage.inputs for stage in stages})
    edges: list[Content] = []
    for stage in stages:
        for name in stage.inputs:
            if name in corners:
                implied = any(name in ancestors.get(other, ()) for other in stage.inputs)
                edges.append(_edge(corners[name], corners[stage.id], implied))
    nodes = [_node(stage, *corners[stage.id]) for stage in stages]
    picture = element(
        "svg",
        edges,
        nodes,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        role="img",
        aria_label="stage graph",
    )
    return element("div", picture, class_="graph")


def layout(inputs: dict[str, tuple[str, ...]]) -> dict[str, tuple[int, float]]:
    """Return column and row of each stage: the column is its depth, rows follow the mean row of its inputs.

    Args:
        inputs: input ids of each stage; a stage comes after its inputs.
    """
    columns: dict[str, int] = {}
    for id, names in inputs.items():
        columns[id] = max((columns[name] + 1 for name in names if name in columns), default=0)
    tallest = max(list(columns.values()).count(column) for column in columns.values())
    places: dict[str, tuple[int, float]] = {}
    for column in range(max(columns.values()) + 1):
        members = [id for id in inputs if columns[id] == column]
        heights = {id: _mean([places[name][1] for name in inputs[id] if name in places]) for id in members}
        members.sort(key=lambda id: heights[id])
        top = (tallest - len(members)) / 2
        for row, id in enumerate(members):
            places[id] = (column, top + row)
    return places


def _ancestors(inputs: dict[str, tuple[str, ...]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for id, names in inputs.items():
        found[id] = set(names).union(*(found.get(name, set()) for name in names))
    return found


def _node(stage: StageContents, x: float, y: float) -> Markup:
    sign, word = STATES.get(stage.status, ("·", stage.status))
    time = f" · {duration(stage.seconds)}" if stage.seconds else ""
    state = f"s-{stage.status.replace(' ', '-')}"
    return element(
        "g",
        element("title", f"{stage.id} ({stage.kind}): {word}{time}"),
        element("rect", class_="node", x=x, y=y, width=WIDTH, height=HEIGHT, rx=8),
        element("rect", class_="state", x=x, y=y + 8, width=4, height=HEIGHT - 16, rx=2),
        element("text", _clip(stage.id, 17), class_="id", x=x + 14, y=y + 24),
        element("text", _clip(stage.kind, 11), class_="kind", x=x + WIDTH - 10, y=y + 24, text_anchor="end"),
        element("text", f"{sign} {word}{time}", class_="time", x=x + 14, y=y + 44),
        class_=state,
    )


def _edge(start: tuple[float, float], end: tuple[float, float], implied: bool) -> Markup:
    x1, y1, x2, y2 = start[0] + WIDTH, start[1] + HEIGHT / 2, end[0], end[1] + HEIGHT / 2
    bend = min(GAP_X * 0.6, (x2 - x1) / 2)
    d = f"M{x1:.1f},{y1:.1f}C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
    return element("path", class_="edge implied" if implied else "edge", d=d)


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
