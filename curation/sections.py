"""Properties of a data section's rows that follow from its configuration alone."""

from string import Formatter
from typing import Any

from gemsmith.curation.config import AnySource, DataConfig, Generated, GeneratedData, Mixture


def stated_tasks(config: AnySource | GeneratedData) -> set[str | None] | None:
    """Return the tasks of a section's rows if its configuration determines them all, else None."""
    if isinstance(config, Generated):
        return stated_tasks(config.section)
    if isinstance(config, Mixture):
        found = {name: stated_tasks(section) for name, section in config.sections.items()}
        known = {name: tasks for name, tasks in found.items() if tasks is not None}
        if len(known) < len(found):
            return None
        return {name if task is None else task for name, tasks in known.items() for task in tasks}
    return {stated_task(config)} if isinstance(config, DataConfig) and tells_its_task(config) else None


def tells_its_task(config: DataConfig) -> bool:
    """Return True if all rows have the one task that the section names, or none, so that no column is read for it."""
    try:
        return config.task is None or all(field is None for _, field, *_ in Formatter().parse(config.task))
    except ValueError:  # not a template; filling it in says so
        return False


def stated_task(config: DataConfig) -> str | None:
    """Return the task of every row of a section that names it."""
    return None if config.task is None else "".join(text for text, *_ in Formatter().parse(config.task))


def can_demonstrate(section: Any) -> bool:
    """Return True if a section's rows may have demonstrations; for a mixture, if those of any part may."""
    if isinstance(section, Mixture):
        return any(can_demonstrate(part) for part in section.sections.values())
    if isinstance(section, DataConfig):
        return section.demonstration is not None or section.synthesise is not None
    return True  # answers of a policy are demonstrations
