"""Loading of a data section: rows become examples, and a hash of the prompt splits them."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import AnySource, DataConfig, Generated, GeneratedData, Mixture, ReasoningGymData
from gemsmith.curation.conversation import Turns, answer_of, conversation_of, up_to_the_user
from gemsmith.curation.example import Example, unique_prompts
from gemsmith.curation.generated import read_answers
from gemsmith.curation.mixture import mixed
from gemsmith.curation.sources.rows import SourceRow, rows_of
from gemsmith.curation.synthetic import check_styles, integer, synthesise
from gemsmith.curation.template import fill, sole_value

__all__ = ["DataSplit", "Example", "held_out", "load_data", "unique_prompts"]

_TEMPLATES = ("system", "answer", "demonstration", "chosen", "rejected")
_COMPLETIONS = ("demonstration", "chosen", "rejected")


@dataclass(frozen=True)
class DataSplit:
    """Examples for training and for evaluation, and how many rows were dropped, by reason.

    `train` may hold a prompt several times (several demonstrations of it); `test` holds each prompt once.
    """

    train: list[Example]
    test: list[Example]
    dropped: dict[str, int] = field(default_factory=dict)


def load_data(config: AnySource | GeneratedData, *, name: str, seed: int, root: Path) -> DataSplit:
    """Return the examples of a data section; the same arguments give the same examples on every machine.

    A prompt is on the same side in every section with the same seed, and a larger `holdout` only moves prompts from
    training to evaluation. Prompts that differ only in white space are on the same side.

    Args:
        config: the section; a mixture with the sections that it names, generated data with its section and answers.
        name: its name in the recipe, for messages.
        seed: the recipe's seed.
        root: folder of the recipe, against which paths resolve.

    Raises:
        UserError: the source cannot be read, a template names a column that does not exist, or no example is left.
    """
    if isinstance(config, Mixture):
        return _mixture(config, name, seed, root)
    if isinstance(config, GeneratedData):
        return _generated(config, name, seed, root)
    if config.synthesise is not None:
        check_styles(config.synthesise, name)
    dropped: Counter[str] = Counter()
    examples = _examples(rows_of(config, name=name, seed=seed, root=root), config, name, dropped)
    train: list[Example] = []
    test: list[Example] = []
    for example in examples:
        (test if held_out(example.conversation, seed, config.holdout) else train).append(example)
    unique = unique_prompts(test)
    dropped["prompt repeated in the hold-out"] += len(test) - len(unique)
    if config.synthesise is not None:
        copies = config.synthesise.copies
        train = [made for example in train for made in synthesise(example, config.synthesise, seed, copies)]
        unique = [made for example in unique for made in synthesise(example, config.synthesise, seed, 1)]
    counts = {reason: count for reason, count in dropped.items() if count}
    if not train:
        raise UserError(_empty(config, name, len(unique), counts))
    _check_disjoint(train, unique)
    return DataSplit(train, unique, counts)


def _mixture(config: Mixture, name: str, seed: int, root: Path) -> DataSplit:
    splits = {section: load_data(config.sections[section], name=section, seed=seed, root=root) for section in config.of}
    sides = {section: (split.train, split.test) for section, split in splits.items()}
    train, test, left_out = mixed(config, sides, seed, name)
    lost = {f"{section}: {why}": count for section, split in splits.items() for why, count in split.dropped.items()}
    _check_disjoint(train, test)
    return DataSplit(train, test, lost | left_out)


def _generated(config: GeneratedData, name: str, seed: int, root: Path) -> DataSplit:
    """Return the answers that a stage kept, and the prompts that its own section holds out."""
    if not isinstance(config, Generated) or config.folder is None:
        raise ValueError(f"data {name}: the section is not bound to the output of stage {config.from_}")
    train = read_answers(config.folder)
    test = load_data(config.section, name=name, seed=seed, root=root).test
    _check_disjoint(train, test)
    return DataSplit(train, test)


def held_out(prompt: str, seed: int, holdout: float) -> bool:
    """Return True if a prompt is for evaluation: a hash of seed and prompt, as a number in [0, 1), is below
    `holdout`.
    """
    digest = hashlib.sha256(f"{seed}\0{_key(prompt)}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < holdout * 2**64


def _key(prompt: str) -> str:
    return " ".join(prompt.split())


def _examples(rows: Iterable[SourceRow], config: DataConfig, name: str, dropped: Counter[str]) -> list[Example]:
    once = config.synthesise is not None or isinstance(config, ReasoningGymData)
    seen: set[tuple[Any, ...]] = set()
    examples = []
    for row in rows:
        example, reason = _example(row, config, name)
        reason = reason or _fault(example, config)
        key = (example.system, example.history, example.prompt)
        if reason is None and once and key in seen:
            reason = "repeated prompt"
        if reason is None and config.limit is not None and key not in seen and len(seen) >= config.limit:
            reason = "beyond the limit"
        if reason is not None:
            dropped[reason] += 1
            continue
        seen.add(key)
        examples.append(example)
    return examples


def _example(row: SourceRow, config: DataConfig, name: str) -> tuple[Example, str | None]:
    """Return a row's example, and the reason to drop it if there is one."""
    filled: dict[str, Any] = {}
    prompt, turns = _prompt(row, config, name)
    reason = None
    for template in _TEMPLATES:
        text = getattr(config, template)
        completes = text is not None and template in _COMPLETIONS
        said = conversation_of(sole_value(text, row), row, name=name, field=template) if completes else None
        if said is None:
            filled[template] = None if text is None else fill(text, row, name=name, field=template)
            continue
        filled[template] = answer_of(said)
        if len(said) > 1 and up_to_the_user(said) != turns:
            reason = f"{template} continues another conversation"
    if isinstance(config, ReasoningGymData):
        task: str | None = config.task
    else:
        task = None if config.task is None else fill(config.task, row, name=name, field="task")
    missing = [column for column in config.columns if column not in row.columns]
    if missing:
        raise UserError(
            f"data {name}: `columns` names {missing[0]!r}, which {row.where} does not have; "
            f"it has the columns {', '.join(row.columns)}."
        )
    if filled["system"] is None and turns[0][0] == "system":
        filled["system"] = turns[0][1]
    history = tuple(turn for turn in turns[:-1] if turn[0] != "system")
    columns = {key: row.columns[key] for key in config.columns}
    return Example(prompt=prompt, task=task, columns=columns, where=row.where, history=history, **filled), reason


