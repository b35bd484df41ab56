"""How well a run does, as its card says it: scores of what was held out, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.run_folder import RunFolder, counted


@dataclass(frozen=True)
class Estimate:
    """The scores of a split."""

    split: str
    scores: Mapping[str, float]
    intervals: Mapping[str, Sequence[float] | None]
    utterances: int
    groups: int  # that the intervals resample
    resampled: str  # what these are: speakers, recordings
    about: str  # what was tested: this run, or a plan that it repeats

    @property
    def size(self) -> str:
        """How much was tested, in words."""
        groups = f", {self.groups} {self.resampled}{'s' * (self.groups != 1)}" if self.groups else ""
        return f"{self.utterances} utterances{groups}"


def estimates_of(result: Mapping[str, Any]) -> list[Estimate]:
    """Return the estimates that a run's result.json holds; of a final model, those of the plan whose steps it took."""
    if result.get("split") == "all":
        plan = earlier_run(result)
        return [] if plan is None else plan_estimates(plan)
    metrics = [*result.get("metrics", ())]
    found = []
    for split, scores in result.get("scores", {}).items():
        known = {name: scores[name] for name in metrics if scores.get(name) is not None}
        if split == "dev" or not known:
            continue
        ends = result.get("intervals", {}).get(split) or {}
        counts = [result.get(key, {}).get(split) for key in ("num_utterances", "num_speakers", "resampled")]
        fold = f"fold {result['fold']} of the protocol {result['protocol']}" if result.get("fold") else result.get("protocol", "")
        found.append(Estimate(split, known, ends, counts[0] or 0, counts[1] or 0, counts[2] or "speaker", f"this run ({fold})"))
    return found


def earlier_run(result: Mapping[str, Any]) -> Path | None:
    """Return the run or plan that a final model took its steps from, if it is still there."""
    named = result.get("steps_from", {}).get("run")
    folder = Path(str(named)).expanduser()
    return folder if named and RunFolder(folder).result.is_file() else None


def plan_estimates(folder: Path) -> list[Estimate]:
    """Return the pooled estimates of a plan's folds, or those of the single run in its place."""
    summary = RunFolder(folder).read().result()
    if "pooled" not in summary:
        own = estimates_of(summary) if "scores" in summary else []
        return [
            Estimate(**{**vars(one), "about": f"the run '{folder.name}', whose recipe and steps this one repeats"}) for one in own
        ]
    about = f"the plan '{folder.name}' ({counted(summary['runs'])}), pooled; this model repeats its recipe on all of the data"
    found = []
    for split, row in summary["pooled"].items():
        scores = {name: row["scores"][name] for name in summary["metrics"] if row["scores"].get(name) is not None}
        size = row["num_utterances"], row["num_speakers"], row.get("resampled", "speaker")
        found.append(Estimate(split, scores, row["intervals"], *size, about))
    return found
