"""Verdicts a second on mathematics, against math-verify alone in this process, where nothing could stop it.

`python -m benchmarks.mathematics [--quick] [--json PATH] [--data FOLDER]`. With a folder that has gsm8k/train.jsonl,
its solutions are what is verified, ended as models end them; else sums are. Both sides see the same completions, in
turn, and no completion twice, so that nothing remembered helps. The answers of the second row all need math-verify's
parser; the last rows say what it costs to stop one that hangs.
"""

import argparse
import json
import logging
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from math_verify import parse, verify

from benchmarks.results import Row, print_rows, write_rows
from gemsmith.sandboxes.child import Child
from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import Status

Pairs = list[tuple[str, str]]  # completion, truth
Judge = Callable[[Pairs], list[bool]]

ENDINGS = (
    "\n#### {}",
    "\nThe answer is {}.",
    "\n\n**Answer:** {}",
    "\nTherefore, the final answer is $\\boxed{{{}}}$.",
)
ALONE = "math-verify alone"
ENTRY = "gemsmith.sandboxes.mathematics.worker:open_comparison"


def honest(data: Path | None) -> Iterator[tuple[str, str]]:
    """Completions with their truths, endless; one in four is wrong by one."""
    random_ = random.Random(0)
    solutions = _solutions(data) if data else _sums(random_)
    for number, (text, answer) in enumerate(solutions):
        said = answer if number % 4 else f"{int(answer.replace(',', '')) + 1:,}"
        yield text + ENDINGS[number // 4 % len(ENDINGS)].format(said), answer


def _solutions(data: Path) -> Iterator[tuple[str, str]]:
    rows = [json.loads(line)["answer"] for line in (data / "gsm8k" / "train.jsonl").open()]
    for row in rows:
        text, _, answer = re.sub(r"<<[^<>]*>>", "", row).rpartition("\n#### ")
        yield text, answer.strip()


def _sums(random_: random.Random) -> Iterator[tuple[str, str]]:
    while True:
        a, b, c = (random_.randrange(2, 10_000) for _ in range(3))
        yield (
            f"First she has {a} apples and buys {b} more, so she has {a} + {b} = {a + b} apples.\n"
            f"Then she is given another {c}, which makes {a + b} + {c} = {a + b + c} apples in all.",
            f"{a + b + c:,}",
        )


def parsed() -> Iterator[tuple[str, str]]:
    """Answers that are written otherwise than their truth and must be parsed, endless; every fifth is wrong."""
    random_, number = random.Random(1), 0
    while True:
        a, b, c = (random_.randrange(2, 400) for _ in range(3))
        number += 1
        off = number % 5 == 0
        forms = (
            (rf"\sqrt{{{a * a * b + off}}}", rf"{a}\sqrt{{{b}}}"),
            (rf"{b + off} + {a}x", rf"{a}x+{b}"),
            (rf"\frac{{{a}}}{{{b + off}}}\pi", rf"\frac{{{a}\pi}}{{{b}}}"),
            (rf"(x+{a})(x+{b + off})", rf"x^2+{a + b}x+{a * b}"),
            (rf"({a}, {c}+\sqrt{{{b + off}}})", rf"({a}, \sqrt{{{b}}}+{c})"),
            (rf"{a} - {b + off}i", rf"-{b}i + {a}"),
        )
        answer, truth = forms[number % len(forms)]
        yield rf"We find that the answer is \boxed{{{answer}}}.", truth


def alone(pairs: Pairs) -> list[bool]:
    """Verify as math-verify's manual shows it, without its alarms, which cost time and work only on the main thread."""
    return [
        verify(parse(f"${truth}$", parsing_timeout=None), parse(completion, parsing_timeout=None), timeout_seconds=None)
        for completion, truth in pairs
    ]


def rates(
    judges: dict[str, Judge], source: Iterator[tuple[str, str]], count: int, rounds: int
) -> dict[str, list[float]]:
    """Verdicts a second of each side in each round; the first round is a warm-up."""
    found: dict[str, list[float]] = {name: [] for name in judges}
    for number in range(rounds + 1):
        pairs = [next(source) for _ in range(count)]
        for name, judge in judges.items():
            begun = time.perf_counter()
            judge(pairs)
            if number:
                found[name].append(count / (time.perf_counter() - begun))
    return found


def compare(name: str, judges: dict[str, Judge], source: Iterator[tuple[str, str]], count: int, rounds: int) -> Row:
    """Our rate against math-verify's."""
    found = rates(judges, source, count, rounds)
    spread = (max(found["ours"]) - min(found["ours"])) / 2
    return Row(
        name, statistics.median(found["ours"]), "verdicts/s", ALONE, statistics.median(found[ALONE]), spread=spread
    )


def stopping(rounds: int) -> Iterator[Row]:
    """Beyond its limit, how long does one that hangs keep its caller, and how soon is there an honest verdict again?"""
    limit, over, again, fresh = 0.5, [], [], []
    with MathVerifier(workers=1, time_limit=limit) as verifier:
        verifier.verify([r"\boxed{x+x}"], ["2x"])
        for number in range(rounds):
            begun = time.perf_counter()
            found = verifier.verify([rf"\boxed{{\sum_{{k=1}}^{{{10**8 + number}}} \sin(k)/k}}"], [r"\sqrt{7}"])[0]
            stopped = time.perf_counter()
            assert found.status is Status.TIMEOUT
            verifier.verify([rf"\boxed{{{number}x+x}}"], [rf"{number + 1}x"])
            over.append(stopped - begun - limit)
            again.append(time.perf_counter() - stopped)
            begun = time.perf_counter()
            Child(ENTRY, quiet=True).kill()
            fresh.append(time.perf_counter() - begun)
    spread = (max(over) - min(over)) / 2
    yield Row("stopped after its limit", statistics.median(over), "s", "asked for at most", 1.0, spread=spread)
    spread = (max(again) - min(again)) / 2
    yield Row("next verdict", statistics.median(again), "s", "a fresh interpreter", statistics.median(fresh), spread)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="small numbers, two rounds: seconds")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--data", type=Path, help="folder with gsm8k/train.jsonl")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)  # math-verify warns of the alarms that are off
    rounds = 2 if options.quick else 5
    with MathVerifier(workers=options.workers) as verifier:

        def ours(pairs: Pairs) -> list[bool]:
            found = verifier.verify([completion for completion, _ in pairs], [truth for _, truth in pairs])
            return [verdict.status is Status.RIGHT for verdict in found]

        judges: dict[str, Judge] = {"ours": ours, ALONE: alone}
        name = "GSM8K solutions" if options.data else "sums in words"
        rows = [
            compare(name, judges, honest(options.data), 200 if options.quick else 1_000, rounds),
            compare("answers that need a parser", judges, parsed(), 60 if options.quick else 400, rounds),
        ]
    rows += stopping(rounds)
    title = (
        f"mathematics: {options.workers} workers against math-verify in process (median of rounds, ± half the range)"
    )
    print_rows(rows, title)
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
