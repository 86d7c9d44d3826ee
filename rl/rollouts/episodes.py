"""Episodes of several turns: a program that fails public tests is told so, and written again (RLEF)."""

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
    """One turn of one episode: the completion, the conversation that it continues, and what followed.

    `reward` is None where the machine was at fault. `too_long` says that there was no room for the next turn.
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
        """Whether the episode ended here with a program that passes all tests."""
        return self.feedback is None and self.reward == PASSED


@dataclass(frozen=True)
class _Play:
    """The turns that one process played, in the order of their episodes, and their log-probabilities.

    `drawn` counts completions and their tokens, also of episodes that were left out.
    """

    turns: list[Turn]
    draw: Completions
    left_out: int
    drawn: tuple[int, int]
    seconds: dict[str, float]
    gap: Gap | None


class EpisodeCollector(RolloutCollector):
    """Rolls out episodes: `samples` of each prompt, of at most `turns` turns."""

    def __init__(self, *parts: Any, config: ReinforceAlgorithm, **more: Any) -> None:
        """As a `RolloutCollector`, whose one reward is of kind code and takes nothing from partly right programs.

        Raises:
            UserError: it is not.
        """
        super().__init__(*parts, **more)
        self.config, self.code = config, code_reward(self.rewards)

    def collect(
        self, examples: Sequence[Example], seed: int, processes: int = 1, ahead: Sequence[Example] = ()
    ) -> tuple[Rollouts, dict[str, float]]:
        """As `RolloutCollector.collect`, for episodes; nothing is drawn ahead.

        Raises:
            RunError: not one episode could be judged, or a program took too long.
        """
        mine = share(len(examples), processes)
        plays = from_all(self._play(examples[mine], seed, mine.start))
        played = [each for play in plays for each in play.turns]
        left_out = sum(play.left_out for play in plays)
        if not played:
            raise RunError(
                f"reward {self.code.name} (code) could judge none of {left_out} episodes: the sandbox failed"
            )
        gaps = [play.gap for play in plays if play.gap is not None]
        if gaps:
            self._check_gaps({"policy": functools.reduce(operator.add, gaps)})
        draw, n = Completions.joined([play.draw for play in plays if play.turns]), self.config.samples
        raw_reward_PN = torch.tensor([[each.reward] for each in played])
        metrics = draw_metrics(draw, raw_reward_PN, [each.finish for each in played])
        weight = self.rewards.terms[self.code.name].weight
        metrics |= episode_metrics(played, self.config.turns, left_out, self.code.name)
        metrics["reward"] = weight * metrics[f"reward/{self.code.name}"]
        metrics |= self._speed(plays)
        if gaps:
            metrics["sampler_gap/policy"] = functools.reduce(operator.add, gaps).mean
        self.shown = _shown(played, examples, n, self.code.name)
        return Episodes(
            [each.context for each in played],
            draw.rewarded(raw_reward_PN * weight),
            prompt_R=torch.tensor([each.episode // n for each in played]),
            episode_R=torch.tensor([each.episode for each in played]),
            turn_R=torch.tensor([each.turn for each in played]),
            asked=len(examples),
            spare=Weighted(played[0].context, played[0].ids, 0.0),
        ), metrics

    def _play(self, examples: Sequence[Example], seed: int, before: int) -> _Play:
        """Play the episodes of some of the prompts, `before` which others stand; all processes take turns together."""
        seconds = dict.fromkeys(("sync", "sampling", "reward", "logprob"), 0.0)
        with timed(seconds, "sync"):
            self.sampler.sync()
        n, prompts = self.config.samples, self._prompts(examples)
        problems = self._episodes(examples)
        first = before * n
        waiting = {first + i: prompts[i // n] for i in range(n * len(prompts)) if problems[i // n] is not None}
        by_episode: dict[int, list[Turn]] = {}
        for number in range(self.config.turns):
            with timed(seconds, "sampling"):
                sampled = self._sample_turns(waiting, seed * self.config.turns + number, number)
            with timed(seconds, "reward"):
                outcomes = self._judge_turns(sampled, [problems[(each.episode - first) // n] for each in sampled])
            waiting = {}
            for each in (self._with_outcome(turn, outcome) for turn, outcome in zip(sampled, outcomes, strict=True)):
                by_episode.setdefault(each.episode, []).append(each)
                if each.feedback is not None:
                    waiting[each.episode] = self._next_prompt(each)
        counted = {episode: turns for episode, turns in sorted(by_episode.items()) if turns[-1].reward is not None}
        self._tell_faults(len(by_episode) - len(counted), len(by_episode))
        played = [each for turns in counted.values() for each in turns]
        with timed(seconds, "logprob"):
            draw, gap = self._draw_of(played)
        every = [each.ids for turns in by_episode.values() for each in turns]
        return _Play(played, draw, n * len(prompts) - len(counted), (len(every), tokens_in(every)), seconds, gap)

    def _speed(self, plays: Sequence[_Play]) -> dict[str, float]:
        """Seconds of the slowest process, and what all did in a second."""
        seconds = {name: max(play.seconds[name] for play in plays) for name in plays[0].seconds}
        completions, tokens = (sum(play.drawn[i] for play in plays) for i in (0, 1))
        logprob = sum(tokens_in(play.draw.ids) for play in plays) * self.scorings
        metrics = {f"{name}_seconds": value for name, value in seconds.items()}
        metrics |= rates({"sampling": tokens, "logprob": logprob}, seconds)
        return metrics | rates({"reward": completions}, seconds, unit="completions")

    def _episodes(self, examples: Sequence[Example]) -> list[Episode | None]:
        """Each row's tests as an episode; None where it has none."""
        columns = columns_of(examples, ["stop"] * len(examples), [[] for _ in examples])
        found = self.code.problems([example.prompt for example in examples], [""] * len(examples), columns)
        public = self.config.public_tests
        return [None if whole is None else Episode(whole, whole.first(public), self.config.turns) for whole in found]

    def _sample_turns(self, waiting: Mapping[int, list[int]], seed: int, turn: int) -> list[Turn]:
        """One completion of each conversation, by episode; what one draws does not depend on the processes."""
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
        """What follows each completion; many programs run at once."""

        def judge(turn: Turn, episode: Episode | None) -> TurnOutcome:
            assert episode is not None
            finished = turn.finish == "stop"
            return episode.turn(turn.turn, turn.text, lambda text, tests: self.code.verdict(text, tests, finished))

        with ThreadPoolExecutor(self.code.programs_at_once, "episodes") as threads:
            return list(threads.map(judge, sampled, episodes))

    def _with_outcome(self, turn: Turn, outcome: TurnOutcome) -> Turn:
        """The turn with what followed; where the next one would not fit, the episode has failed."""
        done = replace(turn, reward=outcome.reward, status=outcome.verdict.status, feedback=outcome.feedback)
        if (
            outcome.feedback is None
            or len(self._next_prompt(done)) + self.sampling.max_tokens <= self.config.max_length
        ):
            return done
        return replace(done, reward=FAILED, feedback=None, too_long=True)

    def _tell_faults(self, faults: int, episodes: int) -> None:
        if faults:
            self.say(
                f"reward {self.code.name} (code): {faults} of {episodes} episodes are left out, as the sandbox "
                "failed on a program of theirs"
            )

    def _next_prompt(self, turn: Turn) -> list[int]:
        """The conversation with the completion and the feedback."""
        assert turn.feedback is not None
        return continued_ids(self.policy.tokenizer, turn.context, turn.ids, turn.feedback, self.policy.end_ids)

    def _draw_of(self, played: Sequence[Turn]) -> tuple[Completions, Gap | None]:
        """The turns as a draw with its log-probabilities, N = 1, and the sampler's gap to the trainer."""
        draw = Completions([each.ids for each in played])
        if not played:
            return draw, None
        samples = Samples(draw.ids, *([getattr(s, name) for s in played] for name in ("logprobs", "text", "finish")))
        contexts = [each.context for each in played]
        draw, own = self._with_logprobs(contexts, draw, {"policy": samples})
        if own is None:
            return draw, None
        self._check_policy(own.gap, contexts, samples, self.sampling)
        return draw, own.gap


