"""A temporary folder of an engine's own: vLLM leaves files and sockets in it when it is killed, and we remove them."""

import getpass
import tempfile
from collections.abc import Mapping
from pathlib import Path

LONGEST = 60  # bytes of the folder's path: a socket's path has at most 107, and its name takes about 40


def with_scratch(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return the environment with a new folder inside `folder` as the place for temporary files.

    Compiled kernels, which torch keeps there for the next start, stay where they were. If the path is too long for
    sockets, the place does not change.
    """
    scratch = folder / "tmp"
    if len(bytes(scratch)) > LONGEST:
        return dict(environment)
    scratch.mkdir(exist_ok=True)
    compiled = f"{tempfile.gettempdir()}/torchinductor_{getpass.getuser()}"
    return {"TORCHINDUCTOR_CACHE_DIR": compiled, **environment, "TMPDIR": str(scratch)}
