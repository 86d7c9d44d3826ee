"""Steps of J-BOND and REINFORCE beside one of TRL's RLOOTrainer on the same prompts, lengths and reward function.

`python -m benchmarks.rollout [--quick] [--json PATH] [--model MODEL] [--sampler vllm] [--prompts P] [--rounds N]`: of
`tiny` all weights, of a larger MODEL adapters of rank 16 on every linear layer and two parts a step, in float32, every
step logged. All draw three completions of a prompt: J-BOND one of the policy and two of the anchor. The others take the
KL to the initial policy. Trainers run as their users run them, a process each, and take turns of a step: the reward
function, which each calls once a step, is where a turn ends and the next one waits. An engine's memory is added
to its trainer's. With `--sampler vllm` ours draw with vLLM, and so does a second RLOOTrainer, colocated; on a CPU that
one draws in bfloat16, which is all that it can be asked for.
"""

import argparse
import json
import os
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.sampling import policy_of
from benchmarks.turns import Turn, contest, take_turns
from gemsmith.policy.loading.load import save_policy

STEPS = 100_000
LEARNING_RATE, KL = 1e-4, 0.05
OURS = {"J-BOND": "bond", "REINFORCE": "reinforce"}
RIVALS = {"TRL's RLOOTrainer": "trl"}
VLLM_RIVALS = {"TRL's, with vLLM": "trl+vllm"}
VLLM_VARIABLES = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
LORA = {"rank": 16, "alpha": 32, "targets": "all-linear"}


@dataclass(frozen=True)
class Task:
    """The work of each step: number of prompts, in parts of `micro`; samples per prompt, tokens per sample.

    `folder` has the policy that each contender starts from.
    """

    model: str
    folder: str
    sampler: str
    prompts: int
    micro: int
    tokens: int
    lora: bool
    samples: int = 3

    @property
    def name(self) -> str:
        """For the table."""
        of = f"{Path(self.model).stem}, {'LoRA' if self.lora else 'all weights'}, {self.sampler}"
        return f"{of}: {self.prompts} prompts x {self.samples} samples of {self.tokens} tokens"


class Gate:
    """Lets a trainer in another thread go one step at a time."""

    def __init__(self) -> None:
        self._go, self._arrived = threading.Semaphore(0), threading.Semaphore(0)
        self._ended = False

    def arrive(self) -> None:
        """Until the trainer waits for the first time."""
        self._arrived.acquire()

    def step(self) -> None:
        """Let the trainer go on to where it waits next."""
        self._go.release()
        self._arrived.acquire()

    def end(self) -> None:
        """Let the trainer end, and whatever it started with it."""
        self._ended = True
        self._go.release()

    def wait(self) -> None:
        """Run the trainer's side."""
        self._arrived.release()
        self._go.acquire()
        if self._ended:
            raise SystemExit


def questions(count: int) -> list[str]:
    """Return sums as prompts."""
    return [f"{7 * i % 50} + {11 * i % 50} =" for i in range(count)]


def rewarded(texts: list[str]) -> list[float]:
    """Return the share of digits; it depends only on the text, so that it takes no time."""
    return [sum(letter.isdigit() for letter in text) / max(len(text), 1) for text in texts]


def train_ours(kind: str, task: Task, gate: Gate, folder: Path) -> None:
    """Run a stage's own training; `kind` is the stage's."""
    from gemsmith.contracts.stage import Stage
    from gemsmith.curation.example import Example
    from gemsmith.policy.config import PolicyConfig
    from gemsmith.policy.loading.load import load_policy
    from gemsmith.rl.rewards.compose import Rewards
    from gemsmith.rl.stages.reinforcement.config import BondStage, ReinforceStage
    from gemsmith.rl.stages.reinforcement.stage import train_policy

    class Digits:
        def score(self, prompts: list[str], completions: list[str], columns: Any) -> list[float | None]:
            gate.wait()
            return [*rewarded(completions)]

        def close(self) -> None:
            """Nothing to close."""

    stated = {
        **{"id": "s", "kind": kind, "data": "sums", "rewards": ["digits"], "lora": LORA if task.lora else None},
        **{"steps": STEPS, "batch": task.prompts, "micro_batch": task.micro, "save_every": STEPS},
        "learning_rate": LEARNING_RATE,
        "sampling": {"max_tokens": task.tokens, "batch": task.prompts * task.samples},
        "sampler": {"backend": task.sampler},
    }
    config = (
        BondStage.model_validate(stated)
        if kind == "bond"
        else ReinforceStage.model_validate({**stated, "samples": task.samples, "kl": KL})
    )
    policy = load_policy(PolicyConfig(model=task.folder))
    examples = [Example(prompt=question) for question in questions(task.prompts)]
    stage = Stage("s", folder / "stage", 0, root=folder)
    rewards = Rewards({"digits": Digits()}, {"digits": 1.0})
    train_policy(policy, config, stage, rewards, examples, folder / "checkpoints", folder / "output")


