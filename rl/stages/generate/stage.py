"""The generate stage: sample answers from a policy and keep the best by the rewards, as data for other stages.

Prompts are processed in chunks. A finished chunk is saved, so that an interrupted stage does not sample it again.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.reading import as_object, read_json, reading
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.curation.example import Example, unique_prompts
from gemsmith.curation.generated import FILE, answer_row, check_columns
from gemsmith.curation.load import load_data
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.samplers.contract import Samples
from gemsmith.policy.samplers.logprob_mismatch import check, check_completions, handful, scored
from gemsmith.policy.samplers.open import open_sampler
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.rl.algorithms.best_of_n import kl_bound
from gemsmith.rl.rewards.compatibility import check_routes
from gemsmith.rl.rewards.compose import open_rewards
from gemsmith.rl.rewards.reward import columns_of, shortened
from gemsmith.rl.stages.generate.config import GenerateStage
from gemsmith.rl.stages.generate.selection import Completion, Fate, fates, metrics, normalised, tally, worse_than

TOO_LONG = "too long for the policy's context"
REPEATED = "repeated prompt and answer"
LIKELY: tuple[tuple[str, str], ...] = (
    ("unfinished", "raise sampling.max_tokens, or fine-tune the policy first, so that it ends its turn"),
    ("below at_least", "lower at_least, raise samples, or use a better policy"),
    ("without a reward", "check which rows the rewards apply to"),
    ("empty", "use a policy that does not answer with empty text"),
)


def run(config: GenerateStage, stage: Stage) -> None:
    """Write the kept answers (`answers.jsonl`) and a summary (`generated.json`) to `stage.output`.

    Raises:
        UserError: no answer was kept, or the settings do not fit the data, the rewards or the policy. Finished chunks
            stay in the stage's folder.
    """
    if stage.output.exists():  # the run was killed after saving and before the stage was recorded as finished
        return
    examples = _examples(config, stage)
    # The loop below writes one line per chunk, also for chunks of an earlier attempt.
    stage.metrics_file.unlink(missing_ok=True)
    sums: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    with ExitStack() as opened:
        answer: Callable[[Sequence[Example], int], dict[str, Any]] | None = None
        for number, (start, part) in enumerate(_chunks(config, examples)):
            path = stage.folder / "chunks" / f"{number:06}.json"
            chunk = _read(path)
            if chunk is None:
                answer = answer or _answering(config, stage, examples, opened)
                chunk = answer(part, start)
                write_atomically(path, json.dumps(chunk, ensure_ascii=False) + "\n")
            own = Counter(chunk["sums"])
            sums.update(own)
            rows += chunk["rows"]
            shown += chunk["shown"][: config.shown - len(shown)]
            values = metrics(own) if own["samples"] else {}
            stage.log(values, step=number + 1)
            few = {name: values[name] for name in ("acceptance", "reward_best") if name in values}
            stage.progress(start + len(part), len(examples), "prompt", **few)
    if not rows:
        raise UserError(_nothing(config, sums, shown))
    _save(config, stage, sums, rows, shown)


def _examples(config: GenerateStage, stage: Stage) -> list[Example]:
    """Return the distinct training prompts, or a subset chosen by the seed, in the order of the data."""
    split = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)
    examples = unique_prompts(split.train)
    if config.prompts is not None and config.prompts < len(examples):
        chosen = np.random.default_rng(stage.seed).permutation(len(examples))[: config.prompts]
        examples = [examples[index] for index in sorted(chosen)]
    check_columns(examples, config.data)
    return examples


def _chunks(config: GenerateStage, examples: Sequence[Example]) -> Iterator[tuple[int, Sequence[Example]]]:
    """Yield slices of prompts whose completions fill one sampler batch, each with its offset in `examples`."""
    size = max(1, config.sampling.batch // config.samples)
    for start in range(0, len(examples), size):
        yield start, examples[start : start + size]


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    remedy = "delete it, and run the same command again"
    with reading(path, "a chunk of generated answers", remedy):
        chunk = read_json(path, "a chunk of generated answers", remedy, keys=("rows", "sums", "shown"))
        Counter(as_object(chunk["sums"])).update({name: 0 for name in chunk["sums"]})  # sums must be numbers
        [as_object(row) for part in ("rows", "shown") for row in chunk[part]]
        return chunk


def _answering(
    config: GenerateStage, stage: Stage, examples: Sequence[Example], opened: ExitStack
) -> Callable[[Sequence[Example], int], dict[str, Any]]:
    """Load the policy and the rewards, and return the function that samples and selects one chunk.

    Its samples depend only on the seed and the chunk's offset, not on earlier chunks.
    """
    assert config.policy is not None
    policy = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed)
    rewards = opened.enter_context(open_rewards(config.rewards, stage))
    if config.rewards:
        check_routes(rewards.terms, examples, stage.id, config.data)
    sampler = opened.enter_context(open_sampler(policy, config.sampling, config.sampler, stage.say))
    sampler.sync()
    room = policy.model.config.max_position_embeddings - config.sampling.max_tokens

    def drawn(prompts: list[list[int]], seed: int) -> Samples:
        samples = sampler.sample(prompts, config.samples, seed)
        check_completions(samples, policy, config.sampling)
        if not sampler.same_weights:
            repeated = [prompt for prompt in prompts for _ in range(config.samples)]
            if warning := check(scored(policy, *handful(samples, repeated), config.sampling).gap, config.sampler):
                stage.say(warning)
        return samples

    def judged(asked: Sequence[Example], samples: Samples) -> list[Completion]:
        each = [example for example in asked for _ in range(config.samples)]
        columns = columns_of(each, samples.finish, samples.ids)
        table = rewards.score([example.prompt for example in each], samples.text, columns)
        return [
            _completion(samples, i, table.total[i], {name: values[i] for name, values in table.each.items()})
            for i in range(len(each))
        ]

    def answer(part: Sequence[Example], start: int) -> dict[str, Any]:
        prompts = [prompt_ids(policy.tokenizer, example.messages) for example in part]
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= room]
        asked = [part[i] for i in fitting]
        chunk: dict[str, Any] = {"rows": [], "sums": Counter({TOO_LONG: len(part) - len(asked)}), "shown": []}
        if asked:
            seed = int(np.random.SeedSequence([stage.seed, start]).generate_state(1)[0])
            completions = judged(asked, drawn([prompts[i] for i in fitting], seed))
            for i, example in enumerate(asked):
                _select(config, example, completions[i * config.samples :][: config.samples], chunk)
        return chunk

    return answer


def _completion(samples: Samples, i: int, total: float, rewards: dict[str, float | None]) -> Completion:
    """Return completion `i`; its reward is None if no reward applied, and 0 if the stage has no rewards."""
    applied = not rewards or any(value is not None for value in rewards.values())
    ended = samples.finish[i] == "stop"
    return Completion(samples.text[i], ended, total if applied else None, rewards, len(samples.ids[i]))


def _select(config: GenerateStage, example: Example, drawn: Sequence[Completion], chunk: dict[str, Any]) -> None:
    """Add one prompt's kept answers (best first), its sums and, for the report, all its answers with their fates."""
    outcomes = fates(drawn, config.keep, config.at_least)
    chunk["sums"].update(tally(drawn, outcomes))
    kept = [answer for answer, fate in zip(drawn, outcomes, strict=True) if fate == "kept"]
    for best in sorted(kept, key=lambda answer: -(answer.reward or 0.0)):
        worse = worse_than(best.reward or 0.0, drawn)
        measured = {"reward": best.reward if config.rewards else None, "rewards": best.rewards, "tokens": best.tokens}
        chunk["rows"].append(answer_row(example, best.text, worse.text if worse else None, measured))
    if len(chunk["shown"]) < config.shown:
        pairs = zip(drawn, outcomes, strict=True)
        answers = [{"text": answer.text, "reward": answer.reward, "fate": fate} for answer, fate in pairs]
        chunk["shown"].append({"prompt": example.prompt, "answer": example.answer, "answers": answers})


