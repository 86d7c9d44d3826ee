"""The results in a run's folder: its stages, metrics, scores, policies and report."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemsmith.contracts.errors import UserError
from gemsmith.contracts.suggestions import did_you_mean, listed
from gemsmith.recipes.report.contents import RunContents, StageContents, read_contents
from gemsmith.recipes.run.record import Status
from gemsmith.recipes.run.view import MARKS, duration

if TYPE_CHECKING:
    from gemsmith.policy.policy import Policy
    from gemsmith.recipes.api.scores import Scores


@dataclass(frozen=True)
class RunStage:
    """One stage of a run.

    Attributes:
        id: id of the stage in the recipe.
        kind: kind of the stage, such as "sft".
        status: "to run", "running", "finished", "failed" or "interrupted". A stage whose process was killed stays
            "running" until the run is continued.
        seconds: duration of all attempts together.
        inputs: ids of the stages that it builds on.
        folder: folder of the stage, with `metrics.jsonl`, `console.log` and `output`.
        config: configuration with all defaults filled in; empty until the stage has started.
    """

    id: str
    kind: str
    status: Status
    seconds: float
    inputs: tuple[str, ...]
    folder: Path
    config: dict[str, Any]

    @property
    def output(self) -> Path:
        """Return the folder of the stage's result, which later stages and other tools load."""
        return self.folder / "output"


class Run:
    """The folder of a run. Each access reads the folder again, so you can watch a run of another process.

    Args:
        folder: the run's folder.

    Raises:
        UserError: the folder does not contain a run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._contents()

    @property
    def name(self) -> str:
        """Return the name of the recipe."""
        return self._contents().name

    @property
    def stages(self) -> list[RunStage]:
        """Return the stages in the order in which they run."""
        return [_record(stage) for stage in self._contents().stages]

    def stage(self, id: str) -> RunStage:
        """Return the stage with an id.

        Raises:
            UserError: the run has no such stage.
        """
        return _record(self._stage(id))

    def metrics(self, stage: str) -> list[dict[str, Any]]:
        """Return the logged rows of a stage, oldest first, as dicts with `step` and the metrics.

        Rows of a stage that trains several models also have the number of the model (`run`, `member`). The list is
        empty if the stage has logged nothing. `pandas.DataFrame(rows)` makes a table of the rows.

        Raises:
            UserError: the run has no such stage.
        """
        return self._stage(stage).metrics

    def scores(self, stage: str | None = None) -> "Scores":
        """Return the table of an evaluation.

        Args:
            stage: the evaluation's id. Default: the only evaluation of the run that has scores.

        Raises:
            UserError: the run has no such stage, or the stage has no scores.
        """
        from gemsmith.recipes.api.scores import read_scores

        scored = [entry.id for entry in self._contents().stages if entry.output("scores.json")]
        if stage is None:
            if len(scored) != 1:
                found = f"several stages with scores ({', '.join(scored)})" if scored else "no stage with scores"
                raise UserError(f"{self.folder}: found {found}, expected one; name the evaluation: scores(stage)")
            stage = scored[0]
        entry = self._stage(stage)
        if stage not in scored:
            raise UserError(
                f"{self.folder}: stage {stage} ({entry.kind}, {entry.status}) has no scores, expected a finished "
                f"evaluation: {listed(scored)}"
            )
        with entry.reading("output/scores.json"):
            return read_scores(entry.output("scores.json"))

    def policy(self, stage: str | None = None) -> "Policy":
        """Load the policy that a stage has trained, on the GPU if there is one, ready to generate.

        Args:
            stage: id of the stage; "ID@RATE" selects the point at that rate on the line that a `warp` stage keeps.
                Default: the last finished stage with a policy.

        Returns:
            A policy whose `model` and `tokenizer` are transformers objects.

        Raises:
            UserError: the run has no such stage, or the stage has no policy.
        """
        from gemsmith.recipes.api.silence import quiet_libraries
        from gemsmith.recipes.run.trained import find_policy

        id, at, rate = (stage or "").partition("@")
        if id:
            self._stage(id)
        trained = find_policy(self.folder, id or None)
        assert trained.stage is not None
        with quiet_libraries():
            from gemsmith.policy.config import PolicyConfig
            from gemsmith.policy.loading.load import load_policy

            try:
                config = PolicyConfig.named(f"{trained.stage}{at}{rate}")
            except ValueError as error:
                raise UserError(f"stage: {error}") from error
            return load_policy(config, {trained.stage: trained.folder})

    @property
    def report(self) -> Path:
        """Return the path of the HTML report.

        Raises:
            UserError: the run has no report yet.
        """
        path = self.folder / "report.html"
        if not path.is_file():
            raise UserError(f"{path}: found no report; write_report() writes one from the results so far")
        return path

    def write_report(self) -> Path:
        """Write the HTML report from the results so far, and return its path."""
        from gemsmith.recipes.report import write_report

        return write_report(self.folder)

    def __repr__(self) -> str:
        try:
            stages = self.stages
        except UserError:
            return f"Run({str(self.folder)!r}, the folder no longer exists)"
        wide = (
            max((len(stage.id) for stage in stages), default=0),
            max((len(stage.kind) for stage in stages), default=0),
        )
        lines = [
            f"  {MARKS[stage.status]} {stage.id:<{wide[0]}}  {stage.kind:<{wide[1]}}  {stage.status:<11}"
            f"  {duration(stage.seconds) if stage.seconds else ''}".rstrip()
            for stage in stages
        ]
        return "\n".join([f"Run({str(self.folder)!r})", *lines])

    def _contents(self) -> RunContents:
        return read_contents(self.folder)

    def _stage(self, id: str) -> StageContents:
        contents = self._contents()
        if (found := contents.stage(id)) is None:
            ids = [entry.id for entry in contents.stages]
            raise UserError(f'{self.folder}: found no stage "{id}", expected {listed(ids)}{did_you_mean(id, ids)}')
        return found


def _record(stage: StageContents) -> RunStage:
    return RunStage(
        id=stage.id,
        kind=stage.kind,
        status=stage.status,  # type: ignore[arg-type]  # as the file says
        seconds=stage.seconds,
        inputs=stage.inputs,
        folder=stage.folder,
        config=stage.config,
    )
