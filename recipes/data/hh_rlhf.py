"""Anthropic's preference data (Bai et al. 2022, arXiv 2204.05862) as conversations."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TURN = re.compile(r"\n\n(Human|Assistant):")


def pairs(seed: int, part: str = "harmless-base", path: str | None = None) -> Iterator[dict[str, Any]]:
    """Conversations `chosen` and `rejected` of each row, which differ in the last thing that the assistant says.

    Args:
        seed: of the recipe; the rows are what they are.
        part: folder of the data set on the hub.
        path: a JSON lines file to read in place of the hub.
    """
    if path is None:
        import datasets

        rows = datasets.load_dataset("Anthropic/hh-rlhf", data_dir=part, split="train")
    else:
        rows = map(json.loads, Path(path).read_text().splitlines())
    for row in rows:
        yield {side: turns(row[side]) for side in ("chosen", "rejected")}


def turns(transcript: str) -> list[dict[str, str]]:
    """Messages of a text in which turns begin with "Human:" and "Assistant:"; two in a row of one side are joined."""
    _, *parts = _TURN.split(transcript)
    messages: list[dict[str, str]] = []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        role = "user" if speaker == "Human" else "assistant"
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += f"\n\n{text.strip()}"
        else:
            messages.append({"role": role, "content": text.strip()})
    return messages
