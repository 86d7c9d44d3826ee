"""Quantisation-aware training of the 270M by the project's own stage: KL to the float model, rounded and trained.

`python -m benchmarks.qat [--quick] [--json PATH] [--data FILE] [--steps N] [--formats q4_0 ...] [--out FOLDER]`: for
each format a stage `qat` on short texts (JSON lines with `question` and `answer`, such as GSM8K's; without them sums
with their answers); then the Q4_0 policy, and the float one, as GGUF files of 4, 8 and 16 bits, each read back and
compared before it counts. With `--out` the stages' folders are kept, finished ones are not run again, and interrupted
ones go on. `--quick` takes `tiny`.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Row, print_rows, write_rows
from gemsmith.contracts.stage import Stage
from gemsmith.curation.config import JsonLinesData, ReasoningGymData
from gemsmith.policy.loading.load import save_policy
from gemsmith.policy.loading.tiny import tiny_policy
from gemsmith.recipes.commands.actions.policy_export import export_policy
from gemsmith.rl.stages.qat.config import QatStage
from gemsmith.rl.stages.qat.stage import run

GGUF = Path("models/gemma-3-270m-q4_k_m.gguf")
FORMATS = ("int4_channel", "q4_0", "sfp8")
FILES = ("f16", "q8_0", "q4_0")


class Lines:
    """Says on the terminal what a stage tells, and every tenth step."""

    def __init__(self, name: str) -> None:
        self.name, self.begun = name, time.monotonic()

    def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
        """Print a line now and then."""
        if done % 10 == 0 or done == total:
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
            print(
                f"  {self.name}: {unit} {done} of {total}, {time.monotonic() - self.begun:.0f} s, {numbers}", flush=True
            )

    def say(self, message: str) -> None:
        """Print a line."""
        print(f"  {self.name}: {message}", flush=True)


def data_of(path: Path | None) -> JsonLinesData | ReasoningGymData:
    """Return the demonstrations: from a file, else sums."""
    if path is not None:
        return JsonLinesData(
            source="jsonl", path=str(path), prompt="{question}", demonstration="{answer}", limit=6000, holdout=0.1
        )
    options = {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
    fields = {"source": "reasoning_gym", "task": "chain_sum", "size": 1200, "options": options, "synthesise": {}}
    return ReasoningGymData.model_validate(fields)


def trained(format: str, model: str, options: argparse.Namespace, root: Path) -> tuple[Path, float]:
    """Run the stage of a format, or what is left of it; its output, and the seconds that it took now."""
    stage = Stage(
        id=format,
        folder=root / format,
        seed=0,
        root=Path.cwd(),
        data={"texts": data_of(options.data)},
        sink=Lines(format),
    )
    config = QatStage.model_validate(
        {
            **{"id": format, "kind": "qat", "policy": {"model": model}, "data": "texts", "format": format},
            **{"steps": options.steps, "batch": options.batch, "micro_batch": min(2, options.batch)},
            **{"learning_rate": options.learning_rate, "warmup": options.steps // 20, "max_length": options.length},
            **{"save_every": 50, "held_out": options.held_out, "mode": options.mode},
        }
    )
    begun = time.monotonic()
    run(config, stage)
    return stage.output, time.monotonic() - begun


def measure(model: str, options: argparse.Namespace, root: Path) -> Iterator[Row]:
    """Measure closeness for each format, then files."""
    sources: dict[str, Path] = {"float": Path(model)}
    for format in options.formats:
        output, seconds = trained(format, model, options, root)
        found: dict[str, Any] = json.loads((output / "qat.json").read_text())
        sources[format] = output
        for name, unit in (("kl", "nats a token"), ("agreement", "share of tokens")):
            row = f"{format}: {name} to the float model, {found['qat']['tokens']} tokens"
            yield Row(row, found["qat"][name], unit, "rounded (PTQ)", found["ptq"][name])
        if seconds > 1:  # else it had run before
            yield Row(f"{format}: seconds a step", seconds / options.steps, "s", "", 0.0)
    whole = 0.0
    for kind in FILES:
        for name in ("float", "q4_0") if kind == "q4_0" else ("float",):
            if name in sources and sources[name].exists():
                folder = _new(root, f"{name}-{kind}")
                export_policy(sources[name], None, folder, formats=["gguf"], gguf=kind)
                proof: dict[str, Any] = json.loads((folder / "export.json").read_text())
                size = proof["gguf"]["bytes"] / 1e6
                whole = whole or size
                yield Row(f"{kind} file of the {name} policy, read back", size, "MB", "f16 file", whole)
                gap = f"{kind} file of the {name} policy: mean gap of a log-probability"
                yield Row(gap, proof["gguf"]["mean_gap"], "nats", "", 0.0)


def _new(root: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=root)) / "export"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="`tiny` and a handful of steps")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--data", type=Path, help="JSON lines with question and answer")
    parser.add_argument("--out", type=Path, help="keep the stages' folders here, and go on with them")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=192, help="longest prompt and answer together, in tokens")
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--mode", default="multinomial_counts", help="how targets are sampled")
    parser.add_argument("--held-out", type=int, default=32, help="held-out texts that closeness is measured on")
    options = parser.parse_args(arguments)
    if not options.quick and not GGUF.exists():
        parser.error(f"{GGUF} is not there: `make {GGUF}`, or --quick")
    if options.quick:
        options.steps, options.batch, options.held_out = 4, 4, 8
    with tempfile.TemporaryDirectory(prefix="gemsmith-qat-") as folder:
        root = options.out or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        model = GGUF
        if options.quick:
            model = root / "tiny"
            save_policy(tiny_policy(), model)
        rows = list(measure(str(model), options, root))
    print_rows(rows, f"quantisation-aware training, {options.steps} steps of {options.batch} texts")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