def _prompt(row: SourceRow, config: DataConfig, name: str) -> tuple[str, Turns]:
    """Return the user's turn, and all turns up to and including it."""
    said = conversation_of(sole_value(config.prompt, row), row, name=name, field="prompt")
    turns = up_to_the_user(said) if said is not None else []
    if not turns or turns[-1][0] != "user":
        turns = [("user", "" if said else fill(config.prompt, row, name=name, field="prompt") or "")]
    return turns[-1][1], turns


def _fault(example: Example, config: DataConfig) -> str | None:
    """Return why a row is dropped, or None: the prompt and all fields that the section sets must have a value."""
    if not example.prompt.strip():
        return "empty prompt"
    for template in _COMPLETIONS:
        if getattr(config, template) is not None and not (getattr(example, template) or "").strip():
            return f"empty {template}"
    if example.chosen is not None and example.chosen == example.rejected:
        return "chosen and rejected are the same"
    if config.synthesise is not None and integer(example.answer) is None:
        return "answer is not an integer"
    return None


def _empty(config: DataConfig, name: str, held: int, dropped: dict[str, int]) -> str:
    reasons = ", ".join(f"{count} dropped: {reason}" for reason, count in dropped.items())
    if held:
        return (
            f"data {name}: all {held} prompts are in the hold-out of {config.holdout:g}, and none is left for training"
            f"{f' ({reasons})' if reasons else ''}; add rows or lower `holdout`."
        )
    return f"data {name}: found no examples ({reasons or 'the source has no rows'}); expected at least one."


def _check_disjoint(train: list[Example], test: list[Example]) -> None:
    shared = {example.conversation for example in train} & {example.conversation for example in test}
    if shared:
        raise AssertionError(f"the split put a prompt on both sides: {sorted(shared)[0]!r}")
