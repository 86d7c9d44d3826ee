"""A whole training step at the shape of Gemma 3 270M: ours against plain transformers with sdpa and its own loss.

`python -m benchmarks.step [--quick] [--json PATH]`; float32, random weights, AdamW. Adapters at 4,096 tokens, all
weights at 1,024, these also with gradient checkpointing. Contenders have a process each and take turns. Memory is told
twice: all that the process holds at its peak, and what a step adds to weights and optimiser state.
"""

import argparse
from pathlib import Path

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.turns import contest, take_turns
from policy.attention.attention import implementation
from policy.config import LoraConfig
from policy.head import Targets
from policy.logprobs import weighted_forward
from policy.lora import with_lora

PLAIN = "plain transformers"


def model_of(attention: str, lora: bool) -> torch.nn.Module:
    """Random weights at the 270M's shape."""
    config = Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
        max_position_embeddings=32768,
        layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(18)],
        tie_word_embeddings=True,
        attn_implementation=attention,
        dtype="float32",
    )
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config)
    return with_lora(model, LoraConfig()) if lora else model


def contend(asked: str) -> None:
    """`asked` is the contender (ours, recomputing, plain), what is trained (lora, full), and the tokens."""
    contender, kind, tokens = asked.split()
    model = model_of("sdpa" if contender == "plain" else implementation("auto"), kind == "lora").train()
    if contender == "recomputing":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)

    def step(length: int) -> None:
        ids = torch.randint(3, 262144, (1, length), generator=torch.Generator().manual_seed(length))
        if contender == "plain":
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        else:
            positions = torch.arange(length)[None] < length - 1
            share = torch.full((length - 1,), -1.0 / (length - 1))
            loss, _ = weighted_forward(model, positions, Targets.given(ids[0, 1:]), share, input_ids=ids)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    step(64)  # the optimiser's state is there from here on
    take_turns(lambda: step(int(tokens)))


def measure(kind: str, tokens: int, rounds: int) -> list[Row]:
    """Rows of one kind of training: time, and memory at its peak."""
    names = {"ours": "ours", PLAIN: "plain"} | ({"ours, recomputing": "recomputing"} if kind == "full" else {})
    turns = contest("benchmarks.step", {name: f"{asked} {kind} {tokens}" for name, asked in names.items()}, rounds)
    plain, rows = turns.pop(PLAIN), []
    for name, turn in turns.items():
        label = f"{kind}, {tokens} tokens, {name}"
        rows += [
            Row(f"{label}: a step", turn.seconds, "s", PLAIN, plain.seconds),
            Row(f"{label}: peak memory", turn.whole / 2**20, "MiB", PLAIN, plain.whole / 2**20),
            Row(f"{label}: of it added", turn.added / 2**20, "MiB", PLAIN, plain.added / 2**20),
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="256 tokens, one round: a minute or two")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend)
        return
    sizes = [("lora", 256), ("full", 256)] if options.quick else [("lora", 4096), ("full", 1024)]
    rows = [row for kind, tokens in sizes for row in measure(kind, tokens, 1 if options.quick else 2)]
    print_rows(rows, "a training step at the shape of the 270M: lower is better")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
