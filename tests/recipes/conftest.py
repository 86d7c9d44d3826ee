"""Make the tests' own kind of stage importable by the name that its `entry` gives, also in child processes."""

import os
import sys
from pathlib import Path

STAGE_KINDS = str(Path(__file__).parent / "stage_kinds")
if STAGE_KINDS not in sys.path:
    sys.path.insert(0, STAGE_KINDS)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [STAGE_KINDS, os.environ.get("PYTHONPATH")]))