def _save(
    config: GenerateStage,
    stage: Stage,
    sums: Counter[str],
    rows: Sequence[dict[str, Any]],
    shown: Sequence[dict[str, Any]],
) -> None:
    """Write the output atomically; a repeated pair of prompt and answer, up to white space, is written once."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        turns = [text for _, text in row["history"]] + [row["prompt"], row["demonstration"]]
        first.setdefault((row["system"], *map(normalised, turns)), row)
    fate: Sequence[Fate] = ("unfinished", "empty", "without a reward", "below at_least", "duplicate", "beyond keep")
    counts = {name: int(sums[f"fate/{name}"]) for name in fate} | {REPEATED: len(rows) - len(first)}
    left_out = {TOO_LONG: int(sums[TOO_LONG]), "no answer kept": int(sums["prompts"] - sums["answered"])}
    summary = {
        "kept": len(first),
        "prompts": int(sums["prompts"]),
        "samples": config.samples,
        "dropped": {reason: count for reason, count in counts.items() if count},
        "prompts_left_out": {reason: count for reason, count in left_out.items() if count},
        "metrics": metrics(sums),
        "kl_bound": kl_bound(config.samples) if config.rewards and config.keep == 1 else None,
        "shown": shown,
    }
    part = stage.folder / "output.part"
    write_atomically(part / FILE, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in first.values()))
    write_atomically(part / "generated.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    part.rename(stage.output)
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary["dropped"].items())  # type: ignore[attr-defined]
    stage.say(f"kept {len(first)} answers to {int(sums['answered'])} prompts (dropped: {dropped or 'none'})")


def _nothing(config: GenerateStage, sums: Counter[str], shown: Sequence[dict[str, Any]]) -> str:
    """Return why no answer was kept, with an example of the most frequent reason and its remedy."""
    if not sums["samples"]:
        return (
            f"every prompt of data {config.data} is too long: no answer of {config.sampling.max_tokens} tokens fits "
            "beside it in the policy's context; lower sampling.max_tokens, or use shorter prompts"
        )
    counts = {reason: int(sums[f"fate/{reason}"]) for reason, _ in LIKELY}
    main = max(counts, key=lambda reason: counts[reason])
    such = next(
        (
            f" (for example {shortened(answer['text'])} in answer to {shortened(row['prompt'])})"
            for row in shown
            for answer in row["answers"]
            if answer["fate"] == main
        ),
        "",
    )
    said = {reason: f"{count} {reason}{such if reason == main else ''}" for reason, count in counts.items() if count}
    return (
        f"the policy {config.policy.name if config.policy else ''} gave no answer to keep. Of {int(sums['samples'])} "
        f"completions for {int(sums['prompts'])} prompts of data {config.data}: {', '.join(said.values())}; "
        f"{dict(LIKELY)[main]}"
    )
