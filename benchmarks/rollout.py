"""A step of REINFORCE on `tiny`: ours beside TRL's RLOOTrainer on the same prompts, lengths and reward function.

`python -m benchmarks.rollout [--quick] [--json PATH]`: 128 prompts x 3 completions of at most 6 tokens, KL to the
initial policy, float32, every step logged. Both trainers run as their users run them, a process each, and take turns of
a step: the reward function, which each calls once a step, is where a turn ends and the next one waits.
"""

import argparse
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.turns import Turn, contest, take_turns

PROMPTS, SAMPLES, TOKENS, STEPS = 128, 3, 6, 100_000
LEARNING_RATE, KL = 1e-4, 0.05
OURS, RIVAL = "ours", "TRL's RLOOTrainer"


class Gate:
    """Lets a trainer in another thread go one step at a time."""

    def __init__(self) -> None:
        self._go, self._arrived = threading.Semaphore(0), threading.Semaphore(0)

    def arrive(self) -> None:
        """Until the trainer waits for the first time."""
        self._arrived.acquire()

    def step(self) -> None:
        """Let the trainer go on to where it waits next."""
        self._go.release()
        self._arrived.acquire()

    def wait(self) -> None:
        """The trainer's side."""
        self._arrived.release()
        self._go.acquire()


def questions() -> list[str]:
    """Sums to do."""
    return [f"{7 * i % 50} + {11 * i % 50} =" for i in range(PROMPTS)]


def rewarded(texts: list[str]) -> list[float]:
    """The share of digits; of text alone, so that it takes no time."""
    return [sum(letter.isdigit() for letter in text) / max(len(text), 1) for text in texts]


def train_ours(gate: Gate, folder: Path) -> None:
    """The `reinforce` stage's own training."""
    from contracts.stage import Stage
    from curation.example import Example
    from policy.config import PolicyConfig
    from policy.load import load_policy
    from rl.config import ReinforceStage
    from rl.rewards.compose import Rewards
    from rl.train import train_policy

    class Digits:
        def score(self, prompts: list[str], completions: list[str], columns: Any) -> list[float | None]:
            gate.wait()
            return [*rewarded(completions)]

        def close(self) -> None:
            """Nothing to close."""

    config = ReinforceStage.model_validate(
        {
            **{"id": "s", "kind": "reinforce", "data": "sums", "rewards": ["digits"], "samples": SAMPLES, "kl": KL},
            **{"steps": STEPS, "batch": PROMPTS, "learning_rate": LEARNING_RATE, "save_every": STEPS},
            "sampling": {"max_tokens": TOKENS, "batch": PROMPTS * SAMPLES},
        }
    )
    policy = load_policy(PolicyConfig(model="tiny"))
    examples = [Example(prompt=question) for question in questions()]
    stage = Stage("s", folder / "stage", 0, root=folder)
    rewards = Rewards({"digits": Digits()}, {"digits": 1.0})
    train_policy(policy, config, stage, rewards, examples, folder / "checkpoints", folder / "output")


def train_rival(gate: Gate, folder: Path) -> None:
    """RLOOTrainer on the same weights; it takes its reference from a folder."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import RLOOConfig, RLOOTrainer

    from policy.config import PolicyConfig
    from policy.load import load_policy, save_policy

    def digits(completions: list[Any], **_: Any) -> list[float]:
        gate.wait()
        return rewarded([completion[0]["content"] for completion in completions])

    save_policy(load_policy(PolicyConfig(model="tiny", attention="sdpa")), folder / "tiny")
    prompts = [{"prompt": [{"role": "user", "content": question}]} for question in questions()]
    arguments = RLOOConfig(
        output_dir=str(folder / "trainer"),
        max_steps=STEPS,
        per_device_train_batch_size=PROMPTS * SAMPLES,
        num_generations=SAMPLES,
        max_completion_length=TOKENS,
        learning_rate=LEARNING_RATE,
        beta=KL,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        optim="adamw_torch_fused",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = RLOOTrainer(
        model=str(folder / "tiny"),
        reward_funcs=digits,
        args=arguments,
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(folder / "tiny"),
    )
    for callback in list(trainer.callback_handler.callbacks):
        if "Print" in type(callback).__name__ or "Progress" in type(callback).__name__:
            trainer.remove_callback(callback)
    trainer.train()


def contend(asked: str) -> None:
    """Turns of a step each, of a trainer that never ends by itself."""
    train: Callable[[Gate, Path], None] = train_ours if asked == "ours" else train_rival
    gate = Gate()
    with tempfile.TemporaryDirectory() as folder:

        def turns() -> None:
            gate.arrive()
            gate.step()  # libraries, and the optimiser's state
            take_turns(gate.step)
            os._exit(0)

        threading.Thread(target=turns, daemon=True).start()
        train(gate, Path(folder))


def rows_of(turns: dict[str, Turn]) -> list[Row]:
    """Time, and memory at its peak."""
    ours, rival = turns[OURS], turns[RIVAL]
    name = f"tiny, {PROMPTS} prompts x {SAMPLES} samples of {TOKENS} tokens: "
    return [
        Row(f"{name}a step", ours.seconds, "s", RIVAL, rival.seconds),
        Row(f"{name}peak memory", ours.whole / 2**20, "MiB", RIVAL, rival.whole / 2**20),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two steps of each: half a minute")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend)
        return
    found = contest("benchmarks.rollout", {OURS: "ours", RIVAL: "trl"}, 2 if options.quick else 15)
    rows = rows_of(found)
    print_rows(rows, "a step of REINFORCE: lower is better (medians)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
