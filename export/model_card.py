"""The model card of an export: origin, training, scores, terms, and how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemsmith.export.lineage import Ancestor, Lineage
from gemsmith.export.publishing import published, without_local_paths

NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
_SETTINGS = ("steps", "batch", "learning_rate", "members", "runs", "iterations", "sampled_logits", "beta", "kl")


def write_model_card(folder: Path, title: str, lineage: Lineage, proof: Mapping[str, Any]) -> None:
    """Write `README.md` into an exported folder, and `NOTICE` if the weights may descend from Gemma's.

    Args:
        folder: the export.
        title: name of the model.
        lineage: its training history.
        proof: the content of `export.json`.
    """
    gemma = descends_from_gemma(lineage)
    sections = [_header(lineage, gemma), f"# {title}", _opening(lineage, proof), _use(title, proof), _training(lineage)]
    sections += [_scores(lineage.scores), _checks(proof), _terms(lineage)]
    (folder / "README.md").write_text("\n\n".join(section for section in sections if section) + "\n")
    if gemma:
        (folder / "NOTICE").write_text(NOTICE + "\n")


def descends_from_gemma(lineage: Lineage) -> bool:
    """Return False only if every policy and teacher is known to have started from the random weights of `tiny`."""
    return lineage.origins == [] or any(origin != "tiny" for origin in lineage.origins)


def _header(lineage: Lineage, gemma: bool) -> str:
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation"]
    if gemma:
        lines.append("license: gemma")
    hub = [origin for origin in lineage.origins if _is_hub_id(origin)]
    if hub:
        lines += ["base_model:", *(f"  - {origin}" for origin in hub)]
    return "\n".join([*lines, "tags:", "  - gemma3_text", "  - gemsmith", "---"])


def _is_hub_id(origin: str) -> bool:
    return origin.count("/") == 1 and not origin.startswith((".", "/", "~")) and not origin.endswith(".gguf")


def _opening(lineage: Lineage, proof: Mapping[str, Any]) -> str:
    weights = f"{proof['parameters']:,} parameters in {proof['dtype']}"
    if not lineage.stages:
        return f"A Gemma 3 text model with {weights}, exported by gemsmith from a folder without a history."
    origins = ", ".join(
        "a random tiny model" if origin == "tiny" else f"`{published(origin)}`" for origin in lineage.origins
    )
    last = lineage.stages[-1]
    point = "the policy" if lineage.liti is None else f"the point at {lineage.liti:g} (0 its start, 1 its last merge)"
    return (
        f"A Gemma 3 text model with {weights}. It is {point} of stage `{last.id}` ({last.kind}) of the gemsmith "
        f"run `{lineage.run}` (seed {lineage.seed}). The weights it started from, and its teachers', are from "
        f"{origins or 'an unrecorded source'}; they were changed by training."
    )


def _use(title: str, proof: Mapping[str, Any]) -> str:
    parts = ["## How to use it"]
    if "transformers" in proof["formats"]:
        parts.append(_use_transformers(title))
    if "adapter" in proof["formats"]:
        parts.append(
            f"`adapter/` is a LoRA adapter of {published(proof['base'])}: "
            '`peft.PeftModel.from_pretrained(base, "adapter")` puts it on that model.'
        )
    if "gguf" in proof["formats"]:
        gguf = proof["gguf"]
        parts.append(
            f"`{gguf['file']}` ({gguf['bytes'] / 1e6:,.1f} MB; matrices in {gguf['matrices']}, embedding in "
            f"{gguf['embedding']}) is for llama.cpp and tools built on it: `llama-cli -m {gguf['file']}`. In "
            "transformers: `from_pretrained(folder, gguf_file=...)`."
        )
    return "\n\n".join(parts)


def _use_transformers(title: str) -> str:
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "{title}"  # this folder, or the hub id it is uploaded to
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
messages = [{{"role": "user", "content": "What can you do?"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**prompt, max_new_tokens=64)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
```

Prompts must go through the chat template. A completion ends at token 1 (`<eos>`) or 106 (`<end_of_turn>`);
`generation_config.json` names both. In a terminal: `gemsmith chat <this folder>`."""


def _training(lineage: Lineage) -> str:
    if not lineage.stages:
        return ""
    lines = ["## How it was trained", "", "| stage | kind | started from | data | settings |", "|---|---|---|---|---|"]
    lines += [_stage_row(stage) for stage in lineage.stages]
    if lineage.recipe:
        recipe = without_local_paths(lineage.recipe.rstrip())
        lines += ["", "<details><summary>The whole recipe</summary>", "", "```yaml", recipe]
        lines += ["```", "", "</details>"]
    return "\n".join(lines)


