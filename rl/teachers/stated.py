"""Stores in folders, held against what a recipe says of them, by their manifests alone. Imports no torch."""

from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.local import find_local
from gemsmith.curation.teacher_store.manifest import About, read_manifest
from gemsmith.rl.teachers.config import SampledConfig, TaughtConfig


def check_stores(config: TaughtConfig, root: Path) -> None:
    """Every store that a stage names by its folder is there, complete, and drawn as the stage says.

    Raises:
        UserError: one is not.
    """
    for name in (share.teacher.store for share in config.shares):
        if name is not None:
            folder = named_store(name, root)
            manifest = read_manifest(folder)
            check_stated(folder, manifest.about, config)
            if not manifest.complete:
                there = sum(record.rows for record in manifest.shards)
                raise UserError(
                    f"The store {folder} is not finished, it has {there} of {manifest.about.rows} rows: run `gemsmith "
                    "teacher-cache` into it again, and it goes on."
                )


def named_store(name: str, root: Path) -> Path:
    """The folder that `store` names.

    Raises:
        UserError: there is none.
    """
    found = find_local(root, name)
    if found is None:
        raise UserError(
            f"teacher.store is {name}, and there is no such folder beside the recipe or in {Path.cwd()}: write one "
            "with `gemsmith teacher-cache RECIPE STAGE --out FOLDER`."
        )
    return found


def check_stated(folder: Path, about: About, config: SampledConfig) -> None:
    """The targets were drawn as a stage says; one that says no K takes the store's.

    Raises:
        UserError: they were not.
    """
    if config.sampled_logits is not None and config.sampled_logits > about.vocabulary:
        raise UserError(
            f"sampled_logits is {config.sampled_logits}, but the vocabulary has only {about.vocabulary} entries: lower "
            "it"
        )
    stated: list[tuple[str, object, object]] = [
        ("mode", about.mode, config.mode),
        ("temperature", about.temperature, config.temperature),
        ("sampled_logits", about.k, config.sampled_logits or about.k),
    ]
    for name, found, asked in stated:
        if found != asked:
            raise UserError(
                f"The store {folder} was written with {name} {found}, and this stage says {asked}: make them the same, "
                "here or in what writes the store."
            )
