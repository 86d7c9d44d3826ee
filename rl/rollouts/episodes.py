"""Rollouts of several turns: after a program fails public tests, the policy sees them and tries again (RLEF)."""

import functools
import itertools
import operator
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from gemsmith.contracts.errors import RunError, UserError
from gemsmith.contracts.processes import rank
from gemsmith.curation.example import Example
from gemsmith.policy.samplers.contract import Finish, Samples
from gemsmith.policy.samplers.logprob_mismatch import Gap, check_completions
from gemsmith.policy.text.chat import continued_ids
from gemsmith.policy.training.processes import from_all
from gemsmith.rl.algorithms.algorithm import Completions, Rollouts, Weighted
from gemsmith.rl.algorithms.reinforce_config import ReinforceAlgorithm
from gemsmith.rl.algorithms.turns import Episodes
from gemsmith.rl.rewards.compatibility import turns_fault
from gemsmith.rl.rewards.compose import Rewards
from gemsmith.rl.rewards.kinds.code import Code
from gemsmith.rl.rewards.reward import columns_of
from gemsmith.rl.rollouts.rollout import RolloutCollector, draw_metrics, share
from gemsmith.rl.rollouts.step_timer import rates, timed, tokens_in
from gemsmith.sandboxes.code.feedback import FAILED, PASSED, Episode, TurnOutcome
from gemsmith.sandboxes.verdict import Status


@dataclass(frozen=True)
class Turn:
    """One turn of an episode: the completion, the conversation it continues, and its outcome.

    Attributes:
        episode: index of the episode within the step.
        turn: index of the turn within its episode, from 0.
        context: token ids of the conversation before the completion.
        ids: token ids of the completion.
        logprobs: log-probability of each token as the sampler reports it.
        text: text of the completion.
        finish: reason why the completion ended.
        reward: reward of the turn; None if the sandbox failed.
        status: status of the verdict.
        feedback: the message with the failed tests; None if the episode ends with this turn.
        too_long: True if the next turn would exceed `max_length`.
    """

    episode: int
    turn: int
    context: list[int]
    ids: list[int]
    logprobs: list[float]
    text: str
    finish: Finish
    reward: float | None = None
    status: Status = Status.UNPARSABLE
    feedback: str | None = None
    too_long: bool = False

    @property
    def passed(self) -> bool:
        """Return True if the episode ended with this turn and its program passed all tests."""
        return self.feedback is None and self.reward == PASSED


@dataclass(frozen=True)
class _Play:
    """Turns that one process played, in the order of their episodes, and their log-probabilities.

    `drawn` holds the numbers of sampled completions and tokens, including those of episodes that were left out.
    """

    turns: list[Turn]
    draw: Completions
    left_out: int
    drawn: tuple[int, int]
    seconds: dict[str, float]
    gap: Gap | None


