"""`gemsmith chat`: a plain conversation with a policy in the terminal."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gemsmith.contracts.errors import UserError
from gemsmith.recipes.commands.options import PlaceArgument
from gemsmith.recipes.run.console import captured, quieten

HISTORY = 20
"""Turns that the policy sees in its prompt; older ones are dropped."""


def chat(
    place: PlaceArgument,
    stage: Annotated[
        str | None,
        typer.Option("--stage", help="Stage to chat with. Default: the last finished stage with a policy."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    temperature: Annotated[float, typer.Option("--temperature", help="Sampling temperature, above 0.")] = 1.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Maximum length of an answer, in tokens.")] = 256,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always take the most likely token.")] = False,
) -> None:
    """Chat with a policy in the terminal; Ctrl-D ends."""
    from gemsmith.recipes.run.trained import find_policy

    check_settings(temperature, max_tokens)
    trained = find_policy(place, stage)
    quieten()
    try:
        converse(trained.folder, system=system, temperature=temperature, max_tokens=max_tokens, greedy=greedy)
    except KeyboardInterrupt:
        print()


def converse(
    folder: Path,
    *,
    system: str | None = None,
    temperature: float = 1.0,
    max_tokens: int = 256,
    greedy: bool = False,
    seed: int = 0,
    read: Callable[[str], str] = input,
    write: Callable[[str], None] = print,
) -> None:
    """Chat with the policy in `folder` until the input ends; the prompt holds the last `HISTORY` turns.

    Args:
        folder: a transformers folder or a .gguf file.
        system: the system prompt; Gemma's chat template puts it before the first user turn.
        temperature: sampling temperature, above 0.
        max_tokens: maximum length of an answer, in tokens.
        greedy: always take the most likely token.
        seed: seed of the first answer; each further answer adds one.
        read: reads a line after showing the given prompt; raises EOFError at the end of the input.
        write: prints a line.
    """
    with captured(Path(os.devnull)):
        from gemsmith.policy.config import PolicyConfig, SamplingConfig
        from gemsmith.policy.loading.load import load_policy
        from gemsmith.policy.samplers.transformers_sampler import TransformersSampler
        from gemsmith.policy.text.chat import prompt_ids

        policy = load_policy(PolicyConfig(model=str(folder.resolve())))
    sampler = TransformersSampler(policy, SamplingConfig(temperature=temperature, max_tokens=max_tokens))
    longest = policy.model.config.max_position_embeddings
    opening = [{"role": "system", "content": system}] if system else []
    turns: list[dict[str, str]] = []
    while True:
        try:
            text = read("> ").strip()
        except EOFError:
            write("")
            return
        if not text:
            continue
        turns = [*turns, {"role": "user", "content": text}][-(2 * HISTORY - 1) :]
        prompt = prompt_ids(policy.tokenizer, opening + turns)
        # Drop the oldest question and answer together, so that the first turn is always the user's.
        while len(prompt) + max_tokens > longest and len(turns) > 1:
            turns = turns[2:]
            prompt = prompt_ids(policy.tokenizer, opening + turns)
        if len(prompt) + max_tokens > longest:
            room = longest - max_tokens
            write(
                f"(your message has {len(prompt)} tokens; with answers of up to {max_tokens} tokens, this policy's "
                f"context leaves {room} for it)"
            )
            turns = turns[:-1]
            continue
        samples = sampler.sample([prompt], 1, seed, greedy=greedy)
        seed += 1
        answer = samples.text[0].strip()
        write(answer + (" ..." if samples.finish[0] == "length" else ""))
        turns.append({"role": "assistant", "content": answer})


def check_settings(temperature: float, max_tokens: int) -> None:
    """Reject sampling settings that are out of range.

    Raises:
        UserError: the message names the option.
    """
    if not temperature > 0:
        raise UserError(
            f"--temperature: found {temperature:g}, expected a number above 0 (use --greedy for the most likely token)"
        )
    if max_tokens < 1:
        raise UserError(f"--max-tokens: found {max_tokens}, expected 1 or more")