def code_reward(rewards: Rewards) -> Code:
    """The one reward of a stage with turns.

    Raises:
        UserError: it does not suit turns; see `turns_fault`.
    """
    (name,) = rewards.names
    part = rewards[name]
    fault = turns_fault(rewards.terms[name])
    if fault or not isinstance(part, Code):
        raise UserError(f"rewards.{name}: {fault}")
    return part


def episode_metrics(played: Sequence[Turn], turns: int, left_out: int, name: str) -> dict[str, float]:
    """Metrics of the episodes that count.

    `reward/NAME` is the mean of what an episode's turns earn together, `reward/NAME_std` the standard deviation of
    that, `pass/turn_K` the share of episodes that have passed all tests by turn K, `turns` how many were used;
    `no_program` is a share of completions, `too_long` of episodes that had no room for another turn, and `left_out` of
    all episodes: no tests, or the sandbox failed.
    """
    earned = [
        sum(each.reward or 0.0 for each in own)
        for _, own in itertools.groupby(played, key=operator.attrgetter("episode"))
    ]
    episodes = len(earned)
    passed = [sum(each.passed and each.turn <= turn for each in played) / episodes for turn in range(turns)]
    return {
        f"reward/{name}": statistics.fmean(earned),
        f"reward/{name}_std": statistics.pstdev(earned),
        **{f"pass/turn_{turn + 1}": share for turn, share in enumerate(passed)},
        "turns": len(played) / episodes,
        "no_program": sum(each.status is Status.UNPARSABLE for each in played) / len(played),
        "too_long": sum(each.too_long for each in played) / episodes,
        "left_out": left_out / (left_out + episodes),
    }


def _shown(played: Sequence[Turn], examples: Sequence[Example], n: int, name: str) -> list[dict[str, Any]]:
    """The first episode of each of the first few prompts, for people to read."""
    shown = []
    for episode in list(dict.fromkeys(each.episode // n * n for each in played))[:3]:
        own = [each for each in played if each.episode == episode]
        if not own:
            continue
        reward = sum(each.reward or 0.0 for each in own)
        turns = [{"completion": each.text, "reward": each.reward, "feedback": each.feedback} for each in own]
        row = {"prompt": examples[episode // n].prompt, "completion": own[-1].text, "reward": reward}
        shown.append({**row, "rewards": {name: reward}, "turns": turns})
    return shown
