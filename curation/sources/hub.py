"""Reader of data sets of the Hugging Face hub."""

from collections.abc import Iterator
from pathlib import Path

from gemsmith.contracts.errors import UserError
from gemsmith.curation.config import HubData
from gemsmith.curation.sources.rows import SourceRow


def read_hub(config: HubData, *, name: str, seed: int, root: Path) -> Iterator[SourceRow]:
    """Return the rows of a data set's split."""
    import datasets

    try:
        table = datasets.load_dataset(config.name, config.subset, split=config.split, revision=config.revision)
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
