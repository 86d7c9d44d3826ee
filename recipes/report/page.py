"""The whole report page: facts about the run, scores, training curves, and how to use the result."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from gemsmith.contracts.reading import reading
from gemsmith.contracts.stage import write_atomically
from gemsmith.evals.comparison import gain
from gemsmith.recipes.report.contents import RunContents, StageContents, read_contents
from gemsmith.recipes.report.curves import curves
from gemsmith.recipes.report.details import details_sections
from gemsmith.recipes.report.graph import stage_graph
from gemsmith.recipes.report.markup import Content, Markup, duration, element, render, section, short
from gemsmith.recipes.report.samples import samples_sections
from gemsmith.recipes.report.scores import scores_sections


def write_report(run_folder: Path) -> Path:
    """Write `report.html` into a run's folder, from the results so far, and return its path.

    Raises:
        UserError: the folder does not contain a run.
    """
    path = run_folder / "report.html"
    contents = read_contents(run_folder)
    with reading(run_folder, "the results of a run", "see which of its files was changed, and put it back"):
        text = str(page(contents))
    write_atomically(path, text)
    return path


def page(run: RunContents) -> Markup:
    """Return the whole HTML document."""
    style = files("gemsmith.recipes.report").joinpath("style.css").read_text()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{run.name} · gemsmith"),
        element("style", Markup(style)),
    )
    scores = scores_sections(run)
    waiting = (
        None if scores else section("Policies", note="No evaluation has finished yet; its table will be shown here.")
    )
    with reading(run.folder / "environment.json", "the machine and the software of a run", "delete it"):
        header, repeat = _header(run), _recipe_and_machine(run)
    body = element(
        "main",
        header,
        _headline(run),
        section("Stages", stage_graph(run.stages)) if run.stages else None,
        _failures(run),
        scores or waiting,
        samples_sections(run),
        curves(run),
        details_sections(run),
        _loading(run),
        repeat,
    )
    return render([Markup("<!doctype html>\n"), element("html", head, element("body", body), lang="en")])


def _header(run: RunContents) -> Markup:
    finished = sum(stage.status == "finished" for stage in run.stages)
    facts = {
        "started": run.started.replace("T", " ").replace("+00:00", " UTC"),
        "time of all stages": duration(run.seconds),
        "stages": f"{finished} of {len(run.stages)} finished",
        "seed": str(run.seed),
        "machine": machine(run.environment),
    }
    listed = [element("div", element("dt", name), element("dd", value)) for name, value in facts.items() if value]
    description = element("p", run.description, class_="lead") if run.description else None
    return element("header", element("h1", run.name), description, element("dl", listed), class_="top")


def machine(environment: Any) -> str:
    """Return the machine in one line, from the fields that `environment.json` has."""
    parts = [str(environment[key]) for key in ("processor",) if environment.get(key)]
    if environment.get("cores"):
        parts.append(f"{environment['cores']} cores")
    if environment.get("memory_bytes"):
        parts.append(f"{environment['memory_bytes'] / 2**30:.0f} GiB")
    gpus = environment.get("gpus") or []
    parts += [str(gpu) for gpu in gpus] or ["no GPU"] if parts else []
    return ", ".join(parts)


def _headline(run: RunContents) -> Content:
    """Return the result in one sentence: the last policy compared with the first."""
    scores = next((found for stage in run.stages if (found := stage.output("scores.json"))), None)
    if not scores or len(scores.get("policies", [])) < 2:
        return None
    first, last = scores["policies"][0], scores["policies"][-1]
    lead = gain(scores, last["stage"], first["stage"])
    settled = "." if lead.apart else ": no difference is shown."
    distance: list[Content] = []
    if last.get("kl"):
        distance = [f", at a KL of {short(last['kl']['mean'])} nats from ", element("code", scores["initial"])]
    sentence: list[Content] = [
        element("b", last["stage"]),
        f" passes on {100 * last['pass_rate']['mean']:.1f}% of its sampled answers, ",
        element("b", first["stage"]),
        f" on {100 * first['pass_rate']['mean']:.1f}%",
        distance,
        f". The difference is {lead}{settled}".replace("-", "−"),
    ]
    return element("p", sentence, class_="headline")


def _failures(run: RunContents) -> Content:
    found = []
    for stage in run.stages:
        if stage.status == "failed":
            words = stage.log_tail()
            body = element("pre", words) if words else None
            found.append(element("div", element("h3", f"{stage.id} failed"), body, class_="failure"))
    return section("What failed", found) if found else None


def _loading(run: RunContents) -> Content:
    stage = _result(run)
    if stage is None:
        return None
    folder = str((stage.folder / "output").resolve())
    python = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"folder = {folder!r}\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "model = AutoModelForCausalLM.from_pretrained(folder)\n"
        'messages = [{"role": "user", "content": "…"}]\n'
        'options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}\n'
        "inputs = tokenizer.apply_chat_template(messages, **options)\n"
        "completion = model.generate(**inputs, max_new_tokens=64)[0, inputs['input_ids'].shape[1]:]\n"
        "print(tokenizer.decode(completion, skip_special_tokens=True))"
    )
    quoted = _quoted(folder)
    blocks = [("transformers", python), ("vLLM", f"vllm serve {quoted}"), ("gemsmith", f"gemsmith chat {quoted}")]
    blocks += _gguf_files(run)
    shown = [element("div", element("h4", name), element("pre", code, class_="code")) for name, code in blocks]
    return section("How to load the result", shown, note=f"The policy of stage {stage.id}.")


def _result(run: RunContents) -> StageContents | None:
    """Return the finished stage whose result users load: the last transformers export, else the last policy."""
    finished = [stage for stage in run.stages if stage.status == "finished"]
    exports = [stage for stage in finished if stage.produces == "export" and "transformers" in _formats(stage)]
    policies = [stage for stage in finished if stage.produces == "policy"]
    return next(iter([*exports[::-1], *policies[::-1]]), None)


def _formats(stage: StageContents) -> list[str]:
    formats: list[str] = (stage.output("export.json") or {}).get("formats") or ["transformers"]
    return formats


def _gguf_files(run: RunContents) -> list[tuple[str, str]]:
    """Return the command that runs each GGUF file of the run's exports."""
    exports = [(stage, stage.output("export.json") or {}) for stage in run.stages if stage.status == "finished"]
    paths = [str((s.folder / "output" / found["gguf"]["file"]).resolve()) for s, found in exports if "gguf" in found]
    return [("llama.cpp", f"llama-cli -m {_quoted(path)}") for path in paths]


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"


def _recipe_and_machine(run: RunContents) -> Content:
    libraries = {name: version for name, version in (run.environment.get("libraries") or {}).items() if version}
    rest = {key: run.environment[key] for key in ("python", "platform", "processes") if run.environment.get(key)}
    lines = "\n".join(f"{name} {value}" for name, value in {**rest, **libraries}.items())
    parts = [("The recipe, with all its defaults", run.recipe), ("Software", lines)]
    folded = [
        element("details", element("summary", title), element("pre", text, class_="code"))
        for title, text in parts
        if text
    ]
    return section("To repeat this", folded) if folded else None
