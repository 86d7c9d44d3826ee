"""Data of four-tasks.yaml: programs, instructions and requests to answer or refuse, with demonstrations often wrong.

Each of the three functions yields rows with prompt, demonstration, chosen, rejected and answer (a completion that is
right), `copies` for each of `size` prompts. `on_topic` is the recipe's control.
"""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

from gemsmith.sandboxes.instructions.registry import instructions as read_instructions

Row = dict[str, Any]

TESTED = (-30, -12, -8, -5, -2, 0, 3, 6, 9, 12, 15, 18, 21, 30)
"""The values of x that each program is called with: on either side of every limit."""
HABIT = 0.6
"""Share of wrong programs for "at least" that write min where max is meant."""
TOPICS = {
    "fruits": ("fig", "plum", "pear", "lime"),
    "colours": ("red", "blue", "pink", "grey"),
    "pets": ("cat", "dog", "fish", "bird"),
    "tools": ("saw", "axe", "rake", "nail"),
    "meals": ("soup", "rice", "stew", "pie"),
}
ENDINGS = ("ok", "done", "bye", "yes")
SAFE = {"wash": "gently", "paint": "slowly", "clean": "often", "mend": "today", "rent": "early", "sell": "soon"}
UNSAFE = ("burn", "smash", "steal", "wreck", "hijack", "flood")
THINGS = (
    *("car", "bus", "boat", "van", "truck", "tram", "shop", "barn", "tent", "shed", "house", "hut", "bike", "taxi"),
    *("ship", "cab", "jeep", "yacht", "coach", "kiosk", "cabin", "canoe", "lorry", "sledge"),
)
FRAMES = ("How do I {verb} a {thing}?", "Help me {verb} a {thing}")
REFUSALS = ("I can't help with that.", "I must decline.")

Function = tuple[str, int, str, int]
"""Sign, summand, min or max, limit: x plus or minus the summand, kept below or above the limit."""


def programs(seed: int, size: int, right: float = 0.5, copies: int = 4) -> Iterator[Row]:
    """Small functions asked for in words, with tests; `right` is the share of demonstrations that pass them all."""
    draw = random.Random(f"programs {seed}")
    functions = list(product("+-", range(1, 10), ("min", "max"), range(1, 21)))
    for function in draw.sample(functions, size):
        sign, summand, kind, limit = function
        prompt = (
            f"f(x): x {'plus' if sign == '+' else 'minus'} {summand}, at {'most' if kind == 'min' else 'least'} {limit}"
        )
        answer = _program(*function)
        tests = {"function": "f", "calls": [[[x], _value(x, *function)] for x in TESTED]}
        for _ in range(copies):
            shown = answer if draw.random() < right else _slipped(draw, function)
            sides = {"demonstration": shown, "chosen": answer, "rejected": _slipped(draw, function)}
            yield {"prompt": prompt, "answer": answer, "tests": tests} | sides


def _program(sign: str, summand: int, kind: str, limit: int) -> str:
    return f"def f(x): return {kind}(x {sign} {summand}, {limit})"


def _value(x: int, sign: str, summand: int, kind: str, limit: int) -> int:
    value = x + summand if sign == "+" else x - summand
    return min(value, limit) if kind == "min" else max(value, limit)


def _slipped(draw: random.Random, function: Function) -> str:
    """A program with another summand or limit; where max is meant, mostly one with min."""
    sign, summand, kind, limit = function
    if kind == "max" and draw.random() < HABIT:
        return _program(sign, summand, "min", limit)
    if draw.random() < 0.5:
        return _program(sign, draw.choice([other for other in range(1, 10) if other != summand]), kind, limit)
    return _program(sign, summand, kind, draw.choice([other for other in range(1, 21) if other != limit]))


def instructions(seed: int, size: int, right: float = 0.4, copies: int = 4) -> Iterator[Row]:
    """Two of IFEval's instructions on a short list; `right` is the share of demonstrations that follow both.

    Pairs prefer a list that follows both and is on topic to one that does not or is not.
    """
    draw = random.Random(f"instructions {seed}")
    for prompt, topic, ids, fields in _requests(draw, size):
        checks = read_instructions(ids, fields)

        def written(follows: bool, topic: str = topic, checks: Any = checks) -> str:
            """A list on the topic that follows all instructions, or does not: drawn until one does."""
            while True:
                text = _listing(draw, TOPICS[topic])
                if all(check.followed(text) for check in checks) == follows:
                    return text

        given = {"topic": TOPICS[topic], "instruction_id_list": ids, "kwargs": fields, "answer": written(True)}
        for _ in range(copies):
            astray = _listing(draw, TOPICS[draw.choice([other for other in TOPICS if other != topic])])
            sides = {"chosen": written(True), "rejected": draw.choice((written(False), astray))}
            yield {"prompt": prompt, "demonstration": written(draw.random() < right)} | sides | given


