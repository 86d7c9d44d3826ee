"""The papers' claims, tried: numeric identities first, then claims with three seeds each.

`make fidelity`, or `python -m benchmarks.fidelity [--quick] [--only ID ...] [--list] [--json PATH] [--out FOLDER]
[--jobs N]`. Measurements are kept in runs/fidelity, so that a suite that was interrupted goes on. Exit code 1 when an
identity is off or a claim crashed, never because a claim does not hold.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from benchmarks.fidelity import report
from benchmarks.fidelity.code import ROOT
from benchmarks.fidelity.identities import identity_rows
from benchmarks.fidelity.kept import KEPT
from benchmarks.fidelity.parallel import measure_ahead
from benchmarks.fidelity.registry import claims
from benchmarks.fidelity.suite import planned, run_claim
from benchmarks.results import print_rows
from gemsmith.contracts.errors import UserError

IDENTITIES = "identities"


def main(words: list[str] | None = None) -> int:
    """Run the suite; the exit code."""
    options = _parser().parse_args(words)
    torch.set_num_threads(options.threads)
    jobs = options.jobs or (1 if options.quick else os.cpu_count() or 1)
    try:
        chosen = claims([name for name in options.only if name != IDENTITIES] if options.only else None)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    plans = [planned(claim, options.quick, options.kept) for claim in chosen]
    out = options.out or (KEPT / "quick" if options.quick else ROOT / "benchmarks" / "fidelity")
    if options.list:
        for plan in plans:
            trials = plan.kept()
            seconds = sum(trial.seconds for trial in trials)
            kept = f"{len(trials)} of {len(plan.places)} seeds kept, {seconds:6.1f} s"
            print(f"{plan.claim.id:8} {kept}, {report.age(plan, out):18} {plan.claim.sentence}")
        return 0
    begun = time.perf_counter()

    def say(text: str) -> None:
        print(f"fidelity: {time.perf_counter() - begun:6.0f} s  {text}", flush=True)

    faults: list[str] = []
    if not options.only or IDENTITIES in options.only:
        rows = identity_rows(options.quick)
        print_rows(rows, "identities")
        faults += [row.name for row in rows if not row.within]
        say(f"off: {', '.join(faults)}" if faults else f"all {len(rows)} identities are within their tolerance")
        report.write_identities(rows, out)
    with ThreadPoolExecutor(jobs) as pool:
        ahead = measure_ahead(pool, plans, options.kept, options.threads, say) if jobs > 1 else {}
        for plan in plans:
            for trial in ahead.get(plan.claim.id, ()):
                trial.result()
            result = run_claim(plan, say)
            faults += [plan.claim.id] if result.verdict is None else []
            report.write_result(result, out)
            report.write_table([claim.id for claim in claims()], out)
    written = report.write_table([claim.id for claim in claims()], out)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(written, indent=1) + "\n")
    say(f"{out / 'README.md'} is written" + (f"; at fault: {', '.join(faults)}" if faults else ""))
    return 1 if faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller settings: ten minutes for all")
    parser.add_argument("--only", nargs="+", metavar="ID", help=f"only these claims; `{IDENTITIES}` is the first part")
    parser.add_argument(
        "--list", action="store_true", help="the claims, and which of their seeds need not be run again"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all rows of the report here too")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where the report goes (default: beside this module)"
    )
    parser.add_argument("--kept", type=Path, metavar="FOLDER", default=KEPT, help="where measurements are kept")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1, for equal results)")
    parser.add_argument(
        "--jobs", type=int, help="trials at once, a process each (default: one a core; quick ones one after another)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
