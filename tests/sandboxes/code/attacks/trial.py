"""Runs attacks and says what was not as it must be; from tests, and as a program inside another user or jail.

`python -m tests.sandboxes.code.attacks.trial --backend NAME [--modes calls,...] NAME...` prints one JSON line a run.
"""

import argparse
import json
import platform
import re
import sys
import time
from dataclasses import dataclass

from gemsmith.sandboxes.code.sandbox import Sandbox
from gemsmith.sandboxes.code.selection import open_sandbox
from gemsmith.sandboxes.verdict import Status, Verdict
from tests.sandboxes.code.attacks import ATTACKS
from tests.sandboxes.code.attacks.attack import ALL_MODES, HONEST, Attack, Places, runs
from tests.sandboxes.code.attacks.host import Host

HEALTHY = Attack("health", HONEST, (Status.RIGHT,))
GRACE = 5.0  # a hang is an error; how exact a deadline is, benchmarks measure
OWN = 0.5  # seconds of processor time that the host may spend on one job, whatever the job sends
NOWHERE = Places("/nowhere", 1, "nowhere")


@dataclass(frozen=True)
class Trial:
    """End of one run of an attack; no problems means that it failed as it must."""

    name: str
    mode: str
    status: str
    detail: str
    through: bool
    problems: list[str]
    shown: str
    seconds: float


def attempt(sandbox: Sandbox, attack: Attack, mode: str, host: Host) -> Trial:
    """Run an attack, an honest job after it, and look at the host."""
    job = attack.job(mode, host.places)
    started, own = time.monotonic(), time.process_time()
    verdict = sandbox.run(job)
    seconds, own = time.monotonic() - started, time.process_time() - own
    shown, detail, exit_code = "", "", ""
    problems = _problems(verdict, attack)
    if verdict.evidence is not None:
        evidence = verdict.evidence
        detail, exit_code = evidence.detail, evidence.exit
        shown = evidence.stdout.decode(errors="replace") + evidence.stderr.decode(errors="replace")
        if evidence.backend != sandbox.backend:
            problems.append(f"the evidence names backend {evidence.backend}")
        if evidence.forgeable and sandbox.backend != "unsafe":
            problems.append("the verdict is forgeable")
    whole = f"{shown}\n{detail}\n{exit_code}\n{verdict.reason}"
    if attack.shows and not re.search(attack.shows, whole, re.MULTILINE):
        problems.append(f"nothing shows {attack.shows!r}")
    through = "THROUGH" in shown or (attack.ends != (Status.RIGHT,) and verdict.status is Status.RIGHT)
    if "THROUGH" in shown:
        problems.append("an attempt got through")
    longest = job.limits.wall
    if seconds > longest * len(attack.answers) + GRACE:
        problems.append(f"took {seconds:.1f} s where {longest:.1f} s are allowed")
    if own > OWN:
        problems.append(f"the host spent {own:.2f} s of processor time")
    problems += [f"{problem} afterwards" for problem in _health(sandbox, mode)]
    problems += host.problems()
    return Trial(attack.name, mode, str(verdict.status), detail, through, problems, whole, seconds)


def _problems(verdict: Verdict, attack: Attack) -> list[str]:
    problems = []
    if verdict.status not in attack.ends:
        expected = " or ".join(str(status) for status in attack.ends)
        problems.append(f"ended {verdict.status} ({verdict.reason}), not {expected}")
    if verdict.score != (1.0 if verdict.status is Status.RIGHT else 0.0):
        problems.append(f"score {verdict.score} for {verdict.status}")
    if not verdict.reason.isprintable() or len(verdict.reason) > 1000:
        problems.append("the reason is not fit for a terminal")
    if verdict.evidence is None:
        problems.append("no evidence")
    return problems


def _health(sandbox: Sandbox, mode: str) -> list[str]:
    verdict = sandbox.run(HEALTHY.job(mode, NOWHERE))
    return [] if verdict.status is Status.RIGHT else [f"an honest job ended {verdict.status} ({verdict.reason})"]


def healthy(sandbox: Sandbox) -> None:
    """Start what the sandbox starts on demand: an honest job of each mode."""
    for mode in ALL_MODES:
        problems = _health(sandbox, mode)
        if problems:
            raise RuntimeError(f"{mode}: {problems[0]}")


def chosen(names: list[str], modes: list[str]) -> list[tuple[Attack, str]]:
    """The runs of the named attacks (all, if none is named) that fit this machine."""
    unknown = set(names) - {attack.name for attack in ATTACKS}
    if unknown:
        raise SystemExit(f"no such attacks: {sorted(unknown)}")
    fitting = [attack for attack in ATTACKS if attack.machine in ("", platform.machine())]
    return [(attack, mode) for attack, mode in runs(fitting) if mode in modes and (not names or attack.name in names)]


def main() -> int:
    """Run the attacks and print their trials; exit code 1 where there are problems."""
    parser = argparse.ArgumentParser(description="Run attacks against a sandbox.")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--modes", default="calls,stdio,check")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    bad = 0
    with Host() as host, open_sandbox(options.backend, workers=1) as sandbox:
        healthy(sandbox)
        host.settle()
        for attack, mode in chosen(options.names, options.modes.split(",")):
            trial = attempt(sandbox, attack, mode, host)
            bad += bool(trial.problems)
            print(json.dumps(vars(trial)), flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
