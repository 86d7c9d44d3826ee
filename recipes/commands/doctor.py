"""`gemsmith doctor`: what this machine has and lacks."""

from pathlib import Path

from gemsmith.contracts.errors import RunError
from gemsmith.recipes.commands.options import wide_console


def doctor() -> None:
    """Say what this machine has and lacks, and the way out for each."""
    from gemsmith.recipes.commands.actions.machine_findings import examine, findings_table

    findings = examine(Path.cwd())
    wide_console().print(findings_table(findings), highlight=False)
    if any(finding.verdict == "lacking" for finding in findings):
        raise RunError("something that gemsmith needs is lacking; see above")
