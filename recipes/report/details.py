"""Sections of single stage kinds: WARM's members, the angles of WARP's merges, quantisation and export checks."""

from collections.abc import Sequence
from typing import Any

from gemsmith.recipes.report.contents import RunContents, StageContents
from gemsmith.recipes.report.generated_answers import generated_section
from gemsmith.recipes.report.markup import Content, Markup, element, section, short, table
from gemsmith.recipes.report.pareto_front import pareto_front_section
from gemsmith.recipes.report.reward_models import reward_models_section

FOLDED = 8  # tables with more rows are folded


def details_sections(run: RunContents) -> list[Markup]:
    """Return the sections of all stages whose output contains one of the known files."""
    makers = (
        ("generated.json", generated_section),
        ("warm.json", reward_models_section),
        ("warp.json", _warp),
        ("qat.json", _qat),
        ("export.json", _export),
    )
    sections = []
    for name, make in makers:
        for stage in run.stages:
            with stage.reading(f"output/{name}"):
                if found := stage.output(name):
                    sections.append(make(stage, found))
    return sections


def _warp(stage: StageContents, warp: dict[str, Any]) -> Markup:
    tables: list[Content] = []
    for merge in warp.get("merges", []):
        groups = merge.get("groups", [])
        rows: list[list[Content]] = [
            [
                _group_name(group["group"]),
                _listed(group["angles"], "°"),
                _listed(group["norms"]),
                short(_ratio(group["norms"])),
                short(group["norm"]),
            ]
            for group in groups
        ]
        angles = [angle for group in groups for angle in group["angles"] if angle is not None]
        spread = f", angles {short(min(angles))}° to {short(max(angles))}°" if angles else ""
        listed = table(["group", "angle", "norms of the runs", "first over second", "norm of the merge"], rows)
        ratios = [ratio for group in groups if (ratio := _ratio(group["norms"]))]
        spread += f", norm of the first over the second {short(min(ratios))} to {short(max(ratios))}" if ratios else ""
        summary = f"iteration {merge['iteration'] + 1}: {len(groups)} groups{spread}"
        tables.append(element("details", element("summary", summary), listed, open=None if len(rows) > FOLDED else ""))
    way = "their plain average (LERP)" if warp.get("merge") == "lerp" else "SLERP"
    note = (
        f"Merged by {way}. The table shows the angle between the runs' task vectors, and their norms. Near 90° (the "
        "paper's case) averaging shrinks the task vector and SLERP keeps its length; near 0° the runs learnt the same "
        "and merging changes little."
    )
    return section(f"Merges ({stage.id})", tables, pareto_front_section(warp.get("front", {})), note=note)


def _export(stage: StageContents, proof: dict[str, Any]) -> Markup:
    base = proof.get("base")
    rows: list[list[Content]] = [
        ["number format", str(proof.get("dtype", "n/a"))],
        ["parameters", f"{proof['parameters']:,}" if isinstance(proof.get("parameters"), int) else "n/a"],
        ["completions compared", str(proof.get("sequences", "n/a"))],
    ]
    if proof.get("reload_gap") is not None:
        rows.append(["largest gap of a log-probability after reloading", f"{short(proof['reload_gap'])} nats"])
    if gguf := proof.get("gguf"):
        rows.append(["GGUF file", element("code", gguf["file"])])
        rows.append(["GGUF file size", f"{gguf['bytes'] / 1e6:,.1f} MB"])
        rows.append(["type of the GGUF matrices", f"{gguf['matrices']}, embedding {gguf['embedding']}"])
        rows.append(["matrices that the GGUF type rounds", str(gguf["moved"])])
        rows.append(["mean gap of a log-probability from rounding", f"{short(gguf['mean_gap'])} nats"])
        rows.append(["largest gap of a log-probability from rounding", f"{short(gguf['gap'])} nats"])
        rows.append(["llama.cpp", _llama_cpp(gguf["llama_cpp"])])
    if adapter := proof.get("adapter"):
        rows.append(["adapter", f"rank {adapter['rank']}, {adapter['bytes'] / 1e6:,.1f} MB"])
        rows.append(["largest gap of a log-probability, base and adapter", f"{short(adapter['gap'])} nats"])
    if base is not None:
        rows.append(
            [
                ["largest difference of a weight from ", element("code", str(base))],
                short(proof.get("largest_difference")),
            ]
        )
        rows.append(
            [
                ["norm of the difference over the norm of ", element("code", str(base))],
                short(proof.get("relative_difference")),
            ]
        )
    note = "Each format was read back and compared with the trained policy; an export that equals its base fails."
    return section(f"Export ({stage.id})", table(["check", "found"], rows), note=note)


def _llama_cpp(found: dict[str, Any]) -> str:
    return f"gap {short(found['gap'])} nats" if found["run"] else f"not run: {found['reason']}"


def _qat(stage: StageContents, found: dict[str, Any]) -> Markup:
    rows: list[list[Content]] = [
        [name, short(found[key]["kl"]), f"{100 * found[key]['agreement']:.1f}%"]
        for name, key in (("rounded after training (PTQ)", "ptq"), ("trained for rounding (QAT)", "qat"))
    ]
    note = (
        f"Matrices in {found['format']}, embedding in {found['embedding']}. On {found['rows']} held-out demonstrations "
        f"({found['qat']['tokens']:,} tokens): KL(unquantised || quantised) over the whole vocabulary, and the share "
        "of tokens for which both models have the same most likely token."
    )
    columns = ["weights", "KL (nats per token)", "same most likely token"]
    return section(f"Quantisation ({stage.id})", table(columns, rows), note=note)


def _ratio(norms: Sequence[float]) -> float | None:
    """Return the first run's norm over the second's; None if there is no second run or its norm is 0."""
    return norms[0] / norms[1] if len(norms) > 1 and norms[1] else None


def _group_name(name: str) -> str:
    return name.removeprefix("model.")


def _listed(values: Sequence[float | None], unit: str = "") -> str:
    return ", ".join("n/a" if value is None else f"{short(value)}{unit}" for value in values) or "n/a"
