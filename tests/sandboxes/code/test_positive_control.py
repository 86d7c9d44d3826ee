"""The suite can see: escapes that fail against a sandbox get through where there is none.

They run with the `unsafe` backend inside an outer jail with namespaces and limits of its own, so that the host is not
at risk: its root is read-only there, its network and its processes are not in sight, and it lives for a minute at most.
"""

import resource
import sys
import sysconfig
from pathlib import Path

import pytest

from gemsmith.sandboxes.code.backends.bubblewrap import find_bubblewrap
from gemsmith.sandboxes.code.selection import probe
from tests.sandboxes.code.attacks.apart import ROOT, trials
from tests.sandboxes.code.attacks.escape import CONTROL

EMPTY = ("/tmp", "/dev/shm")
NEEDED = (str(ROOT), sysconfig.get_path("purelib"), sys.base_prefix)
WALLS = ["--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
WALLS += [word for folder in EMPTY for word in ("--tmpfs", folder)]
for needed in NEEDED:
    if Path(needed).is_relative_to(EMPTY[0]) or Path(needed).is_relative_to(EMPTY[1]):
        WALLS += ["--ro-bind", needed, needed]  # a checkout in /tmp is the one thing to be seen there
WALLS += ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--chdir", str(ROOT), "--"]


def limit() -> None:
    """Limits of the outer jail: what an attack could use up if it got through."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def test_the_escapes_get_through_where_there_is_no_sandbox() -> None:
    found = probe("bubblewrap")
    if not found.works:
        pytest.skip(f"no outer jail: {found.reason}")
    control, errors = trials("unsafe", "calls", CONTROL, [str(find_bubblewrap()), *WALLS], limit)
    assert {trial["name"] for trial in control} == set(CONTROL), errors
    assert [trial["name"] for trial in control if not trial["through"]] == []
    assert len(CONTROL) >= 16
