"""A claim: a sentence of a paper, its measurement for one seed, and the verdict on the measurements of all seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Setting = Mapping[str, Any]
Curve = list[tuple[float, float]]
Holds = Literal["holds", "holds in part", "does not hold"]


@dataclass(frozen=True)
class Measured:
    """Result of one seed: numbers by name, and curves by name as (x, y) points. Kept as JSON, so keep them short."""

    numbers: dict[str, float]
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Verdict on a claim.

    Attributes:
        expected: the paper's statement, in the terms of this setting.
        observed: the observation, one short text for each seed.
        holds: the verdict.
        remark: the part that fails, and the best explanation found; may be empty.
    """

    expected: str
    observed: tuple[str, ...]
    holds: Holds
    remark: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper that can be tried on this machine.

    Attributes:
        id: short, as in "B1"; it names the result files.
        sentence: the claim, as a full sentence: the title of its figure.
        source: paper and place, as in "BOND (arXiv 2407.14622), figure 2".
        setting: sizes of the whole trial; plain values, which the report prints.
        quick: the settings that `--quick` changes. Together with `setting` it is what `run` is given.
        run: measures once. It is called with the setting and a seed, after `torch.manual_seed(seed)`.
        judge: turns the measurements, in the order of the seeds, into a verdict. `graded` does the common case.
        draw: draws the measurements on matplotlib axes; axes are named with units, seeds are thin lines.
        seeds: what is tried; a claim wants at least three.
        names: modules that `run` reaches by name and not by import, such as "gemsmith.rl.algorithms.bond".
    """

    id: str
    sentence: str
    source: str
    setting: Setting
    run: Callable[[Setting, int], Measured]
    judge: Callable[[Sequence[Measured]], Verdict]
    draw: Callable[[Any, Sequence[Measured]], None]
    quick: Setting = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    names: tuple[str, ...] = ()


def graded(expected: str, observed: Sequence[str], checks: Mapping[str, Sequence[bool]], remark: str = "") -> Verdict:
    """Return the verdict from the parts of a claim, each true or false for each seed.

    It holds if every part is true for every seed. It does not hold if no part is true for most seeds. Otherwise it
    holds in part, and the remark counts the seeds of each part that is not always true.
    """
    whole = all(all(seeds) for seeds in checks.values())
    some = any(2 * sum(seeds) > len(seeds) for seeds in checks.values())
    holds: Holds = "holds" if whole else "holds in part" if some else "does not hold"
    short = [f"{name}: {sum(seeds)} of {len(seeds)} seeds" for name, seeds in checks.items() if not all(seeds)]
    text = ". ".join(part for part in ("; ".join(short), remark) if part)
    return Verdict(expected, tuple(observed), holds, text)
