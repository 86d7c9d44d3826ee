"""Answers of the first and the last policy to the same held-out prompts, side by side."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gemsmith.contracts.reading import reading
from gemsmith.recipes.report.contents import REMEDY, RunContents, whole_lines
from gemsmith.recipes.report.markup import Content, Markup, element, section, short

MOST_ANSWERS = 5  # distinct sampled answers shown per policy


def samples_sections(run: RunContents) -> list[Markup]:
    """Return a section for each evaluation that has kept samples of at least one policy."""
    sections = []
    for stage in run.stages:
        path = stage.folder / "output" / "samples.jsonl"
        with reading(path, "the samples of an evaluation", REMEDY):
            rows = [row for row in whole_lines(path) if row.get("policies")]
            if rows:
                ids = list(rows[0]["policies"])
                shown = list(dict.fromkeys((ids[0], ids[-1])))
                note = "Greedy answer first, then the sampled ones, the most common first; ✓ passes, ✗ fails."
                title = "Before and after" if len(shown) == 2 else "Samples"
                sections.append(section(title, [_card(row, shown) for row in rows], note=note))
    return sections


def _card(row: dict[str, Any], shown: Sequence[str]) -> Markup:
    answer = (
        element("span", "expected: ", element("code", str(row["answer"])), class_="expected")
        if row.get("answer") is not None
        else None
    )
    head = element("header", element("pre", str(row["prompt"])), answer)
    sides = [_side(id, row["policies"][id]) for id in shown if id in row["policies"]]
    return element("article", head, element("div", sides, class_="sides"), class_="sample")


def _side(id: str, answers: dict[str, Any]) -> Markup:
    sampled = answers.get("sampled", [])
    right = sum(bool(one.get("pass")) for one in sampled)
    counted = Counter((str(one["text"]), one.get("pass"), one.get("reward")) for one in sampled)
    items: list[Content] = []
    if answers.get("greedy"):
        items.append(_answer(str(answers["greedy"]["text"]), answers["greedy"].get("pass"), "greedy"))
    common = counted.most_common(MOST_ANSWERS)
    for (text, passed, reward), times in common:
        note = [f"{times} times"] if times > 1 else []
        note += [f"reward {short(reward)}"] if isinstance(reward, int | float) else []
        items.append(_answer(text, passed, " · ".join(note)))
    rest = len(sampled) - sum(times for _, times in common)
    more = element("li", element("small", f"and {rest} more"), class_="more") if rest else None
    score = element("small", f"{right} of {len(sampled)} sampled answers right") if sampled else None
    return element("div", element("h4", id, " ", score), element("ul", items, more))


def _answer(text: str, passed: bool | None, note: str) -> Markup:
    sign, tone = {True: ("✓", "right"), False: ("✗", "wrong")}.get(passed, ("·", "open"))  # type: ignore[arg-type]
    shown = element("pre", text) if text.strip() else element("em", "(empty)")
    return element("li", element("b", sign, class_=tone), shown, element("small", note))