class EpisodeCollector(RolloutCollector):
    """Collector of episodes: `samples` episodes per prompt, each of at most `turns` turns."""

    def __init__(self, *parts: Any, config: ReinforceAlgorithm, **more: Any) -> None:
        """Initialise a `RolloutCollector` whose single reward is of kind code, without partial credit.

        Raises:
            UserError: the reward does not support turns; see `turns_fault`.
        """
        super().__init__(*parts, **more)
        self.config, self.code = config, code_reward(self.rewards)

    def collect(
        self, examples: Sequence[Example], seed: int, processes: int = 1, ahead: Sequence[Example] = ()
    ) -> tuple[Rollouts, dict[str, float]]:
        """Roll out the episodes of one batch of prompts; see `RolloutCollector.collect`. `ahead` is not used.

        Raises:
            RunError: no episode could be judged, or a program exceeded the reward's time limit.
        """
        mine = share(len(examples), processes)
        # Every process gathers the turns of all processes, so that all compute the same metrics and advantages.
        plays = from_all(self._play(examples[mine], seed, mine.start))
        played = [turn for play in plays for turn in play.turns]
        left_out = sum(play.left_out for play in plays)
        if not played:
            raise RunError(
                f"reward {self.code.name} (code) could not judge any of {left_out} episodes: the sandbox failed, "
                "or their rows have no tests"
            )
        gaps = [play.gap for play in plays if play.gap is not None]
        if gaps:
            self._check_gaps({"policy": functools.reduce(operator.add, gaps)})
        draw, n = Completions.joined([play.draw for play in plays if play.turns]), self.config.samples
        # Each turn is a row of its own: [R, 1], with the conversation so far as its prompt.
        raw_reward_PN = torch.tensor([[turn.reward] for turn in played])
        metrics = draw_metrics(draw, raw_reward_PN, [turn.finish for turn in played])
        weight = self.rewards.terms[self.code.name].weight
        metrics |= episode_metrics(played, self.config.turns, left_out, self.code.name)
        metrics["reward"] = weight * metrics[f"reward/{self.code.name}"]
        metrics |= self._speed(plays)
        if gaps:
            metrics["sampler_gap/policy"] = functools.reduce(operator.add, gaps).mean
        self.shown = _shown(played, examples, n, self.code.name)
        return Episodes(
            [turn.context for turn in played],
            draw.rewarded(raw_reward_PN * weight),
            prompt_R=torch.tensor([turn.episode // n for turn in played]),
            episode_R=torch.tensor([turn.episode for turn in played]),
            turn_R=torch.tensor([turn.turn for turn in played]),
            asked=len(examples),
            spare=Weighted(played[0].context, played[0].ids, 0.0),
        ), metrics

    def _play(self, examples: Sequence[Example], seed: int, before: int) -> _Play:
        """Play this process's episodes, starting at prompt offset `before`; a collective call."""
        seconds = dict.fromkeys(("sync", "sampling", "reward", "logprob"), 0.0)
        with timed(seconds, "sync"):
            self.sampler.sync()
        n, prompts = self.config.samples, self._prompts(examples)
        problems = self._episodes(examples)
        # Episodes are numbered over the whole step, prompt-major: `first` is this process's first number.
        first = before * n
        # `waiting` maps an open episode to the token ids that its next completion continues.
        waiting = {first + i: prompts[i // n] for i in range(n * len(prompts)) if problems[i // n] is not None}
        by_episode: dict[int, list[Turn]] = {}
        # Every process runs the same number of iterations, even without open episodes: sampling is collective.
        for number in range(self.config.turns):
            with timed(seconds, "sampling"):
                # One seed per step and turn; no two turns of a run share one.
                sampled = self._sample_turns(waiting, seed * self.config.turns + number, number)
            with timed(seconds, "reward"):
                outcomes = self._judge_turns(sampled, [problems[(turn.episode - first) // n] for turn in sampled])
            waiting = {}
            for done in (self._with_outcome(turn, outcome) for turn, outcome in zip(sampled, outcomes, strict=True)):
                by_episode.setdefault(done.episode, []).append(done)
                if done.feedback is not None:
                    waiting[done.episode] = self._next_prompt(done)
        # A sandbox failure leaves the last turn without a reward; the whole episode is left out then.
        counted = {episode: turns for episode, turns in sorted(by_episode.items()) if turns[-1].reward is not None}
        self._report_faults(len(by_episode) - len(counted), len(by_episode))
        played = [turn for turns in counted.values() for turn in turns]
        with timed(seconds, "logprob"):
            draw, gap = self._draw_of(played)
        every = [turn.ids for turns in by_episode.values() for turn in turns]
        return _Play(played, draw, n * len(prompts) - len(counted), (len(every), tokens_in(every)), seconds, gap)

    def _speed(self, plays: Sequence[_Play]) -> dict[str, float]:
        """Return the seconds of the slowest process in each phase, and the throughput of all processes."""
        seconds = {name: max(play.seconds[name] for play in plays) for name in plays[0].seconds}
        completions, tokens = (sum(play.drawn[i] for play in plays) for i in (0, 1))
        logprob = sum(tokens_in(play.draw.ids) for play in plays) * self.scorings
        metrics = {f"{name}_seconds": value for name, value in seconds.items()}
        metrics |= rates({"sampling": tokens, "logprob": logprob}, seconds)
        return metrics | rates({"reward": completions}, seconds, unit="completions")

    def _episodes(self, examples: Sequence[Example]) -> list[Episode | None]:
        """Build an episode from each row's tests; None for a row without tests."""
        columns = columns_of(examples, ["stop"] * len(examples), [[] for _ in examples])
        problems = self.code.problems([example.prompt for example in examples], [""] * len(examples), columns)
        public = self.config.public_tests
        return [None if whole is None else Episode(whole, whole.first(public), self.config.turns) for whole in problems]

    def _sample_turns(self, waiting: Mapping[int, list[int]], seed: int, turn: int) -> list[Turn]:
        """Sample one completion of each conversation.

        Completions are numbered over all processes, so that they do not depend on the number of processes.
        """
        # Collective: a process without open episodes must take part before it returns.
        counts = from_all(len(waiting))
        if not waiting:
            return []
        samples = self.sampler.sample(list(waiting.values()), 1, seed=seed, before=sum(counts[: rank()]))
        check_completions(samples, self.policy, self.sampling)
        return [
            Turn(episode, turn, context, samples.ids[i], samples.logprobs[i], samples.text[i], samples.finish[i])
            for i, (episode, context) in enumerate(waiting.items())
        ]

    def _judge_turns(self, sampled: Sequence[Turn], episodes: Sequence[Episode | None]) -> list[TurnOutcome]:
        """Run the programs of all completions, several at a time, and return their outcomes."""

        def judge(turn: Turn, episode: Episode | None) -> TurnOutcome:
            assert episode is not None
            finished = turn.finish == "stop"
            return episode.turn(turn.turn, turn.text, lambda text, tests: self.code.verdict(text, tests, finished))

        with ThreadPoolExecutor(self.code.programs_at_once, "episodes") as threads:
            return list(threads.map(judge, sampled, episodes))

    def _with_outcome(self, turn: Turn, outcome: TurnOutcome) -> Turn:
        """Return the turn with its outcome; if the next turn would not fit, the episode ends as failed."""
        done = replace(turn, reward=outcome.reward, status=outcome.verdict.status, feedback=outcome.feedback)
        if (
            outcome.feedback is None
            or len(self._next_prompt(done)) + self.sampling.max_tokens <= self.config.max_length
        ):
            return done
        return replace(done, reward=FAILED, feedback=None, too_long=True)

    def _report_faults(self, faults: int, episodes: int) -> None:
        if faults:
            self.say(
                f"reward {self.code.name} (code): {faults} of {episodes} episodes are left out, because the sandbox "
                "failed on one of their programs"
            )

    def _next_prompt(self, turn: Turn) -> list[int]:
        """Return the token ids of the conversation with the completion and the feedback appended."""
        assert turn.feedback is not None
        return continued_ids(self.policy.tokenizer, turn.context, turn.ids, turn.feedback, self.policy.end_ids)

    def _draw_of(self, played: Sequence[Turn]) -> tuple[Completions, Gap | None]:
        """Return the turns as completions with log-probabilities, N = 1, and the sampler's gap to the trainer."""
        draw = Completions([turn.ids for turn in played])
        if not played:
            return draw, None
        samples = Samples(draw.ids, *([getattr(s, name) for s in played] for name in ("logprobs", "text", "finish")))
        contexts = [turn.context for turn in played]
        draw, own = self._with_logprobs(contexts, draw, {"policy": samples})
        if own is None:
            return draw, None
        self._check_policy(own.gap, contexts, samples, self.sampling)
        return draw, own.gap


def code_reward(rewards: Rewards) -> Code:
    """Return the single reward of a stage with turns.

    Raises:
        UserError: the reward does not support turns; see `turns_fault`.
    """
    (name,) = rewards.names
    part = rewards[name]
    fault = turns_fault(rewards.terms[name])
    if fault or not isinstance(part, Code):
        raise UserError(f"rewards.{name}: {fault}")
    return part


def episode_metrics(played: Sequence[Turn], turns: int, left_out: int, name: str) -> dict[str, float]:
    """Compute the metrics of the judged episodes.

    Args:
        played: turns of the judged episodes, those of an episode consecutive.
        turns: maximum number of turns of an episode.
        left_out: number of episodes that were left out.
        name: name of the reward.

    Returns:
        `reward/NAME` and `reward/NAME_std`, mean and standard deviation of an episode's total reward; `pass/turn_K`,
        the share of episodes that passed all tests by turn K; `turns`, the mean number of turns; `no_program`, the
        share of completions without a program; `too_long`, the share of episodes that ended because the next turn
        would not fit; `left_out`, the share of all episodes without tests or with a sandbox failure.
    """
    earned = [
        sum(turn.reward or 0.0 for turn in own)
        for _, own in itertools.groupby(played, key=operator.attrgetter("episode"))
    ]
    episodes = len(earned)
    passed = [sum(turn.passed and turn.turn <= last for turn in played) / episodes for last in range(turns)]
    return {
        f"reward/{name}": statistics.fmean(earned),
        f"reward/{name}_std": statistics.pstdev(earned),
        **{f"pass/turn_{turn + 1}": share for turn, share in enumerate(passed)},
        "turns": len(played) / episodes,
        "no_program": sum(turn.status is Status.UNPARSABLE for turn in played) / len(played),
        "too_long": sum(turn.too_long for turn in played) / episodes,
        "left_out": left_out / (left_out + episodes),
    }


def _shown(played: Sequence[Turn], examples: Sequence[Example], n: int, name: str) -> list[dict[str, Any]]:
    """Return the first episode of each of the first three prompts, for the file of example completions."""
    shown = []
    for episode in list(dict.fromkeys(turn.episode // n * n for turn in played))[:3]:
        own = [turn for turn in played if turn.episode == episode]
        if not own:
            continue
        reward = sum(turn.reward or 0.0 for turn in own)
        turns = [{"completion": turn.text, "reward": turn.reward, "feedback": turn.feedback} for turn in own]
        row = {"prompt": examples[episode // n].prompt, "completion": own[-1].text, "reward": reward}
        shown.append({**row, "rewards": {name: reward}, "turns": turns})
    return shown