def _stage_row(stage: Ancestor) -> str:
    inner = stage.config.get("inner") or {}
    merged = {**stage.config, **{name: value for name, value in inner.items() if name != "kind"}}
    policy = stage.config.get("policy") or {}
    start = policy.get("from") or published(policy.get("model") or "")
    teacher = stage.config.get("teacher") or {}
    settings = [f"{name} {merged[name]:g}" for name in _SETTINGS if isinstance(merged.get(name), int | float)]
    if teacher:
        settings.append(f"teacher {teacher.get('from') or published(str(teacher.get('model')))}")
    if merged.get("rewards"):
        settings.append("rewards " + " + ".join(merged["rewards"]))
    kind = f"{stage.kind} of {inner['kind']}" if inner else stage.kind
    return f"| {stage.id} | {kind} | {start} | {merged.get('data') or ''} | {', '.join(settings)} |"


def _scores(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return ""
    lines = [
        "## Evaluation",
        "",
        f"{scores['prompts']} held-out prompts, {scores['samples']} sampled completions each, and a greedy one. A pass "
        f"is reward `{scores['passes']}` at 1. KL is measured from `{scores['initial']}`, in nats per completion. "
        "In brackets: 95% "
        "intervals over prompts.",
        "",
        "| policy | sampled pass rate | greedy pass rate | reward | KL | tokens |",
        "|---|---|---|---|---|---|",
    ]
    for policy in scores["policies"]:
        rates = [_interval(policy[name], 100, "%") for name in ("pass_rate", "greedy_pass_rate")]
        others = [_interval(policy[name], 1, "") for name in ("reward", "kl", "length")]
        lines.append("| " + " | ".join([policy["stage"], *rates, *others]) + " |")
    return "\n".join(lines)


def _interval(interval: Mapping[str, float], scale: float, unit: str) -> str:
    mean, low, high = (scale * interval[name] for name in ("mean", "low", "high"))
    digits = 1 if scale == 100 else 2
    return f"{mean:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"


def _checks(proof: Mapping[str, Any]) -> str:
    found = []
    if proof["reload_gap"] is not None:
        found.append(
            "The folder was loaded again with transformers: every weight came back as it was written, and on "
            f"{proof['sequences']} sampled completions the log-probability of a token differs from the trained "
            f"policy's by at most {proof['reload_gap']:.3g} nats."
        )
    if gguf := proof.get("gguf"):
        found.append(
            "The GGUF file was read back by the gguf package and by transformers: bytes, weights and, under equal "
            "weights, log-probabilities are as expected. The number format changes a token's "
            f"log-probability by {gguf['mean_gap']:.3g} nats on average, and at most {gguf['gap']:.3g}. "
            f"{_llama_cpp(gguf['llama_cpp'])}"
        )
    if adapter := proof.get("adapter"):
        found.append(
            "Base and adapter were combined by peft: the log-probability of a token differs from the merged "
            f"policy's by at most {adapter['gap']:.3g} nats."
        )
    if proof["base"] is not None:
        found.append(
            f"The policy differs from its base, {proof['base']}, by {100 * proof['relative_difference']:.3g}% of the "
            "weights' norm."
        )
    if mark := proof.get("quantisation"):
        found.append(
            f"It was trained for quantisation: its matrices are on the grid of {mark['format']}, its embedding on that "
            f"of {mark['embedding']}."
        )
    return "\n".join(["## What was checked", "", " ".join(found)])


def _llama_cpp(found: Mapping[str, Any]) -> str:
    if found["run"]:
        return (
            f"llama.cpp was compared too: over {found['compared']} of its most likely entries it differs from the "
            "file's "
            f"weights by {found['mean_gap']:.3g} nats in the mean, and at most {found['gap']:.3g}."
        )
    return f"llama.cpp was not run: {found['reason']}."


def _terms(lineage: Lineage) -> str:
    if not descends_from_gemma(lineage):
        return "## Terms\n\nTrained from random weights: it contains no weights of Gemma, and no teacher that does."
    derivative = "This is a model derivative: its weights were modified."
    if not lineage.stages:
        derivative = (
            "This is a model derivative if its weights, or those of a model that taught it, descend from Gemma's."
        )
    return (
        f"## Terms\n\n{NOTICE}. {derivative} If you redistribute it, you must pass "
        "on those terms and their prohibited-use policy (ai.google.dev/gemma/prohibited_use_policy), and keep the file "
        "NOTICE."
    )
