"""The finding of `gemsmith doctor` about the code sandbox, here and in a sandbox that allows no namespaces."""

import subprocess
import sys
from pathlib import Path

import pytest

from gemsmith.recipes.commands.actions.machine_findings import MachineFinding, examine
from gemsmith.sandboxes.code.backends.bubblewrap import find_bubblewrap
from gemsmith.sandboxes.code.selection import probe

ROOT = Path(__file__).parents[3]
PRINT_LAST_FINDING = (
    "from gemsmith.recipes.commands.actions.machine_findings import examine; from pathlib import Path; "
    "print(examine(Path('.'))[-1])"
)


def sandbox() -> MachineFinding:
    (finding,) = [finding for finding in examine(ROOT) if finding.thing == "code sandbox"]
    return finding


def test_the_backend_is_named_with_the_reason():
    finding = sandbox()
    works = [name for name in ("bubblewrap", "unshare") if probe(name).works]
    if not works:
        assert (finding.verdict, finding.found[:5]) == ("optional", "none:") and finding.way_out
        return
    assert finding.verdict == "good"
    assert finding.found.startswith(f"{works[0]}: a canary ran, and the attacks on it failed")


def test_without_namespaces_there_is_none_and_a_way_out():
    found = probe("bubblewrap")
    if not found.works:
        pytest.skip(f"no box without namespaces can be made here: {found.reason}")
    box = [str(find_bubblewrap()), "--unshare-user", "--disable-userns", "--dev-bind", "/", "/"]
    done = subprocess.run(
        [*box, sys.executable, "-c", PRINT_LAST_FINDING], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert "found='none: bubblewrap: " in done.stdout, done.stderr
    assert "; unshare: " in done.stdout and "verdict='optional'" in done.stdout
    assert "max_user_namespaces" in done.stdout and "Needed only for rewards of kind code." in done.stdout
