"""Lists of accepted names for error messages, and the nearest one as a suggestion."""

import difflib
from collections.abc import Iterable

_COMPARED = 80
"""Number of characters of a name that are compared; difflib's time grows with its square."""

_ELSEWHERE = {
    "lr": "learning_rate",
    "batch_size": "batch",
    "train_batch_size": "batch",
    "per_device_train_batch_size": "batch",
    "micro_batch_size": "micro_batch",
    "max_steps": "steps",
    "num_train_epochs": "steps",
    "lr_scheduler_type": "schedule",
    "lr_scheduler": "schedule",
    "warmup_steps": "warmup",
    "num_generations": "samples",
    "n_samples": "samples",
    "max_completion_length": "max_tokens",
    "max_new_tokens": "max_tokens",
    "max_length": "max_tokens",
    "beta": "kl",
    "kl_coef": "kl",
    "reward_funcs": "rewards",
    "model_name_or_path": "model",
    "base_model": "model",
    "dataset": "data",
    "train_dataset": "data",
    "output_dir": "out",
}
"""Names of other libraries (TRL, transformers, axolotl, verl) for fields that have another name here."""


def did_you_mean(name: object, known: Iterable[str], likeness: float = 0.6) -> str:
    """Return `, did you mean "x"?` for the nearest of the known names, or nothing if none is near.

    A name that TRL or axolotl has for one of the known names suggests that one.

    Args:
        name: the unknown name; case is ignored.
        known: the accepted names.
        likeness: smallest ratio of difflib, from 0 to 1, at which a name is near.
    """
    names = {accepted.lower(): accepted for accepted in known}
    here = _ELSEWHERE.get(str(name).lower())
    if here in names:
        return f', did you mean "{here}"?'
    near = difflib.get_close_matches(str(name)[:_COMPARED].lower(), list(names), n=1, cutoff=likeness)
    return f', did you mean "{names[near[0]]}"?' if near else ""


def listed(names: Iterable[str], limit: int = 10) -> str:
    """Return `a, b or c`. Names after the first `limit` are cut; an empty list gives `(there is none)`."""
    known = list(names)
    if not known:
        return "(there is none)"
    if len(known) > limit:
        return ", ".join(known[:limit]) + ", ..."
    return " or ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)
