"""The evaluate stage: samples several policies on the same held-out prompts with one seed, and scores them."""

import gc
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.stage import Stage, write_atomically
from gemsmith.curation.example import Example
from gemsmith.curation.load import load_data, unique_prompts
from gemsmith.evals.comparison import check_expected, score_lines
from gemsmith.evals.config import EvaluateStage
from gemsmith.evals.rows import Answer, AnsweredPrompt, load_rows, save_rows
from gemsmith.evals.scores import RowScorer, shown_samples
from gemsmith.policy.config import PolicyConfig
from gemsmith.policy.head.logprobs import sequence_logprobs
from gemsmith.policy.loading.load import load_policy
from gemsmith.policy.policy import Policy
from gemsmith.policy.samplers.contract import Sampler, Samples
from gemsmith.policy.samplers.logprob_mismatch import check, check_completions, scored
from gemsmith.policy.samplers.open import open_sampler
from gemsmith.policy.text.chat import prompt_ids
from gemsmith.policy.text.vocabulary import other_entries, rows_of
from gemsmith.rl.rewards.compatibility import check_routes
from gemsmith.rl.rewards.compose import Rewards, open_rewards
from gemsmith.rl.rewards.reward import columns_of


def run(config: EvaluateStage, stage: Stage) -> None:
    """Write `scores.json` and `samples.jsonl`; do not sample policies again that an interrupted attempt finished.

    Raises:
        UserError: the stage's settings do not fit its data, rewards or policies.
        RunError: a gain in `expect` was not reached; the scores are written nevertheless.
    """
    passes = _pass_rewards(config, stage)
    for name in (name for expectation in config.expect for name in (expectation.better, expectation.than)):
        if name not in config.policies:
            raise UserError(
                f"stage `{config.id}`: `expect` names `{name}`, which is not evaluated; add it to `policies`"
            )
    if not config.sampling.untruncated:
        stage.say("completions are sampled with top_p or top_k, which the KL leaves out: the KL is biased")
    elif not config.sampling.plain:
        stage.say(f"the KL is that of the distributions at temperature {config.sampling.temperature:g}")
    examples = _held_out(config, stage)
    with ExitStack() as opened:
        evaluation = _Evaluation(config, stage, examples, passes, opened)
        rows = {name: evaluation.rows(name) for name in dict.fromkeys(config.policies)}
    scorer = RowScorer(passes, scratch=stage.folder / "evaluate")
    scores = {
        "prompts": len(examples),
        "samples": config.samples,
        "initial": evaluation.initial,
        "passes": ", ".join(passes),
        "policies": [scorer.policy_scores(name, found) for name, found in rows.items()],
        "differences": scorer.differences(rows),
    }
    samples = shown_samples(rows, passes, config.shown)
    write_atomically(
        stage.output / "samples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in samples)
    )
    write_atomically(stage.output / "scores.json", json.dumps(scores, indent=1) + "\n")
    for line in [*score_lines(scores), *check_expected(scores, config.expect)]:
        stage.say(line)


def _pass_rewards(config: EvaluateStage, stage: Stage) -> list[str]:
    """Return the rewards that decide what passes: the first one that applies to a completion counts."""
    for name in (named := config.named_passes):
        if name not in config.rewards:
            raise UserError(
                f"stage `{config.id}`: `passes` names reward `{name}`, which is not among its rewards "
                f"({', '.join(config.rewards)}): add it to `rewards`"
            )
    true = [name for name in config.rewards if getattr(stage.rewards.get(name), "ground_truth", False)]
    if named or true:
        return named or true
    raise UserError(
        f"stage `{config.id}`: none of its rewards ({', '.join(config.rewards)}) says what is true, so it is not clear "
        "what passes: set `passes` to the reward whose value 1 counts as a pass"
    )


