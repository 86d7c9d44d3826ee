"""Reader of data sets of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path

from gemsmith.contracts.digests import content_digest
from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import HubData
from gemsmith.curation.sources.rows import SourceRow


def read_hub(config: HubData, *, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """Return the rows of a data set's split."""
    import datasets

    name_or_folder, cache = config.name, None
    if local := config.local_files(root):
        # The library's own cache knows a folder by the times of its files, which a copy may keep; ours goes by content.
        name_or_folder = str(local[0])
        cache = str(Path(datasets.config.HF_DATASETS_CACHE) / f"content-{content_digest(local[0])[:16]}")
    try:
        table = datasets.load_dataset(
            name_or_folder, config.subset, split=config.split, revision=config.revision, cache_dir=cache
        )
    except Exception as error:  # the hub client raises many unrelated kinds
        raise UserError(f"data {name}: {_hub_reason(config, error)}") from error
    return (SourceRow(f"{config.name} row {index}", row) for index, row in enumerate(table))


def _hub_reason(config: HubData, error: Exception) -> str:
    said = " ".join(str(error).split())[:300] or type(error).__name__
    kinds = {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}
    if kinds & {
        "ConnectionError",
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "ConnectError",
        "TimeoutException",
    }:
        return (
            f"the hub data set {config.name} cannot be reached and is not in the local cache ({said}); "
            "check the network and HF_HUB_OFFLINE, or save the data as JSON lines and use `source: jsonl`."
        )
    part = f"{config.name}{f', subset {config.subset}' if config.subset else ''}, split {config.split}"
    return f"the hub data set {part} could not be read ({said}); check `name`, `subset`, `split` and your access to it."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
