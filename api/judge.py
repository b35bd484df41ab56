"""Which run is better, and what its score means: comparisons and audits that a notebook shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.audit import audit as audits
from ..analysis.audit.finding import printed
from ..analysis.comparison import compare as comparisons
from ..analysis.comparison.compare import Compared
from ..analysis.comparison.text import as_json, compared_text, sentence
from ..core.errors import UserError
from ..core.files import read_json
from ..core.frames import data_frame, html_text
from ..core.run_folder import RunFolder
from ..runs.runtime import Runtime
from .progress import shown
from .run import AnyRun

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class ComparedRuns(Compared):
    """The result of a comparison, which prints as the table and the verdict of `headwater compare`."""

    @property
    def verdict(self) -> str:
        """A sentence for each run behind the first: which is better, or that they cannot be told apart."""
        return "\n".join(sentence(self, one) for one in self.comparisons)

    @property
    def frame(self) -> DataFrame:
        """A row for each metric of each run behind the first: both scores, the difference, its interval and p."""
        content = as_json(self)
        scores, rows = {run["name"]: run["scores"] for run in content["runs"]}, []
        for one in content["comparisons"]:
            for metric, found in one["metrics"].items():
                low, high = found["interval"] or (None, None)
                both = {"first_score": scores[one["first"]][metric], "second_score": scores[one["second"]][metric]}
                row = {"first": one["first"], "second": one["second"], "metric": metric, **both}
                gap = {"difference": found["difference"], "low": low, "high": high, "p": found["p"], "p_holm": found["p_holm"]}
                rows.append({**row, **gap, "better": found["better"]})
        return data_frame(rows)

    def __repr__(self) -> str:
        """Return the table and the verdict."""
        return compared_text(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_text(compared_text(self))


def compare(
    *runs: AnyRun | Sequence[AnyRun],
    metric: str | None = None,
    split: str | None = None,
    task: str | None = None,
    weights: str | None = None,
) -> ComparedRuns:
    """Compare every run or plan (or csv of another toolkit's predictions) with the first one, on the same utterances of a split.

    >>> compare("result/downstream/hubert", "result/downstream/wavlm").verdict  # doctest: +SKIP
    """
    folders: list[Path] = []
    for run in runs:
        folders += map(Path, run) if isinstance(run, list | tuple) else [Path(run)]  # type: ignore[arg-type]
    if len(folders) < 2:
        raise UserError(f"Expected at least two runs to compare, found {len(folders)}. Write headwater.compare(one, other).")
    found = comparisons.compare(folders, metric=metric, split=split, task=task, weights=weights)
    return ComparedRuns(**{field.name: getattr(found, field.name) for field in fields(Compared)})


class Audit(dict[str, Any]):
    """What an audit found: the content of audit.json, which prints as `headwater audit` does."""

    @property
    def warnings(self) -> list[str]:
        """The findings that make the score mean less than it seems."""
        return [one["line"] for one in self["findings"] if one["warns"]]

    @property
    def frame(self) -> DataFrame:
        """A row for each finding: its section, its name, whether it warns, and a line of words."""
        return data_frame([{key: one[key] for key in ("section", "name", "warns", "line")} for one in self["findings"]])

    def __repr__(self) -> str:
        """Return a line for each finding; `!` begins one that warns."""
        return "\n".join(printed(self))

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        return html_text(repr(self))


def audit(
    run: AnyRun,
    *,
    metric: str | None = None,
    split: str | None = None,
    by: Sequence[str] = (),
    predictions: str | Path | None = None,
    device: str = "auto",
    quiet: bool | None = None,
) -> Audit:
    """Find out what a finished run's score means: random weights, shuffled labels, leaks, duplicates, wrong labels, groups.

    `by` names labels whose groups are scored too, `predictions` a csv of another toolkit. audit.json in the folder has numbers.

    >>> audit("result/downstream/my_run").warnings  # doctest: +SKIP
    """
    theirs = None if predictions is None else Path(predictions).expanduser()
    folder = Path(run).expanduser()
    with shown(quiet) as is_quiet:
        audits.audit(folder, Runtime(device, is_quiet), metric=metric, split=split, by=by, theirs=theirs)
    return Audit(read_json(RunFolder(folder).audit))
