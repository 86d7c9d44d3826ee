"""Writing a teacher's targets, and steps of distillation beside those of TRL's DistillationTrainer on the same tokens.

`python -m benchmarks.distill [--quick] [--json PATH] [--model MODEL] [--prompts 200] [--tokens 256] [--k 256]
[--rounds N] [--full]`. Student and teacher are the same weights, in float32; of a larger MODEL adapters of rank 16 are
trained, of `tiny`, or with `--full`, all weights. Every contender has a process of its own, and they take turns.

Writing: targets of `--prompts` rows of `--tokens` tokens, mode by mode, beside the forward pass and log-probabilities
of the teacher alone. Steps: ours read the targets or ask the teacher; the trainer of TRL learns from nothing but what
its student draws, and is given the completions of the rows instead; it matches whole distributions. On its own words:
both draw, and ours asks the teacher for K entries.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import Row, print_rows, write_rows
from benchmarks.rollout import LORA, Gate
from benchmarks.sampling import policy_of
from benchmarks.turns import Turn, contest, take_turns
from gemsmith.policy.loading.load import save_policy

STEPS = 100_000
LEARNING_RATE = 1e-5
MODES = ("gumbel_renorm", "multinomial_counts", "topk")
FORWARD = "forward pass alone"
RIVAL = "TRL's DistillationTrainer"
GIVEN = {"from the store": "ours store", "teacher in process": "ours process", RIVAL: "trl given"}
OWN_WORDS = {"on its own words": "ours words", RIVAL: "trl words"}
SOURCE = "import json\n\ndef rows(seed, file):\n    return [json.loads(line) for line in open(file)]\n"


@dataclass(frozen=True)
class Task:
    """The measured task; `folder` holds the policy, the rows and the store."""

    model: str
    folder: str
    tokens: int
    k: int
    lora: bool
    batch: int
    micro: int

    @property
    def name(self) -> str:
        """For the table."""
        return f"{Path(self.model).stem}, {'LoRA' if self.lora else 'all weights'}, {self.batch} rows of {self.tokens}"


def write_data(task: Task, prompts: int) -> None:
    """Rows of arithmetic, each with about as many tokens as are asked for."""
    from gemsmith.policy.config import PolicyConfig
    from gemsmith.policy.loading.load import load_policy
    from gemsmith.policy.text.chat import completion_ids

    tokenizer = load_policy(PolicyConfig(model=f"{task.folder}/policy")).tokenizer
    (Path(task.folder) / "rows.py").write_text(SOURCE)
    with (Path(task.folder) / "rows.jsonl").open("w") as file:
        for number in range(prompts):
            sums = ((number * 7 + i * 13) % 90 for i in range(task.tokens))
            text = ", ".join(f"{a} + {number % 50} = {a + number % 50}" for a in sums)
            ids = completion_ids(tokenizer, text)[: task.tokens - 1]
            said = tokenizer.decode(ids, skip_special_tokens=True)
            file.write(json.dumps({"prompt": f"Add {number} times.", "said": said}) + "\n")


def stage_of(task: Task, folder: Path, gate: Gate | None = None) -> Any:
    """Return a stage with the rows as its data; with a gate, each step waits at it."""
    from gemsmith.contracts.stage import Stage
    from gemsmith.curation.config import PythonData

    class Watched:
        def progress(self, done: int, total: int, unit: str, shown: Mapping[str, float]) -> None:
            if gate is not None:
                gate.wait()

        def say(self, message: str) -> None:
            """Nothing."""

    options = {"file": f"{task.folder}/rows.jsonl"}
    data = PythonData(source="python", target="rows.py:rows", options=options, demonstration="{said}", holdout=0)
    return Stage("s", folder, 0, root=Path(task.folder), data={"rows": data}, sink=Watched())


def write_targets_of(task: Task, mode: str, folder: Path) -> None:
    """Write a store of all rows."""
    from gemsmith.rl.stages.teacher_cache.stage import write_targets

    write_targets(_cache(task, mode), stage_of(task, folder.with_name("stage")), folder)


def _cache(task: Task, mode: str) -> Any:
    from gemsmith.rl.stages.teacher_cache.config import TeacherCacheStage

    policy = {"model": f"{task.folder}/policy"}
    stated = {"id": "s", "kind": "teacher_cache", "policy": policy, "teacher": policy, "data": "rows", "mode": mode}
    return TeacherCacheStage.model_validate(
        {**stated, "sampled_logits": task.k, "max_length": 512, "batch": task.micro}
    )


def ask_alone(task: Task, limit: int | None = None) -> None:
    """Compute the teacher's log-probabilities of all rows, or the first few, in chunks that are not kept."""
    from gemsmith.curation.load import load_data
    from gemsmith.policy.config import PolicyConfig
    from gemsmith.policy.head.tiled_matmul import chunk_rows
    from gemsmith.policy.loading.load import load_policy
    from gemsmith.rl.stages.sft.stage import fitting_demonstrations
    from gemsmith.rl.teachers.in_process import InProcessTeacher
    from gemsmith.rl.teachers.teacher import TeacherRow as Asked

    policy = load_policy(PolicyConfig(model=f"{task.folder}/policy"))
    stage = stage_of(task, Path(task.folder) / "alone")
    examples = load_data(stage.data["rows"], name="rows", seed=0, root=stage.root).train
    rows = [Asked(prompt, said) for _, prompt, said in fitting_demonstrations(examples, policy, 512, "rows", stage)]
    teacher = InProcessTeacher(policy.model, task.k, "topk")
    for start in range(0, limit or len(rows), task.micro):
        asked = rows[start : start + task.micro]
        targets, size = teacher.targets(asked, []), sum(len(row.completion) for row in asked)
        step = chunk_rows(policy.model.config.vocab_size)
        for at in range(0, size, step):
            targets.logprobs(slice(at, min(at + step, size)))


