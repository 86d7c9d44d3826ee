"""Checks of teachers against a recipe that load no weights. Imports no torch."""

from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.curation.teacher_store.manifest import About, read_manifest
from gemsmith.rl.teachers.config import SampledConfig, TaughtConfig


def check_stores(config: TaughtConfig, root: Path) -> None:
    """Check that every folder in `store` exists, is complete, and has the stage's sampling settings.

    Raises:
        UserError: a store is missing, unfinished, or has other settings.
    """
    for name in (share.teacher.store for share in config.shares):
        if name is not None:
            folder = named_store(name, root)
            manifest = read_manifest(folder)
            check_stated(folder, manifest.about, config)
            if not manifest.complete:
                there = sum(record.rows for record in manifest.shards)
                raise UserError(
                    f"The store {folder} is unfinished, with {there} of {manifest.about.rows} rows: run `gemsmith "
                    "teacher-cache` with this folder again to complete it."
                )


def rows_text(name: str, rows: int, used: int) -> str:
    """Return a sentence about a teacher whose embedding has more rows than are used."""
    return f"teacher {name}: {rows:,} rows, {used:,} used; the others are padding and are cut from its logits"


def named_store(name: str, root: Path) -> Path:
    """Return the folder that `store` names.

    Raises:
        UserError: the folder does not exist.
    """
    found = find_local(root, name)
    if found is None:
        raise UserError(
            f"found teacher.store {name}, but no such folder beside the recipe or in {Path.cwd()}: write the store "
            "with `gemsmith teacher-cache RECIPE STAGE --out FOLDER`."
        )
    return found


def check_stated(folder: Path, about: About, config: SampledConfig) -> None:
    """Check the store's sampling settings against a stage's; a stage without `sampled_logits` accepts any K, and one
    without `mode` any mode.

    Raises:
        UserError: mode, temperature or K differ.
    """
    if config.sampled_logits is not None and config.sampled_logits > about.vocabulary:
        raise UserError(
            f"found sampled_logits {config.sampled_logits}, expected at most the vocabulary size, {about.vocabulary}: "
            "lower it"
        )
    stated: list[tuple[str, object, object]] = [
        ("mode", about.mode, config.mode if config.asks_for_mode else about.mode),
        ("temperature", about.temperature, config.temperature),
        ("sampled_logits", about.k, config.sampled_logits or about.k),
    ]
    for name, stored, asked in stated:
        if stored != asked:
            raise UserError(
                f"The store {folder} was written with {name} {stored}, but this stage has {name} {asked}: use the same "
                "value in both."
            )
