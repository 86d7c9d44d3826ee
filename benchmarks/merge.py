"""Merging checkpoints of the 270M's size as whole commands: `gemsmith merge` against mergekit 0.1.5, in turn.

`python -m benchmarks.merge [--quick] [--json PATH] [--mergekit VENV [--install]]`: the average of 3 and of 6 and the
SLERP of 2, all in bfloat16 on disk, each command in a fresh process, so that imports count. Seconds of processor time
are shown beside those of the clock, because they depend less on other load. Memory is sampled over the process
and its children: RSS counts pages of mapped files, RssAnon does not. mergekit has an environment of its own.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import psutil
import torch
from safetensors.torch import save_file

from benchmarks.results import Row, print_rows, write_rows

RIVAL = "mergekit 0.1.5"
GGUF = Path("models/gemma-3-270m-q4_k_m.gguf")
MERGEKIT = Path("bin/mergekit-yaml")
MEMBERS = 6
TICK = 0.01  # seconds between samples of memory
UNITS = (("time", "s"), ("processor time", "s"), ("peak RSS", "MB"), ("peak RssAnon", "MB"))
Command = Callable[[Path], list[str]]  # of the folder to write


@dataclass(frozen=True)
class Cost:
    """Cost of a command: seconds of the clock and of processors, and megabytes (10^6) at the peak."""

    seconds: float
    processor: float
    rss: float
    anonymous: float


def cost_of(command: Sequence[str]) -> Cost:
    """Run a command and watch its process tree."""
    before, begun = os.times(), time.perf_counter()
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        rss = anonymous = 0
        while process.poll() is None:
            held = [_held(pid) for pid in _family(process.pid)]
            rss = max(rss, sum(memory[0] for memory in held))
            anonymous = max(anonymous, sum(memory[1] for memory in held))
            time.sleep(TICK)
        seconds, after = time.perf_counter() - begun, os.times()
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{said.read().decode()[-2000:]}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(seconds, processor, rss / 1e6, anonymous / 1e6)


def _family(pid: int) -> list[int]:
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _held(pid: int) -> tuple[int, int]:
    """Bytes of RssAnon and the peak of RSS so far, which the kernel keeps, so that no sample can miss it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "RssAnon"))}
    return found.get("VmHWM", 0), found.get("RssAnon", 0)


def make_checkpoints(root: Path, quick: bool) -> None:
    """`start` as an export writes it, from the GGUF file where it is there, else random; and members a little off."""
    from benchmarks.step import model_of
    from gemsmith.policy.config import PolicyConfig
    from gemsmith.policy.loading.load import load_policy, save_policy
    from gemsmith.policy.loading.tiny import tiny_policy
    from gemsmith.policy.policy import Policy
    from gemsmith.policy.text.tokenizer import tiny_tokenizer

    if quick:
        policy = tiny_policy()
    elif GGUF.exists():
        policy = load_policy(PolicyConfig(model=str(GGUF)))
    else:
        policy = Policy(model_of("sdpa", lora=False), tiny_tokenizer())
    policy.model.to(torch.bfloat16)
    save_policy(policy, root / "start")
    torch.manual_seed(0)
    tied = {"lm_head.weight"}
    weights = {name: value for name, value in policy.model.state_dict().items() if name not in tied}
    for member in range(MEMBERS):
        folder = root / f"member-{member}"
        shutil.copytree(root / "start", folder, ignore=shutil.ignore_patterns("*.safetensors"))
        moved = {name: value + 0.05 * value.float().std() * torch.randn_like(value) for name, value in weights.items()}
        save_file(
            {name: value.to(torch.bfloat16) for name, value in moved.items()},
            folder / "model.safetensors",
            metadata={"format": "pt"},
        )


def jobs(root: Path, rival: Path | None) -> Iterator[tuple[str, Command, Command | None]]:
    """Name, our command and mergekit's, which interpolates two models themselves and has no start."""
    for count in (3, MEMBERS):
        folders = [root / f"member-{number}" for number in range(count)]
        models = "".join(f"  - {{model: {folder}, parameters: {{weight: 1.0}}}}\n" for folder in folders)
        config = _written(root / f"linear-{count}.yaml", f"merge_method: linear\ndtype: bfloat16\nmodels:\n{models}")
        yield f"average of {count}", _ours("average", folders), _mergekit(rival, config)
    start, one, two = root / "start", root / "member-0", root / "member-1"
    text = (
        f"merge_method: slerp\ndtype: bfloat16\nbase_model: {one}\nmodels:\n  - model: {two}\nparameters: {{t: 0.5}}\n"
    )
    yield "SLERP of 2", _ours("slerp", [start, one, two]), _mergekit(rival, _written(root / "slerp.yaml", text))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _ours(kind: str, folders: list[Path]) -> Command:
    return lambda out: [sys.executable, "-m", "gemsmith", "merge", kind, *map(str, folders), "--out", str(out)]


def _mergekit(rival: Path | None, config: Path) -> Command | None:
    if rival is None:
        return None
    return lambda out: [str(rival / MERGEKIT), str(config), str(out), "--quiet"]


def measure(root: Path, rival: Path | None, rounds: int) -> Iterator[Row]:
    """Each job by both sides in turn; the round before the first warms the disk's cache and does not count."""
    for name, ours, theirs in jobs(root, rival):
        sides = [ours] if theirs is None else [ours, theirs]
        costs: list[list[Cost]] = [[] for _ in sides]
        for number in range(rounds + 1):
            for side, found in zip(sides, costs, strict=True):
                cost = cost_of(side(root / "out"))
                shutil.rmtree(root / "out")
                if number:
                    found.append(cost)
        for (what, unit), *values in zip(
            UNITS, *(zip(*map(astuple, found), strict=True) for found in costs), strict=True
        ):
            medians = [statistics.median(value) for value in values]
            spread = (max(values[0]) - min(values[0])) / 2
            baseline, baseline_value = (RIVAL, medians[1]) if theirs is not None else ("", 0.0)
            yield Row(f"{name}: {what}", medians[0], unit, baseline, baseline_value, spread)
            if theirs is not None:
                print(
                    f"  {RIVAL}, {name}, {what}: {medians[1]:.4g} ± {(max(values[1]) - min(values[1])) / 2:.3g} {unit}"
                )


def install(folder: Path) -> None:
    """Create an environment with mergekit; torch first, so that it is the same build as ours."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"torch=={torch.__version__.split('+')[0]}"], check=True)
    subprocess.run([*pip, "mergekit==0.1.5"], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="`tiny` instead of the 270M's size, one round")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--mergekit", type=Path, help="an environment that has mergekit")
    parser.add_argument("--install", action="store_true", help="make that environment first, where it is absent")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    rival = options.mergekit
    if options.install and rival is None:
        parser.error("--install needs the path of the environment: --mergekit VENV")
    if options.install and not (rival / MERGEKIT).exists():
        install(rival)
    if rival is None or not (rival / MERGEKIT).exists():
        where = f"there is none in {rival}" if rival else "no --mergekit is given"
        print(f"{RIVAL} is left out, as {where}: --mergekit VENV --install makes an environment for it")
        rival = None
    with tempfile.TemporaryDirectory(prefix="gemsmith-merge-") as folder:
        make_checkpoints(Path(folder), options.quick)
        rows = list(measure(Path(folder), rival, 1 if options.quick else options.rounds))
    print_rows(rows, "merging as whole commands: lower is better (median, ± half the range)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
