"""Reinforcement learning of a policy: the `bond` and `reinforce` stages, and the inner runs of `warp`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import TrainingArguments

from gemsmith.contracts.processes import rank
from gemsmith.contracts.seeds import seed_of_run
from gemsmith.contracts.stage import Stage
from gemsmith.curation.example import Example
from gemsmith.curation.load import load_data, unique_prompts
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.open import open_sampler
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.policy.training.engine import ROLLOUTS, run_training, training_arguments
from gemsmith.policy.training.kept_checkpoints import KeepPolicies, write_index
from gemsmith.policy.training.lifecycle import save_trained, trainable
from gemsmith.policy.weight_set import WeightSet
from gemsmith.rl.algorithms.algorithm import build
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.algorithms.rollout_config import RolloutConfig
from gemsmith.rl.rewards.compatibility import check_gates, check_routes
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rollouts.episodes import EpisodeCollector
from gemsmith.rl.rollouts.estimators import record_estimators
from gemsmith.rl.rollouts.prompt_room import with_room
from gemsmith.rl.rollouts.reward_hacking import read_hacking_onsets
from gemsmith.rl.rollouts.rollout import RolloutCollector
from gemsmith.rl.rollouts.ties import TieWatch
from gemsmith.rl.rollouts.trainer import RolloutTrainer
from gemsmith.rl.stages.reinforcement.config import AlgorithmStage


def run(config: AlgorithmStage, stage: Stage) -> None:
    """Train `config.policy` with the stage's algorithm and save it to `stage.output`.

    The policies after `config.keep_steps` are saved beside it (`gemsmith.policy.training.kept_checkpoints`).
    """
    assert config.policy is not None
    if stage.output.exists():  # the run was killed after saving and before the stage was recorded as finished
        return
    policy = load_policy(config.policy, stage.inputs, stage.root, seed=stage.seed, tokens=config.stated_length)
    examples = training_prompts(config, policy, stage)
    with open_rewards(config.rewards, stage) as rewards:
        train_policy(policy, config, stage, rewards, examples, stage.checkpoints, stage.output, kept=config.keep_steps)


def train_policy(
    policy: Policy,
    config: RolloutConfig,
    stage: Stage,
    rewards: Rewards,
    examples: list[Example],
    folder: Path,
    output: Path,
    run_seed: int = 0,
    part: tuple[int, int] = (0, 1),
    together: bool = False,
    kept: Sequence[int] = (),
    **where: Any,
) -> None:
    """Train `policy`, resuming from the last checkpoint if there is one, and save it to `output`.

    Args:
        policy: initial policy; it is trained in place.
        config: algorithm and optimisation settings.
        stage: the stage, for the seed, the engine, messages and metrics.
        rewards: rewards of the completions, open.
        examples: training prompts.
        folder: folder of the checkpoints; removed after `output` is written.
        output: folder of the trained policy.
        run_seed: number of the run within the stage; it changes prompt order and samples.
        part: (i, n) for the i-th of n runs of the stage, for the progress.
        together: True if other processes train other runs of the stage at the same time.
        kept: steps after which the policy is saved, in `kept/STEP` of the stage's folder.
        where: labels that are added to each row of this run's metrics, such as `iteration` and `run`.

    Raises:
        UserError: the gate of a reward is not one of the rewards, or no reward applies to a prompt.
    """
    check_gates(rewards.terms, stage.id)
    check_routes(rewards.terms, examples, stage.id, config.data)
    algorithm = build(config)
    seed = seed_of_run(stage.seed, run_seed)
    if algorithm.auxiliary_learner is not None:
        algorithm.auxiliary_learner.begin(policy, seed + 1)
    model = trainable(policy, config.lora, seed)
    live, initial = Policy(model, policy.tokenizer), WeightSet(model)
    anchor = WeightSet(model) if algorithm.anchor_rate else initial if algorithm.needs_anchor_logprob else None
    arguments = _arguments(config, stage, folder, model, seed)
    stage.folder.mkdir(parents=True, exist_ok=True)
    if not where and rank() == 0:  # these two files describe the stage, so that runs of warp do not write them
        write_index(stage, kept, config.steps)
        record_estimators([config], stage)
    with (
        open_rewards(config.control, stage) as control,
        open_sampler(live, config.sampling, config.sampler, stage.say, anchor, config.overlap) as sampler,
    ):
        settings = {"sampling": config.sampling, "limits": config.sampler, "say": stage.say, "control": control}
        batch = config.micro_batch or config.batch
        collector = _collector_of(config)(live, sampler, rewards, algorithm, initial, anchor, batch, **settings)
        trainer = RolloutTrainer(
            model=model,
            args=arguments,
            processing_class=policy.tokenizer,
            collector=collector,
            examples=examples,
            seed=seed,
            shown=stage.folder / ROLLOUTS,
            marks=where,
            overlap=config.overlap,
            updates=config.steps_per_rollout,
            ties=_tie_watch(config, stage),
        )
        trainer.add_callback(KeepPolicies(stage, kept, policy.tokenizer))
        run_training(trainer, stage, folder, part=part, together=together, **where)
    _report_hacking_onsets(config, rewards, stage, where)
    save_trained(trainer, policy, output, folder)


def _arguments(config: RolloutConfig, stage: Stage, folder: Path, model: nn.Module, seed: int) -> TrainingArguments:
    """Return the trainer's arguments; checkpoints are aligned to rollouts, since a partly used rollout is not saved."""
    updates = config.steps_per_rollout
    return training_arguments(
        config,
        stage,
        folder,
        model=model,
        remove_unused_columns=False,
        seed=seed,
        data_seed=seed,
        save_steps=-(-config.save_every // updates) * updates,
    )


def _tie_watch(config: RolloutConfig, stage: Stage) -> TieWatch | None:
    """Return a monitor that warns about tied rewards, from which J-BOND gets no signal; None if not needed."""
    return TieWatch(stage.say) if config.warns_of_ties and rank() == 0 else None


def _collector_of(config: RolloutConfig) -> Callable[..., RolloutCollector]:
    if config.most_turns > 1:
        return partial(EpisodeCollector, config=cast(ReinforceAlgorithm, config))
    return RolloutCollector


def _report_hacking_onsets(config: RolloutConfig, rewards: Rewards, stage: Stage, where: dict[str, Any]) -> None:
    """Report control rewards that fell in this run while the training reward rose."""
    if rank() or not config.control:
        return
    normalised = any(term.normalise != "none" for term in rewards.terms.values())
    for onset in read_hacking_onsets(stage.metrics_file, normalised, where):
        stage.say(f"{onset.training}: {onset}" if where else str(onset))


def training_prompts(config: RolloutConfig, policy: Policy, stage: Stage) -> list[Example]:
    """Return the distinct training prompts that leave `max_tokens` for a completion, repeated to fill one batch.

    Raises:
        UserError: no prompt is short enough.
    """
    data = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)
    fitting = with_room(
        unique_prompts(data.train),
        lambda example: len(prompt_ids(policy.tokenizer, example.messages)),
        data=config.data,
        max_length=config.max_length,
        max_tokens=config.sampling.max_tokens,
        say=stage.say,
    )
    return fitting * -(-config.batch // len(fitting))
