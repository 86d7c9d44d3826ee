"""Makes the tests' own kind of stage importable by the name that its `entry` gives, also in child processes."""

import os
import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
ROOT = str(Path(__file__).parents[2])
sys.path[:0] = [path for path in (HERE, ROOT) if path not in sys.path]
os.environ["PYTHONPATH"] = os.pathsep.join([HERE, ROOT])
