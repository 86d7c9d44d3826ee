"""A whole training step at the shape of Gemma 3 270M: ours against plain transformers with sdpa and its own loss.

`python -m benchmarks.step [--quick] [--json PATH]`; float32, random weights, AdamW (torch's fused one, as transformers
takes it). Contenders have a process each and take turns. Memory is reported twice: the peak of the
process, and the addition of a step to weights and optimiser state. "recomputing" is gradient checkpointing: plain
transformers cannot do without at 4,096 tokens in 24 GiB. Where half of the tokens are a prompt, ours makes no logits
for it.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.turns import contest, take_turns
from gemsmith.policy.attention.attention import implementation
from gemsmith.policy.config import LoraConfig
from gemsmith.policy.head.logprobs import weighted_forward
from gemsmith.policy.head.vocabulary_head import Targets
from gemsmith.policy.loading.lora import with_lora

PLAIN = "plain transformers"
BOTH = {"ours": "ours", PLAIN: "plain"}
OURS_TWICE = {"ours": "ours", "ours, recomputing": "ours+"}
SIZES = [
    ("lora 2048 2048", BOTH, PLAIN),
    ("lora 4096 4096", OURS_TWICE | {f"{PLAIN}, recomputing": "plain+"}, f"{PLAIN}, recomputing"),
    ("lora 4096 2048", OURS_TWICE | {f"{PLAIN}, recomputing": "plain+"}, f"{PLAIN}, recomputing"),
    ("full 1024 1024", OURS_TWICE | {PLAIN: "plain"}, PLAIN),
]
QUICK = [("lora 256 256", BOTH, PLAIN), ("full 256 256", BOTH, PLAIN)]


def model_of(attention: str, lora: bool) -> Any:
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
    """`asked`: ours or plain, a `+` behind it for recomputing; lora or full; tokens, and the last so many learnt."""
    contender, kind, tokens, learnt = asked.split()
    plain = contender.startswith("plain")
    model = model_of("sdpa" if plain else implementation("auto"), kind == "lora").train()
    if contender.endswith("+"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)

    def step(length: int, learnt: int) -> None:
        ids = torch.randint(3, 262144, (1, length), generator=torch.Generator().manual_seed(length))
        start = max(length - learnt, 1)  # nothing predicts the first token
        if plain:
            loss = model(input_ids=ids, labels=ids.index_fill(1, torch.arange(start), -100), use_cache=False).loss
        else:
            positions = (torch.arange(length)[None] >= start - 1) & (torch.arange(length)[None] < length - 1)
            share = torch.full((length - start,), -1.0 / (length - start))
            loss, _ = weighted_forward(model, positions, Targets.given(ids[0, start:]), share, input_ids=ids)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    step(64, 64)  # libraries, and the optimiser's state
    take_turns(lambda: step(int(tokens), int(learnt)))


def measure(size: str, names: dict[str, str], rival: str, rounds: int) -> list[Row]:
    """Time, and memory at its peak, of every contender beside the rival's; `size` is what `contend` is asked for."""
    turns = contest("benchmarks.step", {name: f"{asked} {size}" for name, asked in names.items()}, rounds)
    kind, tokens, learnt = size.split()
    label = f"{kind}, {tokens} tokens" + ("" if tokens == learnt else f", {learnt} learnt")
    rows, plain = [], turns.pop(rival)
    for name, turn in turns.items():
        rows += [
            Row(f"{label}, {name}: a step", turn.seconds, "s", rival, plain.seconds),
            Row(f"{label}, {name}: peak memory", turn.whole / 2**20, "MiB", rival, plain.whole / 2**20),
            Row(f"{label}, {name}: of it added", turn.added / 2**20, "MiB", rival, plain.added / 2**20),
        ]
    return rows


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="256 tokens: a minute or two")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each contender; one round takes ten minutes")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend)
        return
    sizes = QUICK if options.quick else SIZES
    rows = [row for size, names, rival in sizes for row in measure(size, names, rival, options.rounds)]
    print_rows(rows, "a training step at the shape of the 270M: lower is better")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
