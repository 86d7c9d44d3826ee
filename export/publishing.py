"""Names and texts as they may be published: without the paths of the machine that an export was made on."""

import re
from pathlib import PurePath

# An absolute path of at least two parts, or one in the home folder, at the start of a word.
_LOCAL = re.compile(r"(?<![\w./~-])(?:~|/[\w.@+-]+)(?:/[\w.@+ -]*[\w.@+-])+/?")


def published(name: str) -> str:
    """Return the name of a model as it may be published: a hub id unchanged, and of a local path the last part."""
    path = PurePath(name)
    return path.name if path.is_absolute() or name.startswith(("~", ".")) else name


def without_local_paths(text: str) -> str:
    """Return a text with each absolute path, and each in the home folder, cut to its last part."""
    return _LOCAL.sub(lambda found: PurePath(found[0]).name, text)
