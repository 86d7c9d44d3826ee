"""Resolve mixtures of data sections to the sections that they name. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.curation.config import Mixture, MixtureData
from gemsmith.recipes.schema.faults import Faults


def with_sections(data: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """Return the data sections, each mixture with its parts; adds a fault for an unknown part.

    A mixture of mixtures is a fault too, because its shares would be ambiguous.
    """
    plain = {name: config for name, config in data.items() if not isinstance(config, MixtureData)}
    whole = dict(data)
    for name, config in data.items():
        if not isinstance(config, MixtureData):
            continue
        for part in config.of:
            if part not in plain:
                what = "which is a mixture itself" if part in data else "which is not a data section"
                expected = f"expected {listed(plain)}{did_you_mean(part, plain)}"
                faults.add(("data", name, "of", part), f'found "{part}", {what}, {expected}')
        sections = {part: plain[part] for part in config.of if part in plain}
        whole[name] = Mixture(source="mixture", of=config.of, limit=config.limit, sections=sections)
    return whole
