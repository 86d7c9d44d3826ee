"""The section of a `generate` stage: counts of kept and dropped answers, with examples of both."""

from typing import Any

from gemsmith.recipes.report.contents import StageContents
from gemsmith.recipes.report.markup import Content, Markup, element, section, short, table

MOST_ANSWERS = 6


def generated_section(stage: StageContents, generated: dict[str, Any]) -> Markup:
    """Return the section of one stage's `generated.json`."""
    metrics, samples = generated.get("metrics", {}), generated.get("samples", 1)
    asked = generated.get("prompts", 0)
    rows: list[list[Content]] = [
        ["answers kept", f"{generated.get('kept', 0):,}"],
        ["prompts asked", f"{asked:,}, {samples} completion{'s' if samples > 1 else ''} each"],
        ["prompts with an answer kept", _percent(metrics.get("answered"))],
        ["completions accepted", _percent(metrics.get("acceptance"))],
        ["accepted completions that are duplicates", _percent(metrics.get("duplicates"))],
        ["mean length", f"{short(metrics.get('length'))} tokens"],
    ]
    if "reward_best" in metrics:
        best, mean = metrics["reward_best"], metrics["reward_mean"]
        rows.append(["reward of the best, and of the mean answer", f"{short(best)}, {short(mean)}"])
    if generated.get("kl_bound"):
        rows.append([f"upper bound of the KL of Best-of-{samples}", f"{short(generated['kl_bound'])} nats"])
    for title, counts in (
        ("dropped", generated.get("dropped")),
        ("prompts left out", generated.get("prompts_left_out")),
    ):
        rows += [[f"{title}: {reason}", f"{count:,}"] for reason, count in (counts or {}).items()]
    note = (
        "A completion is kept if it ends before the length limit, scores at least `at_least` and is not a duplicate; "
        "the best completions of a prompt are kept first."
    )
    cards = [_card(row) for row in generated.get("shown", [])]
    return section(f"Generated answers ({stage.id})", table(["what", "found"], rows), cards, note=note)


def _card(row: dict[str, Any]) -> Markup:
    answer = (
        element("span", "expected: ", element("code", str(row["answer"])), class_="expected")
        if row.get("answer") is not None
        else None
    )
    answers = row["answers"]
    items: list[Content] = [_answer(one) for one in answers[:MOST_ANSWERS]]
    if len(answers) > MOST_ANSWERS:
        more = element("small", f"and {len(answers) - MOST_ANSWERS} more")
        items.append(element("li", more, class_="more"))
    sides = element("div", element("div", element("ul", items)), class_="sides")
    return element("article", element("header", element("pre", str(row["prompt"])), answer), sides, class_="sample")


def _answer(one: dict[str, Any]) -> Markup:
    kept = one["fate"] == "kept"
    shown = element("pre", one["text"]) if one["text"].strip() else element("em", "(empty)")
    reward = f" · reward {short(one['reward'])}" if isinstance(one.get("reward"), int | float) else ""
    sign = element("b", "✓" if kept else "✗", class_="right" if kept else "wrong")
    return element("li", sign, shown, element("small", f"{one['fate']}{reward}"))


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f}%"