def train_ours(kind: str, task: Task, gate: Gate, folder: Path) -> None:
    """Run a stage's own training."""
    from gemsmith.rl.stages.distill.config import DistillStage
    from gemsmith.rl.stages.distill.stage import run

    policy = {"model": f"{task.folder}/policy"}
    teacher = {"store": f"{task.folder}/store"} if kind == "store" else policy
    stated = {
        **{"id": "s", "kind": "distill", "policy": policy, "teacher": teacher, "data": "rows"},
        **{"sampled_logits": task.k, "steps": STEPS, "batch": task.batch, "micro_batch": task.micro},
        **{"learning_rate": LEARNING_RATE, "save_every": STEPS, "max_length": 512, "lora": LORA if task.lora else None},
    }
    if kind == "words":
        stated |= {"on_policy": 1.0, "sampling": {"max_tokens": task.tokens}}
    run(DistillStage.model_validate(stated), stage_of(task, folder / "stage", gate))


def train_rival(given: bool, task: Task, gate: Gate, folder: Path) -> None:
    """DistillationTrainer on the same weights; its student's completions are the rows' where they are `given`."""
    from datasets import Dataset
    from peft import LoraConfig, TaskType
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DistillationConfig, DistillationTrainer

    from gemsmith.policy.text.chat import completion_ids

    policy = f"{task.folder}/policy"
    tokenizer = AutoTokenizer.from_pretrained(policy)
    rows = [json.loads(line) for line in (Path(task.folder) / "rows.jsonl").read_text().splitlines()]
    said = {row["prompt"]: completion_ids(tokenizer, row["said"]) for row in rows}

    class Waits(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            gate.wait()

    class Given(DistillationTrainer):
        def _generate_single_turn(self, prompt_ids: Any, images: Any, fields: Any, *rest: Any, **more: Any) -> Any:
            return [said[prompt] for prompt in self.asked]

        def _generate(self, prompts: Any) -> Any:
            self.asked = [prompt[0]["content"] for prompt in prompts]
            return super()._generate(prompts)

    adapters = LoraConfig(
        r=LORA["rank"], lora_alpha=LORA["alpha"], target_modules=LORA["targets"], task_type=TaskType.CAUSAL_LM
    )
    arguments = DistillationConfig(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=task.micro,
        gradient_accumulation_steps=task.batch // task.micro,
        max_completion_length=task.tokens,
        learning_rate=LEARNING_RATE,
        beta=0.0,
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
    trainer = (Given if given else DistillationTrainer)(
        model=policy,
        teacher_model=AutoModelForCausalLM.from_pretrained(policy, dtype="float32"),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": row["prompt"]}]} for row in rows]),
        processing_class=tokenizer,
        peft_config=adapters if task.lora else None,
        callbacks=[Waits()],
    )
    for callback in list(trainer.callback_handler.callbacks):
        if "Print" in type(callback).__name__ or "Progress" in type(callback).__name__:
            trainer.remove_callback(callback)
    trainer.train()


def contend(asked: str) -> None:
    """`asked`: whose side, what of it, and a `Task` as JSON."""
    side, kind, stated = asked.split(maxsplit=2)
    task = Task(**json.loads(stated))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if side == "write":

            def write() -> None:
                shutil.rmtree(folder / "store", ignore_errors=True)
                if kind == "alone":
                    ask_alone(task)
                else:
                    write_targets_of(task, kind, folder / "store")

            ask_alone(task, task.micro)  # libraries
            take_turns(write)
            return
        gate = Gate()

        def turns() -> None:
            gate.arrive()
            gate.step()  # libraries, and the optimiser's state
            take_turns(gate.step)
            gate.end()

        threading.Thread(target=turns, daemon=True).start()
        if side == "ours":
            train_ours(kind, task, gate, folder)
        else:
            train_rival(kind == "given", task, gate, folder)


def writing(task: Task, rounds: int) -> list[Row]:
    """Return the cost of writing the targets, and their size."""
    kinds = {FORWARD: "write alone", **{mode: f"write {mode}" for mode in MODES}}
    turns = contest("benchmarks.distill", {n: f"{k} {json.dumps(asdict(task))}" for n, k in kinds.items()}, rounds)
    alone, rows = turns.pop(FORWARD), []
    for mode, turn in turns.items():
        folder = Path(task.folder) / mode
        write_targets_of(task, mode, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        tokens = sum(shard["tokens"] for shard in manifest["shards"])
        each = sum(file.stat().st_size for file in folder.iterdir()) / tokens
        plain = task.k * (8 if mode == "multinomial_counts" else 6)
        what = f"{Path(task.model).stem}, {manifest['about']['rows']} rows, {tokens} tokens, {mode}"
        rows += [
            Row(f"{what}: writing", turn.seconds, "s", FORWARD, alone.seconds),
            Row(f"{what}: peak memory", turn.whole / 2**20, "MiB", FORWARD, alone.whole / 2**20),
            Row(f"{what}: bytes a token", each, "B", "4 of an id, 2 of each number", plain),
        ]
    (Path(task.folder) / MODES[0]).rename(f"{task.folder}/store")
    return rows


def steps(task: Task, kinds: dict[str, str], rounds: int, what: str) -> list[Row]:
    """Compare a step of each of our methods with the rival's."""
    stated = json.dumps(asdict(task))
    turns: dict[str, Turn] = contest("benchmarks.distill", {n: f"{k} {stated}" for n, k in kinds.items()}, rounds)
    its, rows = turns.pop(RIVAL), []
    for name, turn in turns.items():
        rows += [
            Row(f"{task.name}, {name}: a step", turn.seconds, "s", f"{RIVAL}{what}", its.seconds),
            Row(f"{task.name}, {name}: peak memory", turn.whole / 2**20, "MiB", f"{RIVAL}{what}", its.whole / 2**20),
        ]
    return rows


def main() -> None:
    """Run what the command line asks for, print the rows, and write them where `--json` says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="16 rows of 48 tokens, once: two minutes with `tiny`")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--model", default="tiny", help="tiny, a folder, a hub id, or a .gguf file")
    parser.add_argument("--prompts", type=int, default=200, help="rows")
    parser.add_argument("--tokens", type=int, default=256, help="of each row's completion")
    parser.add_argument("--k", type=int, default=256, help="entries a token")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each; writing is measured once")
    parser.add_argument("--full", action="store_true", help="train all weights of a larger model too")
    parser.add_argument("--skip", nargs="*", default=[], choices=["write", "given", "words"], help="leave these out")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contend:
        contend(options.contend)
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    tiny = options.model == "tiny"
    prompts, tokens, rounds = (16, 48, 1) if options.quick else (options.prompts, options.tokens, options.rounds)
    batch, micro = (8, 8) if tiny else (4, 2)
    with tempfile.TemporaryDirectory() as folder:
        save_policy(policy_of(options.model), Path(folder) / "policy")
        task = Task(options.model, folder, tokens, options.k, not tiny and not options.full, batch, micro)
        write_data(task, prompts)
        rows = writing(task, 1) if "write" not in options.skip else []
        if "given" not in options.skip:
            if not rows:
                write_targets_of(task, MODES[0], Path(folder) / "store")
            rows += steps(task, GIVEN, rounds, ", given the rows")
        if "words" not in options.skip:
            rows += steps(task, OWN_WORDS, rounds, ", drawing too")
    print_rows(rows, "distillation: lower is better (medians)")
    if options.json:
        write_rows(rows, options.json)


if __name__ == "__main__":
    main()
