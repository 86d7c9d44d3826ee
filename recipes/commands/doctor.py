"""`gemsmith doctor`: a check of this machine and its software."""

from pathlib import Path

from gemsmith.contracts.errors import RunError
from gemsmith.recipes.commands.options import wide_console


def doctor() -> None:
    """Check this machine, and show how to fix what is missing."""
    from gemsmith.recipes.commands.actions.machine_findings import examine, findings_table

    findings = examine(Path.cwd())
    wide_console().print(findings_table(findings), highlight=False)
    if any(finding.verdict == "lacking" for finding in findings):
        raise RunError('gemsmith cannot run here yet; fix the lines marked "lacks" above')