def _held_out(config: EvaluateStage, stage: Stage) -> list[Example]:
    """Return the distinct held-out prompts, or a subset that the seed selects, in the order of the data."""
    split = load_data(stage.data[config.data], name=config.data, seed=stage.seed, root=stage.root)
    examples = unique_prompts(split.test)
    if not examples:
        raise UserError(
            f"stage `{config.id}`: data `{config.data}` holds no prompts out: raise its `holdout` (a share of its rows)"
        )
    if config.prompts is None or config.prompts >= len(examples):
        return examples
    chosen = np.random.default_rng(stage.seed).permutation(len(examples))[: config.prompts]
    return [examples[index] for index in sorted(chosen)]


@dataclass
class _Evaluation:
    """The policies of one stage. Keeps the initial policy in memory from its first use, and one other policy at a time.

    Opens the rewards into `opened`, which the owner closes.
    """

    config: EvaluateStage
    stage: Stage
    examples: Sequence[Example]
    passes: Sequence[str]
    opened: ExitStack
    _initial: Policy | None = None
    _rewards: Rewards | None = None

    @property
    def initial(self) -> str:
        """Return the id of the stage whose policy the KL is measured from."""
        return self.config.initial or self.config.policies[0]

    def rows(self, name: str) -> list[AnsweredPrompt]:
        """Return the rows of one policy, from the file of an earlier attempt or sampled now."""
        path = self.stage.folder / "rows" / f"{name}.jsonl"
        rows = load_rows(path, [example.prompt for example in self.examples], self.config.samples)
        if rows is not None:
            self.stage.say(f"{name}: using the answers of the interrupted attempt")
            self._advance(name, rows)
            return rows
        policy = self._load(name)
        rows = []
        with open_sampler(policy, self.config.sampling, self.config.sampler, self.stage.say) as sampler:
            sampler.sync()
            for examples, seed in self._batches():
                rows += self._answer(name, policy, sampler, examples, seed)
                self._advance(name, rows)
        save_rows(rows, path)
        del policy
        gc.collect()
        return rows

    def _load(self, name: str) -> Policy:
        if name != self.initial:
            return load_policy(PolicyConfig.named(name), self.stage.inputs, self.stage.root)
        if self._initial is None:
            self._initial = load_policy(PolicyConfig.named(name), self.stage.inputs, self.stage.root)
        return self._initial

    def _open_rewards(self) -> Rewards:
        """Return the rewards; they are opened when the first policy is sampled and closed with the stage."""
        if self._rewards is None:
            self._rewards = self.opened.enter_context(open_rewards(self.config.rewards, self.stage))
            check_routes(self._rewards.terms, self.examples, self.stage.id, self.config.data)
        return self._rewards

    def _batches(self) -> Iterator[tuple[list[Example], int]]:
        """Yield the prompts whose samples fill one batch of the sampler, with a seed that is the same for every
        policy.
        """
        size = max(1, self.config.sampling.batch // self.config.samples)
        for start in range(0, len(self.examples), size):
            seed = int(np.random.SeedSequence([self.stage.seed, start]).generate_state(1)[0])
            yield list(self.examples[start : start + size]), seed

    def _answer(
        self, name: str, policy: Policy, sampler: Sampler, examples: list[Example], seed: int
    ) -> list[AnsweredPrompt]:
        """Sample, score and measure one batch of prompts."""
        prompts = [prompt_ids(policy.tokenizer, example.messages) for example in examples]
        self._check_fits(policy, prompts)
        samples = self.config.samples
        sampled = sampler.sample(prompts, samples, seed)
        greedy = sampler.sample(prompts, 1, seed, greedy=True)
        repeated = [prompt for prompt in prompts for _ in range(samples)]
        logprobs = self._logprobs(policy, sampler, repeated, sampled)
        initial = logprobs
        if name != self.initial:
            start, sampling = self._load(self.initial), self.config.sampling
            self._check_vocabulary(name, policy, start, sampled)
            initial = sequence_logprobs(
                start.model, repeated, sampled.ids, sampling.temperature, sampling.batch
            ).tolist()
        rewards = self._open_rewards()
        answers = _score(rewards, [example for example in examples for _ in range(samples)], sampled, logprobs, initial)
        nothing = [None] * len(examples)
        greedy_answers = _score(rewards, examples, greedy, nothing, nothing)
        return [
            AnsweredPrompt(
                example.prompt, example.answer, greedy_answer, answers[index * samples :][:samples], example.task
            )
            for index, (example, greedy_answer) in enumerate(zip(examples, greedy_answers, strict=True))
        ]

    def _logprobs(self, policy: Policy, sampler: Sampler, prompts: list[list[int]], sampled: Samples) -> list[float]:
        """Return the log-probabilities of whole completions; a sampler with its own weights must agree with them."""
        check_completions(sampled, policy, self.config.sampling)
        sampling = self.config.sampling
        if sampler.same_weights:
            scores_S = sequence_logprobs(policy.model, prompts, sampled.ids, sampling.temperature, sampling.batch)
            return scores_S.tolist()
        found = scored(policy, prompts, sampled, sampling, sampling.batch)
        warning = check(found.gap, self.config.sampler)
        if warning:
            self.stage.say(warning)
        return found.logprob_S.tolist()

    def _check_vocabulary(self, name: str, policy: Policy, start: Policy, sampled: Samples) -> None:
        """Check that the initial policy can score the samples: token ids must mean the same in both policies.

        Rows of the embedding beyond the tokenizer are padding, so that their number may differ.

        Raises:
            UserError: the tokenizers differ, or a sample has a token that the initial policy has no row for.
        """
        owners = (self.initial, name)
        different = other_entries(start.tokenizer.get_vocab(), policy.tokenizer.get_vocab(), owners)
        largest = max((token for ids in sampled.ids for token in ids), default=0)
        if different is None and largest >= rows_of(start):
            different = f"{name} sampled the id {largest}, and {self.initial} has {rows_of(start)} rows"
        if different is not None:
            raise UserError(
                f"stage `{self.config.id}`: the policy of {name} has another vocabulary than that of {self.initial} "
                f"({different}), so that it has no KL from it: compare policies that start from one model"
            )

    def _check_fits(self, policy: Policy, prompts: Sequence[Sequence[int]]) -> None:
        context, longest = policy.model.config.max_position_embeddings, max(map(len, prompts))
        if longest + self.config.sampling.max_tokens > context:
            raise UserError(
                f"stage `{self.config.id}`: a prompt of data `{self.config.data}` has {longest} tokens, which with "
                f"{self.config.sampling.max_tokens} for the completion exceeds the policy's context of {context}: "
                "lower `sampling.max_tokens` or drop long prompts"
            )

    def _advance(self, name: str, rows: Sequence[AnsweredPrompt]) -> None:
        """Report the progress, and the share of the policy's completions that have passed so far."""
        each = self.config.samples + 1
        passed = [answer.passed(self.passes) for row in rows for answer in row.sampled]
        applicable = [one for one in passed if one is not None]
        shown = {"pass_rate": sum(applicable) / len(applicable)} if applicable else {}
        names = list(dict.fromkeys(self.config.policies))
        done = (names.index(name) * len(self.examples) + len(rows)) * each
        self.stage.progress(done, len(names) * len(self.examples) * each, "completion", **shown)


def _score(
    rewards: Rewards,
    examples: Sequence[Example],
    samples: Samples,
    logprobs: Sequence[float | None],
    initial: Sequence[float | None],
) -> list[Answer]:
    """Return the rewards of completions, one example per completion."""
    columns = columns_of(examples, samples.finish, samples.ids)
    table = rewards.score([example.prompt for example in examples], samples.text, columns)
    return [
        Answer(
            text=text,
            tokens=len(samples.ids[index]),
            ended=samples.finish[index] == "stop",
            reward=table.total[index],
            rewards={name: values[index] for name, values in table.each.items()},
            logprob=logprobs[index],
            initial_logprob=initial[index],
        )
        for index, text in enumerate(samples.text)
    ]