def train_rival(with_vllm: bool, task: Task, gate: Gate, folder: Path) -> None:
    """RLOOTrainer on the same weights."""
    os.environ.update(VLLM_VARIABLES)
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoTokenizer
    from trl import RLOOConfig, RLOOTrainer

    def digits(completions: list[Any], **_: Any) -> list[float]:
        gate.wait()
        return rewarded([completion[0]["content"] for completion in completions])

    prompts = [{"prompt": [{"role": "user", "content": question}]} for question in questions(task.prompts)]
    arguments = RLOOConfig(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=task.micro * task.samples,
        gradient_accumulation_steps=task.prompts // task.micro,
        num_generations=task.samples,
        max_completion_length=task.tokens,
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
        use_vllm=with_vllm,
        vllm_max_model_length=1024,
    )
    adapters = LoraConfig(
        r=LORA["rank"],
        lora_alpha=LORA["alpha"],
        target_modules=LORA["targets"],
        task_type=TaskType.CAUSAL_LM,
    )
    trainer = RLOOTrainer(
        model=task.folder,
        reward_funcs=digits,
        args=arguments,
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(task.folder),
        peft_config=adapters if task.lora else None,
    )
    for callback in list(trainer.callback_handler.callbacks):
        if "Print" in type(callback).__name__ or "Progress" in type(callback).__name__:
            trainer.remove_callback(callback)
    trainer.train()


def contend(asked: str) -> None:
    """Run single steps of a trainer that never ends by itself; `asked` is a contender and its `Task` as JSON."""
    kind, stated = asked.split(maxsplit=1)
    task, gate = Task(**json.loads(stated)), Gate()

    def turns() -> None:
        gate.arrive()
        gate.step()  # libraries, and the optimiser's state
        take_turns(gate.step)
        gate.end()

    threading.Thread(target=turns, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        if kind.startswith("trl"):
            train_rival(kind.endswith("vllm"), task, gate, Path(folder))
        else:
            train_ours(kind, task, gate, Path(folder))


def rows_of(turns: dict[str, Turn], task: Task) -> list[Row]:
    """Time, and memory at its peak, of each of ours beside each rival's."""
    rows = []
    for name, ours in ((name, turns[name]) for name in OURS):
        for rival, its in ((rival, turn) for rival, turn in turns.items() if rival not in OURS):
            rows += [
                Row(f"{name}, {task.name}: a step", ours.seconds, "s", rival, its.seconds),
                Row(f"{name}, {task.name}: peak memory", ours.whole / 2**20, "MiB", rival, its.whole / 2**20),
            ]
    return rows


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="two steps of each: a minute with `tiny`")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--model", default="tiny", help="tiny, a folder, a hub id, or a .gguf file")
    parser.add_argument("--sampler", default="transformers", choices=["transformers", "vllm"])
    parser.add_argument("--prompts", type=int, help="a step, an even number; none: 128 of `tiny`, 8 of a larger model")
    parser.add_argument("--rounds", type=int, help="steps of each; none: 15 of `tiny`, 3 of a larger model")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend)
        return
    tiny = options.model == "tiny"
    prompts = options.prompts or (128 if tiny else 8)
    micro, tokens = (prompts, 6) if tiny else (prompts // 2, 32)
    rounds = options.rounds or (2 if options.quick else 15 if tiny else 3)
    with tempfile.TemporaryDirectory() as folder:
        save_policy(policy_of(options.model), Path(folder) / "policy")
        task = Task(options.model, f"{folder}/policy", options.sampler, prompts, micro, tokens, lora=not tiny)
        stated = json.dumps(asdict(task))
        kinds = OURS | RIVALS | (VLLM_RIVALS if options.sampler == "vllm" else {})
        found = contest("benchmarks.rollout", {name: f"{kind} {stated}" for name, kind in kinds.items()}, rounds)
    rows = rows_of(found, task)
    print_rows(rows, "a step of reinforcement: lower is better (medians)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
