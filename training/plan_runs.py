"""Which runs of a finished plan answer for it, and what dev placed in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .checkpoint import read_json

PLACED = "threshold"  # what dev placed, in a vocabulary: of several runs, the mean
Row = Mapping[str, Any]  # a run in a plan's result.json: name, setting, seed, fold


def runs_of_plan(folder: Path) -> list[Row] | None:
    """Return the runs that a finished plan reports, of a sweep those of the setting that dev chose; None: it is no plan."""
    path = folder / "result.json"
    if (folder / "config.yaml").is_file() or not path.is_file():
        return None
    summary = read_json(path)
    if not isinstance(summary, dict) or "runs" not in summary:
        return None
    return [row for row in summary["runs"] if "chosen" not in summary or row["setting"] == summary["chosen"]]


def counted(rows: Sequence[Row]) -> str:
    """Return `5 folds`, `3 seeds`, or both."""
    counts = {key: len({row[key] for row in rows}) for key in ("fold", "seed")}
    return " x ".join(f"{count} {key}s" for key, count in counts.items() if count > 1) or f"{len(rows)} runs"


def mean_placed(vocabularies: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean of what dev placed in each of several runs."""
    return sum(vocabulary[PLACED] for vocabulary in vocabularies) / len(vocabularies)