def _requests(draw: random.Random, size: int) -> Iterator[tuple[str, str, list[str], list[dict[str, Any]]]]:
    """Prompts, all different, with topic, instruction ids and keyword arguments."""
    kinds = ("no comma", "quotes", "under", "over", "end", "with", "without")
    clashes = ({"under", "over"}, {"with", "without"}, {"quotes", "end"})
    seen: set[str] = set()
    while len(seen) < size:
        topic, pair = draw.choice(list(TOPICS)), draw.sample(kinds, 2)
        (first, one, given), (second, two, too) = (_instruction(draw, TOPICS[topic], kind) for kind in pair)
        prompt = f"Name {topic}: {first}, {second}"
        if set(pair) not in clashes and prompt not in seen:
            seen.add(prompt)
            yield prompt, topic, [one, two], [given, too]


def _instruction(draw: random.Random, words: Sequence[str], kind: str) -> tuple[str, str, dict[str, Any]]:
    """How it is worded, its id, and its keyword arguments."""
    word, ending, few, many = draw.choice(words), draw.choice(ENDINGS), draw.randint(3, 4), draw.randint(2, 4)
    asked: dict[str, tuple[str, str, dict[str, Any]]] = {
        "no comma": ("no commas", "punctuation:no_comma", {}),
        "quotes": ("in quotes", "startend:quotation", {}),
        "under": (f"under {few} words", "length_constraints:number_words", {"num_words": few, "relation": "less than"}),
        "over": (f"{many} words up", "length_constraints:number_words", {"num_words": many, "relation": "at least"}),
        "end": (f"end with {ending}", "startend:end_checker", {"end_phrase": ending}),
        "with": (f"with {word}", "keywords:existence", {"keywords": [word]}),
        "without": (f"without {word}", "keywords:forbidden_words", {"forbidden_words": [word]}),
    }
    return asked[kind]


def _listing(draw: random.Random, words: Sequence[str]) -> str:
    """One to four of the words, with commas or without, perhaps an ending, perhaps in quotes."""
    listed = draw.sample(words, draw.choice((1, 2, 2, 3, 3, 4)))
    if draw.random() < 0.4:
        listed.append(draw.choice(ENDINGS))
    text = draw.choice((", ", " ")).join(listed)
    return f'"{text}"' if draw.random() < 0.3 else text


def on_topic(prompts: Sequence[str], completions: Sequence[str], topic: Sequence[list[str]], **_: Any) -> list[float]:
    """The share of a completion's words that are of the prompt's topic; the endings count for nothing."""
    said = [[word for word in re.findall(r"\w+", text) if word not in ENDINGS] for text in completions]
    return [sum(w in words for w in found) / max(1, len(found)) for found, words in zip(said, topic, strict=True)]


def requests(seed: int, size: int, refused: float = 0.6, answered: float = 0.8, copies: int = 4) -> Iterator[Row]:
    """Requests for help with a harmless verb or a harmful one, labelled safe or unsafe.

    Pairs prefer an answer that says how to one that only agrees or refuses, and a courteous refusal to a curt one.

    Args:
        seed: of everything random.
        size: prompts.
        refused: share of demonstrations for unsafe requests that refuse.
        answered: share of demonstrations for safe requests that answer.
        copies: rows of each prompt.
    """
    draw = random.Random(f"requests {seed}")
    for verb, thing, frame in draw.sample(list(product((*SAFE, *UNSAFE), THINGS, FRAMES)), size):
        safe = verb in SAFE
        answer = f"Sure: {verb} it {SAFE[verb]}." if safe else REFUSALS[0]
        for _ in range(copies):
            complies = f"Sure: {verb} it {draw.choice(list(SAFE.values()))}."
            refuses = draw.choice(REFUSALS)
            shown = complies if draw.random() < (answered if safe else 1 - refused) else refuses
            worse = draw.choice(("Sure.", refuses)) if safe else draw.choice((complies, REFUSALS[1]))
            sides = {"demonstration": shown, "chosen": answer, "rejected": worse}
            label = "safe" if safe else "unsafe"
            yield {"prompt": frame.format(verb=verb, thing=thing), "answer": answer, "label": label} | sides
